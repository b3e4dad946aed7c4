"""A computer whose bucket is behind a proxy with faults, with a job whose files are known beforehand."""

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.bucket.bucket import Bucket
from tests.bucket.sound import File, Looker, lost
from tests.parts.faultproxy import FaultProxy
from tests.run.bench import Bench, Ran

JOBS = """
    [[job]]
    name = "many"
    command = ["python3", "many.py"]
"""
PROGRAM = """
import os, random, time
from pathlib import Path

def files(seed):
    rng = random.Random(seed)
    for n in range(rng.randint(1, 12)):
        size = rng.choice([0, 1, 900, 30_000, 200_000])
        yield f"d {n % 3}/{n} ü.bin", rng.randbytes(size)
    if rng.random() < 0.25:
        yield "large.bin", rng.randbytes(6_000_000)
"""
MAIN = """
seed = int(Path("SEED").read_text())
out = Path(os.environ["MAYFLY_OUTPUT_DIR"])
for name, content in files(seed):
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_bytes(content)
(Path(os.environ["MAYFLY_STATE_DIR"]) / "seed").write_text(str(seed))
if seed % 8 == 0:
    time.sleep(2.5)  # long enough for files to leave while the job runs
"""


def expected(seed: int) -> dict[str, tuple[int, str]]:
    """Return the files that the job leaves with a seed: path below the job, bytes, sha256."""
    space: dict[str, Any] = {}
    exec(PROGRAM, space)  # noqa: S102 -- the very text that the job runs
    return {
        name: (len(content), hashlib.sha256(content).hexdigest())
        for name, content in space["files"](seed)
    }


@dataclass
class World:
    """A computer, its bucket behind a proxy, and what was committed.

    Attributes:
        bench: The computer.
        bucket: The bucket; programs reach it through the proxy.
        proxy: What stands between.
    """

    bench: Bench
    bucket: Bucket
    proxy: FaultProxy

    @classmethod
    def make(cls, folder: Path, proxy: FaultProxy) -> "World":
        """Make a computer in a folder, with a release that has run once."""
        bucket = Bucket.on_s3(proxy.store, proxy.store.make_bucket(), endpoint=proxy.url)
        bench = Bench.make(folder, bucket)
        main = MAIN.replace("SEED", str(folder / "seed"))
        bench.release("v1", JOBS, {"many.py": textwrap.dedent(PROGRAM + main)})
        world = cls(bench, bucket, proxy)
        world.seed(1)
        first = bench.run()
        assert first.code == 0, first.stderr
        assert world.problems(first, 1) == []
        return world

    def seed(self, seed: int) -> None:
        """Choose the files of the runs to come."""
        (self.bench.folder / "seed").write_text(str(seed))

    def problems(self, ran: Ran, seed: int) -> list[str]:
        """Return what is not as it must be of a run that is said to be delivered."""
        run, seen = ran.run_id, Looker(self.bucket.objects).look()
        if run not in seen.runs or seen.runs[run].closed is None:
            return [f"{run} lost"]
        wanted = [File(run, "many", path, digest) for path, (_, digest) in expected(seed).items()]
        problems = [f"{kind} {what}" for kind, what in seen.problems_of(seen.runs[run])]
        problems += [f"lost {file.path}" for file in lost(seen, wanted)]
        return [f"{run} is not sound: {problems}"] if problems else []


def framed(content: bytes) -> bytes:
    """Return content as a store keeps it that does not take the framing of `aws-chunked` off."""
    size = f"{len(content):x}".encode()
    signature = b";chunk-signature=" + b"0" * 64 + b"\r\n"
    return size + signature + content + b"\r\n0" + signature + b"\r\n"


def seeds(first: int, count: int) -> list[tuple[int, Random]]:
    """Return seeds, and for each the numbers that its trial draws."""
    return [(seed, Random(seed)) for seed in range(first, first + count)]
