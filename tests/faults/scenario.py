"""A small day of a scraper's life, different for each seed: a release, shell jobs, files, memories, early uploads."""

import json
import random
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bucket.bucket import Bucket
from tests.bucket.sound import Broken, Looker, examine
from tests.faults.ledger import finished
from tests.faults.points import POINTS, SHARD_POINTS
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench, Ran, finish

CRASH = Path(__file__).with_name("crash.py")
LARGE = 1024**2 + 1
"""More than the agent sends in one go."""

DONE = frozenset({0, 3, 8})
"""Exit codes of a run that has committed. A shard that is tried again may have nothing left but what fails."""

# Each file is finished out of sight, takes its name in one step, and only then is written down.
SCRIPT = """\
set -e
job=$1; early=$2; ends=$3; shift 3
n=0
for size in "$@"; do
    n=$((n + 1))
    part="$MAYFLY_OUTPUT_DIR/$n.part"
    { echo "$MAYFLY_RUN_ID $job $n"; head -c "$size" /dev/zero; } > "$part"
    digest=$(sha256sum < "$part"); digest=${digest%% *}
    mv "$part" "$MAYFLY_OUTPUT_DIR/file-$n"
    echo "$MAYFLY_RUN_ID $job/file-$n $digest" >> "$LEDGER"
done
sleep "$early"
echo "$MAYFLY_RUN_ID" >> "$MAYFLY_STATE_DIR/runs"
exit "$ends"
"""


@dataclass
class Scenario:
    """A computer, a bucket and what the jobs say they finished.

    Attributes:
        bench: Runs the real program.
        ledger: What the jobs wrote down.
        looker: Looks at the bucket.
        chance: What all of it follows from.
        ends: The jobs' exit codes.
        early: Whether a job lasts long enough for files to be sent while it runs.
        shard: Whether its runs are the one shard of a group, another group for each release.
    """

    bench: Bench
    ledger: Path
    looker: Looker
    chance: random.Random
    ends: tuple[int, ...]
    early: bool
    shard: bool = False
    releases: int = 0

    @classmethod
    def make(
        cls,
        folder: Path,
        seed: str,
        server: S3Server | None,
        *,
        early: bool = False,
        shard: bool = False,
    ) -> "Scenario":
        """Publish a release and run it, so that later runs are warm.

        Args:
            folder: An empty folder.
            seed: What the jobs, the files and their sizes follow from.
            server: Where the bucket is; None for a folder.
            early: Whether a job lasts long enough for files to be sent while it runs.
            shard: Whether its runs are a shard.
        """
        chance = random.Random(seed)
        folder.mkdir(parents=True)
        bucket = Bucket.on_s3(server, server.make_bucket()) if server else None
        bench = Bench.make(folder, bucket)
        bench.settings |= {"limits.isolation": "process"}
        looker = Looker(bench.bucket.objects)
        ends = (0, 0, 1)[: chance.randint(1, 3)]
        made = cls(bench, folder / "ledger", looker, chance, ends, early, shard)
        made.release()
        ran = made.settle()
        assert ran.code in DONE, ran.stderr[-3000:]
        return made

    def release(self) -> None:
        """Publish a release: jobs with memories, the first with a large file, the third fails after its files."""
        jobs = ""
        for number, ends in enumerate(self.ends):
            sizes = [self.chance.randint(0, 60_000) for _ in range(self.chance.randint(1, 5))]
            if number == 0:
                sizes.append(LARGE + self.chance.randint(0, 100_000))
            lasts = "2.5" if self.early and number == 0 and self.releases else "0"
            words = ["sh", "job.sh", f"job{number}", lasts, str(ends), *map(str, sizes)]
            jobs += f'[[job]]\nname = "job{number}"\ncommand = {json.dumps(words)}\n'
            jobs += f"env = {{ LEDGER = {json.dumps(str(self.ledger))} }}\n"
        self.releases += 1
        version = f"v{self.releases}.0"
        self.bench.release(version, jobs, {"job.sh": SCRIPT, "version": version})

    def settle(self) -> Ran:
        """Do a run to its end."""
        return self.bench.run(*self._asked)

    def command(self) -> list[str]:
        """Return a run's command line."""
        return self.bench.command(*self._asked)

    @property
    def _asked(self) -> list[str]:
        return ["--shard", "1/1", "--group", f"g{self.releases}"] if self.shard else []

    def crashing(self, where: str, occurrence: int, counts: Path | None = None) -> bool:
        """Do a run that is killed at a point, and tell whether it was."""
        command = self.command()
        places = ",".join(sorted({point.place for point in (*POINTS, *SHARD_POINTS)}))
        killer = ["-P", str(CRASH), f"{where}:{occurrence}", str(counts or "-"), places]
        position = command.index("-m")
        command[position : position + 2] = killer
        return self.killed(command)

    def killed(self, command: list[str], environ: Mapping[str, str] | None = None) -> bool:
        """Do a run by another command line, and tell whether it was killed."""
        with (self.bench.folder / "stderr.log").open("w+") as stderr:
            process = subprocess.Popen(
                command,
                env={**self.bench.environment(), **(environ or {})},
                cwd=self.bench.folder,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
            process.args = str(self.bench.folder / "stderr.log")
            ran = finish(process)
        assert ran.code in {*DONE, -9, 137}, ran.stderr[-3000:]
        return ran.code in (-9, 137)

    def converge(self, most: int = 2) -> int:
        """Do runs until nothing waits any more; return how many, `most` + 1 for never."""
        for number in range(1, most + 1):
            ran = self.settle()
            if ran.code in DONE and not self.bench.spool:
                return number
        return most + 1

    def examine(self) -> Broken:
        """Return what does not hold of the bucket now."""
        return examine(self.looker.look(), finished(self.ledger))
