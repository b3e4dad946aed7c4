"""Large runs: a hundred thousand files, one of five gigabytes, five hundred jobs. They end, and memory stays flat.

`MAYFLY_LOAD=1` is the long form, with times; it needs 12 GB of disk. The short form looks at memory only: its machine
may have other things to do.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.bucket.bucket import Bucket
from tests.faults.figures import Figures
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench

LONG = bool(os.environ.get("MAYFLY_LOAD"))
COUNTS = (1_000, 10_000, 100_000) if LONG else (1_000, 20_000)
LARGE_MIB = 5 * 1024 if LONG else 100
JOBS = 500 if LONG else 50
STORES = ("file", "s3") if LONG else ("file",)
MORE_MIB = 16.0
"""What a peak may be above that of 1,000 files: buffers that were not all in use with those, none of it by the file."""
ROW_MIB = 400 / 1024**2
"""More than a file's row in the manifest, which is mapped while it is put."""
TIMES = 3 if LONG else 1
"""How often what the others are compared with is run."""
SLOWER = 1.3
"""How much longer a file may take than one of 1,000."""
RUN_SECONDS = 1500.0
LOOK_SECONDS = 0.02
TICKS = os.sysconf("SC_CLK_TCK")

MANY = """
[[job]]
name = "many"
timeout = "30m"
command = ["sh", "many.sh"]
"""
MANY_SCRIPT = """
folder=0
while [ $folder -lt {folders} ]; do
  mkdir "$MAYFLY_OUTPUT_DIR/$folder"
  head -c {bytes} /dev/urandom | split -b 2000 -a 4 -d - "$MAYFLY_OUTPUT_DIR/$folder/file-"
  folder=$((folder + 1))
done
"""
IN_FOLDER = 500
LARGE = """
[[job]]
name = "large"
timeout = "30m"
command = ["sh", "-c", "truncate -s {mib}M $MAYFLY_OUTPUT_DIR/large.bin"]
"""
ONE_OF_MANY = """
[[job]]
name = "job-{number}"
command = ["sh", "-c", "echo {number} > $MAYFLY_OUTPUT_DIR/file"]
"""


@dataclass(frozen=True)
class Load:
    """What a run took.

    Attributes:
        run_id: Its id.
        seconds: By the clock, the jobs' own time included.
        cpu: Of the agent's process alone, in seconds.
        peak: Of the agent's process alone: the highest resident memory, in MiB.
        own: The highest of it that is not a mapped file, which the kernel could take back: the manifest, as it is put.
    """

    run_id: str
    seconds: float
    cpu: float
    peak: float
    own: float


def measured(bench: Bench, **settings: str) -> Load:
    """Do a run to its end, and look at its process meanwhile."""
    began = time.monotonic()
    looked = Load("", 0.0, 0.0, 0.0, 0.0)
    with bench.running(**settings) as process, ThreadPoolExecutor(1) as reader:
        # Read all the while: the outcome of 500 jobs is more than a pipe holds.
        said = reader.submit(_all_of, process)
        stats = Path(f"/proc/{process.pid}")
        while process.poll() is None:
            assert time.monotonic() - began < RUN_SECONDS, "it does not come to an end"
            looked = _looked(stats, looked)
            time.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - began
        stdout = said.result(RUN_SECONDS)
    log = (bench.folder / "stderr.log").read_text()
    assert process.returncode == 0, log[-3000:]
    return replace(looked, run_id=str(json.loads(stdout)["run_id"]), seconds=seconds)


def _all_of(process: "subprocess.Popen[str]") -> str:
    return process.stdout.read() if process.stdout else ""


def _looked(stats: Path, before: Load) -> Load:
    """Return what a process took until now; what was known when it is gone."""
    try:
        fields = (stats / "stat").read_text().rpartition(")")[2].split()
        lines = (line.split() for line in (stats / "status").read_text().splitlines())
        status = {line[0]: int(line[1]) / 1024 for line in lines if line[2:] == ["kB"]}
        return replace(
            before,
            cpu=(int(fields[11]) + int(fields[12])) / TICKS,
            peak=status["VmHWM:"],
            own=max(before.own, status["RssAnon:"]),
        )
    except (OSError, IndexError, KeyError):
        return before


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    """The table."""
    table = Figures(
        point="9",
        title="Load; per file: times that at 1,000 files",
        command="MAYFLY_LOAD=1 pytest tests/faults/test_load.py -s",
        columns=(
            *("run", "bucket", "whole run, s", "agent's CPU, s", "time per file", "CPU per file"),
            *("peak, MiB", "without mapped files, MiB"),
        ),
        long=LONG,
    )
    yield table
    table.write()


