"""From a job's end to its files at home, where a pull looks every second: a run of many jobs, one after the other."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.results import Case, Findings, Sample, Target
from tests.bucket.bucket import Bucket
from tests.parts.command import MAYFLY, surroundings
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench

JOBS = 50
LONGEST, STEP = 4.0, 0.37
"""Seconds that a job lasts at most, and by which one lasts longer than the one before: their ends fall anywhere
between two commits."""
LIMIT = 5.0
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.02

SCRIPT = """
head -c 20000 /dev/urandom > "$MAYFLY_OUTPUT_DIR/page.html"
sleep "$1"
date +%s.%N > "$STAMPS/$MAYFLY_JOB"
"""


def arrival(_: int) -> Findings:
    """Measure one run, which has as many jobs as there would be rounds."""
    with (
        tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name,
        S3Server(Path(name) / "s3") as server,
    ):
        folder = Path(name)
        (stamps := folder / "stamps").mkdir()
        bench = Bench.make(folder / "bench", Bucket.on_s3(server, server.make_bucket()))
        bench.settings["limits.jobs"] = "1"
        bench.release("v1", _jobs(stamps), {"job.sh": SCRIPT})
        with _pulling(folder / "home", bench) as home:
            seconds = _seconds(bench, stamps, home)
    case = Case("from a job's end to its files at home", "S3", tuple(_samples(seconds)))
    target = Target("median, s", LIMIT, "s", tuple(seconds))
    worst = f"The longest of {len(seconds)} took {max(seconds):.1f} s, the median {median(seconds):.1f} s."
    note = (
        "A run commits every 4 seconds at most, and `mayfly pull --watch 1` looks a second after its last look. "
        f"{worst} Server, run and pull share this machine."
    )
    return Findings((case,), (target,), {}, (note,))


def _samples(seconds: list[float]) -> Iterator[Sample]:
    for one in seconds:
        yield Sample("job", {"seconds": one})


def _jobs(stamps: Path) -> str:
    return "".join(
        f'[[job]]\nname = "job-{number}"\nenv = {{ STAMPS = "{stamps}" }}\n'
        f'command = ["sh", "job.sh", "{number * STEP % LONGEST:.2f}"]\n'
        for number in range(JOBS)
    )


@contextmanager
def _pulling(home: Path, bench: Bench) -> Iterator[Path]:
    """Pull every second until the block ends."""
    process = subprocess.Popen(
        [*MAYFLY, "pull", str(home), "--watch", "1"],
        env=surroundings(bench.bucket.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield home
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _seconds(bench: Bench, stamps: Path, home: Path) -> list[float]:
    """Do the run, and return how long each job took from its end to its place at home."""
    arrived: dict[str, float] = {}
    with bench.running() as process:
        until = 0.0
        while len(arrived) < JOBS:
            now = time.time()
            for job in home.glob("job-*/latest"):
                arrived.setdefault(job.parent.name, now)
            if process.poll() is not None:
                until = until or now + PATIENCE_SECONDS
                if now > until:
                    sys.exit(f"{JOBS - len(arrived)} jobs did not come home")
            time.sleep(POLL_SECONDS)
    return [at - float((stamps / job).read_text()) for job, at in arrived.items()]
