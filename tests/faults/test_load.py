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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.figures import Figures
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.run.bench import NOWHERE, Bench

LONG = bool(os.environ.get("MAYFLY_LOAD"))
COUNTS = (1_000, 10_000, 100_000) if LONG else (1_000, 5_000)
LARGE_MIB = 5 * 1024 if LONG else 100
JOBS = 500 if LONG else 50
STORES = ("file", "s3") if LONG else ("file",)
MORE_MIB = 24.0 if LONG else 40.0
"""What a peak may be above that of 1,000 files: a row of a manifest for each of 99,000 more files, and some air."""
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
    """

    run_id: str
    seconds: float
    cpu: float
    peak: float


def measured(bench: Bench, **settings: str) -> Load:
    """Do a run to its end, and look at its process meanwhile."""
    began = time.monotonic()
    cpu = peak = 0.0
    with bench.running(**settings) as process, ThreadPoolExecutor(1) as reader:
        # Read all the while: the outcome of 500 jobs is more than a pipe holds.
        said = reader.submit(_all_of, process)
        stats = Path(f"/proc/{process.pid}")
        while process.poll() is None:
            assert time.monotonic() - began < RUN_SECONDS, "it does not come to an end"
            cpu, peak = _looked(stats, cpu, peak)
            time.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - began
        stdout = said.result(RUN_SECONDS)
    log = (bench.folder / "stderr.log").read_text()
    assert process.returncode == 0, log[-3000:]
    return Load(str(json.loads(stdout)["run_id"]), seconds, cpu, peak)


def _all_of(process: "subprocess.Popen[str]") -> str:
    return process.stdout.read() if process.stdout else ""


def _looked(stats: Path, cpu: float, peak: float) -> tuple[float, float]:
    """Return what a process took until now; what was known when it is gone."""
    try:
        fields = (stats / "stat").read_text().rpartition(")")[2].split()
        status = (stats / "status").read_text()
        marks = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        highest = int(marks[0].split()[1]) / 1024
    except (OSError, IndexError):
        return cpu, peak
    return (int(fields[11]) + int(fields[12])) / TICKS, highest


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    """The table."""
    table = Figures(
        point="9",
        title="Load; per file: times that at 1,000 files",
        command="MAYFLY_LOAD=1 pytest tests/faults/test_load.py -s",
        columns=(
            "run",
            "bucket",
            "whole run, s",
            "agent's CPU, s",
            "time per file",
            "CPU per file",
            "peak, MiB",
        ),
        long=LONG,
    )
    yield table
    table.write()


@pytest.fixture(params=STORES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A computer whose bucket is a folder, and one whose bucket is behind S3."""
    git = tmp_path / "git"
    git.mkdir()
    bench = Bench(tmp_path, Repo(git), (tmp_path / "bucket").as_uri())
    bench.settings |= {"browser.url": NOWHERE, "limits.file": "8GiB"}
    if request.param == "s3":
        # A server of its own: what it stores is gone with it.
        with S3Server(tmp_path / "weed") as server:
            bench.store = f"s3://{server.make_bucket()}/prod"
            bench.settings["store.endpoint"] = server.url
            bench.environ |= {
                "AWS_ACCESS_KEY_ID": server.access_key,
                "AWS_SECRET_ACCESS_KEY": server.secret_key,
            }
            yield bench
    else:
        yield bench
    # Gigabytes, which the runner of tests would keep for three sessions.
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def _kind(bench: Bench) -> str:
    return bench.store.partition(":")[0]


def _made(bench: Bench, tag: str, files: int) -> Load:
    """Do a run with so many files, from a release that is known already."""
    folders, rest = divmod(files, IN_FOLDER)
    assert rest == 0
    script = MANY_SCRIPT.format(folders=folders, bytes=IN_FOLDER * 2000)
    bench.release(tag, MANY, {"many.sh": script})
    return measured(bench)


def _verified(bench: Bench, run: str, files: int) -> dict[str, Any]:
    """Return a run's index entry, after `mayfly verify` has read all of it."""
    command = bench.command()
    store = ["--store", bench.store]
    pairs = [text for text in command if text.startswith("store.endpoint")]
    sets = [text for pair in pairs for text in ("--set", pair)]
    done = subprocess.run(
        [*command[:3], "verify", run, "--json", *store, *sets],
        env=bench.environment(),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["files"] == files + 1, "all of them, and the log"
    return report


@pytest.mark.timeout(RUN_SECONDS * 4)
def test_many_files(bench: Bench, figures: Figures) -> None:
    """Ten times the files take ten times as long and not more memory, but for their rows in the manifest."""
    _made(bench, "v0.1", 0)  # the first run also fetches, installs and tries the release
    empty = _made(bench, "v0.2", 0)
    loads: list[Load] = []
    for number, count in enumerate(COUNTS, 1):
        load = _made(bench, f"v1.{number}", count)
        loads.append(load)
        first, times = loads[0], COUNTS[0] / count
        slower = (load.seconds - empty.seconds) / (first.seconds - empty.seconds) * times
        work = (load.cpu - empty.cpu) / (first.cpu - empty.cpu) * times
        cells = (f"{load.seconds:.1f}", f"{load.cpu:.1f}", f"{slower:.2f}", f"{work:.2f}")
        figures.row(f"{count:,} files of 2 kB", _kind(bench), *cells, f"{load.peak:.0f}")
        _verified(bench, load.run_id, count)
        assert load.peak < first.peak + MORE_MIB
        if LONG:
            assert work < SLOWER


@pytest.mark.timeout(RUN_SECONDS * 2)
def test_one_large_file(bench: Bench, figures: Figures) -> None:
    """It goes out in pieces: memory is that of a small run."""
    bench.release("v1.0", LARGE.format(mib=1))
    small = measured(bench)
    bench.release("v2.0", LARGE.format(mib=LARGE_MIB))
    load = measured(bench)
    cells = (f"{load.seconds:.1f}", f"{load.cpu:.1f}", "", "", f"{load.peak:.0f}")
    figures.row(f"one file of {LARGE_MIB:,} MiB", _kind(bench), *cells)
    _verified(bench, load.run_id, 1)
    assert load.peak < small.peak + 100


@pytest.mark.timeout(RUN_SECONDS * 2)
def test_many_jobs(bench: Bench, figures: Figures) -> None:
    """Each ends, and is in the manifest; ten times the jobs take no more memory."""
    peaks = []
    for tag, count in (("v1.0", JOBS // 10), ("v2.0", JOBS)):
        bench.release(tag, "".join(ONE_OF_MANY.format(number=number) for number in range(count)))
        load = measured(bench, limits__jobs="4")
        cells = (f"{load.seconds:.1f}", f"{load.cpu:.1f}", "", "", f"{load.peak:.0f}")
        figures.row(f"{count} jobs", _kind(bench), *cells)
        _verified(bench, load.run_id, count)
        peaks.append(load.peak)
    assert peaks[1] < peaks[0] + MORE_MIB