@pytest.fixture(params=STORES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A computer whose bucket is a folder, and one whose bucket is behind S3."""
    bench = Bench.make(tmp_path)
    bench.settings |= {"limits.file": "8GiB"}
    if request.param == "s3":
        # A server of its own: what it stores is gone with it.
        with S3Server(tmp_path / "weed") as server:
            bench.deliver_to(Bucket.on_s3(server, server.make_bucket()))
            yield bench
    else:
        yield bench
    # Gigabytes, which the runner of tests would keep for three sessions.
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def _row(figures: Figures, what: str, bench: Bench, load: Load, *per_file: float) -> None:
    times = [f"{each:.2f}" for each in per_file] or ["", ""]
    memory = (f"{load.peak:.0f}", f"{load.own:.0f}")
    kind = bench.store.partition(":")[0]
    figures.row(what, kind, f"{load.seconds:.1f}", f"{load.cpu:.1f}", *times, *memory)


def _made(bench: Bench, tag: str, files: int) -> Load:
    """Do a run with so many files, from a release that is known already."""
    folders, rest = divmod(files, IN_FOLDER)
    assert rest == 0
    script = MANY_SCRIPT.format(folders=folders, bytes=IN_FOLDER * 2000)
    bench.release(tag, MANY, {"many.sh": script})
    return measured(bench)


def _usual(loads: list[Load]) -> Load:
    """Return the median by CPU time of some runs: a short one is soon half as long again."""
    return sorted(loads, key=lambda load: load.cpu)[len(loads) // 2]


def _verified(bench: Bench, run: str, files: int) -> None:
    """Have `mayfly verify` read all of a run."""
    done = bench.at_home("verify", run, "--json")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["files"] > files, "all of them, and what names them"


@pytest.mark.timeout(RUN_SECONDS * 4)
@pytest.mark.long
def test_many_files(bench: Bench, figures: Figures) -> None:
    """A hundred times the files take a hundred times as long, and no more memory."""
    _made(bench, "v0.1", 0)  # the first run also fetches, installs and tries the release
    empty = _usual([_made(bench, f"v0.{number}", 0) for number in range(2, 2 + TIMES)])
    first = _usual([_made(bench, f"v1.{number}", COUNTS[0]) for number in range(TIMES)])
    for number, count in enumerate(COUNTS):
        load = first if number == 0 else _made(bench, f"v2.{number}", count)
        times = COUNTS[0] / count
        slower = (load.seconds - empty.seconds) / (first.seconds - empty.seconds) * times
        work = (load.cpu - empty.cpu) / (first.cpu - empty.cpu) * times
        _row(figures, f"{count:,} files of 2 kB", bench, load, slower, work)
        _verified(bench, load.run_id, count)
        assert load.own < first.own + MORE_MIB
        assert load.peak < first.peak + MORE_MIB + count * ROW_MIB
        if LONG:
            assert work < SLOWER


@pytest.mark.timeout(RUN_SECONDS * 2)
@pytest.mark.long
def test_one_large_file(bench: Bench, figures: Figures) -> None:
    """It goes out in pieces: memory is that of a small run."""
    bench.release("v1.0", LARGE.format(mib=1))
    small = measured(bench)
    bench.release("v2.0", LARGE.format(mib=LARGE_MIB))
    load = measured(bench)
    _row(figures, f"one file of {LARGE_MIB:,} MiB", bench, load)
    _verified(bench, load.run_id, 1)
    assert load.peak < small.peak + 100


@pytest.mark.timeout(RUN_SECONDS * 2)
@pytest.mark.long
def test_many_jobs(bench: Bench, figures: Figures) -> None:
    """Each ends, and is in the manifest; ten times the jobs take no more memory."""
    peaks = []
    for tag, count in (("v1.0", JOBS // 10), ("v2.0", JOBS)):
        bench.release(tag, "".join(ONE_OF_MANY.format(number=number) for number in range(count)))
        load = measured(bench, limits__jobs="4")
        _row(figures, f"{count} jobs", bench, load)
        _verified(bench, load.run_id, count)
        peaks.append(load.peak)
    assert peaks[1] < peaks[0] + MORE_MIB
