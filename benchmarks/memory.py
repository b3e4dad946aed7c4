"""What many files cost the agent: its peak memory in a whole run, and the CPU time of the hand-off."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.loops import stall_target, watching
from benchmarks.measured import measured
from benchmarks.peers import Endpoint
from benchmarks.results import ROOT, Case, Findings, Sample, Target, in_turn
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.run.bench import NOWHERE

VENV = ROOT / "benchmarks" / ".venv"
FEW, MANY = 1_000, 10_000
PEAK_LIMIT, GROWTH_LIMIT = 80.0, 10.5
JOBS = '[[job]]\nname = "many"\ncommand = ["python3", "make.py"]\n'
MAKE = """
import os
for number in range({files}):
    folder = f"{{os.environ['MAYFLY_OUTPUT_DIR']}}/{{number % 100}}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{{folder}}/{{number}}.bin", "wb") as file:
        file.write(os.urandom(2000 + number * 37 % 20000))
"""
INSTALL_SECONDS = 600.0
VALUES, JOBS_AT_ONCE = int(os.environ.get("MAYFLY_BENCH_SMALL_JOBS", "1000")), 32
"""Jobs of a second each, and how many of them run at once."""
SMALL_JOBS = "1,000 jobs of a second" if VALUES == 1000 else f"{VALUES} jobs of a second"  # noqa: PLR2004
SMALL_JOBS_FILE = """
[[job]]
name = "small"
command = ["sh", "-c", "sleep 1; echo $MAYFLY_MATRIX_V > $MAYFLY_OUTPUT_DIR/v"]
matrix = {{ v = {values} }}
"""


def many_files(rounds: int) -> Findings:
    """Measure whole runs against both kinds of bucket, and hand-offs of few files and many."""
    mayfly = machine_environment()
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
        folder = Path(name)
        with S3Server(folder / "server") as server:
            endpoint = Endpoint(server.url, server, server.make_bucket())
            runs = in_turn(dict(_runs(folder, mayfly, endpoint)), rounds)
            turns = {
                str(count): _hand_off(_files(folder, count), count, endpoint)
                for count in (FEW, MANY)
            }
            handed = in_turn(turns, rounds)
            small = in_turn({SMALL_JOBS: _small_jobs(folder, mayfly, endpoint)}, rounds)
    whole, handoffs = Case("whole runs", "memory", runs), Case("hand-offs", "growth", handed)
    jobs = Case(f"many small jobs, {JOBS_AT_ONCE} at once", "one run, S3", small)
    peaks = whole.values(_name("s3", MANY), "peak")
    pairs = zip(handoffs.values(str(MANY), "cpu"), handoffs.values(str(FEW), "cpu"), strict=True)
    targets = (
        Target(f"peak memory of the agent, {MANY} files, S3", PEAK_LIMIT, "MB", peaks),
        Target(
            "CPU of the hand-off, 10 x the files", GROWTH_LIMIT, "x", tuple(a / b for a, b in pairs)
        ),
        stall_target(SMALL_JOBS, jobs.values(SMALL_JOBS, "stall")),
    )
    notes = (
        (
            "Small jobs: `own` and MB are the agent's process alone; `per job` is its CPU time in milliseconds, with "
            "the run's start. `stall` and `busy`: the longest time, and CPU time, of one turn of the event loop."
        ),
        (
            "Whole runs begin with an empty state directory, in the machine's environment, without the extras. "
            "Peaks are those of a run's largest process; the hand-offs' CPU is the process's own without its start."
        ),
    )
    return Findings((whole, handoffs, jobs), targets, {}, notes)


def machine_environment() -> Path:
    """Make an environment as the machine has it, without extras and development tools; return its `mayfly`."""
    # As the image has it: a first run that compiles would be the slowest and the largest.
    environ = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(VENV), "UV_COMPILE_BYTECODE": "1"}
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "sync", "--frozen", "--no-dev", "--quiet"]
    subprocess.run(command, cwd=ROOT, env=environ, check=True, timeout=INSTALL_SECONDS)
    return VENV / "bin" / "mayfly"


def _name(store: str, files: int) -> str:
    return f"{store}://, {files:,} files"


def _runs(
    folder: Path, mayfly: Path, endpoint: Endpoint
) -> Iterator[tuple[str, Callable[[], Iterable[Sample]]]]:
    for files in (FEW, MANY):
        repo = Repo(folder, f"release-{files}")
        repo.release("v1.0.0", {"jobs.toml": JOBS, "make.py": MAKE.format(files=files)})
        for store in ("file", "s3"):
            environ = {**endpoint.environ, "HOME": str(folder)}
            where = f"s3://{endpoint.bucket}/runs" if store == "s3" else ""
            yield _name(store, files), _run(_name(store, files), mayfly, repo.bare, where, environ)


def _run(
    who: str, mayfly: Path, repository: Path, store: str, environ: Mapping[str, str]
) -> Callable[[], Iterable[Sample]]:
    def run() -> Iterable[Sample]:
        with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
            command = [str(mayfly), "run", "--json", "--store", store or f"{name}/bucket"]
            command += _settings(repository, name)
            return (measured(who, command, environ),)

    return run


def _small_jobs(folder: Path, mayfly: Path, endpoint: Endpoint) -> Callable[[], Iterable[Sample]]:
    repo = Repo(folder, "release-small")
    values = json.dumps([str(number) for number in range(VALUES)])
    repo.release("v1.0.0", {"jobs.toml": SMALL_JOBS_FILE.format(values=values)})
    report = folder / "watched"
    watched = watching(report, mayfly.with_name("python"))

    def run() -> Iterable[Sample]:
        with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
            settings = _settings(repo.bare, name, f"limits.jobs={JOBS_AT_ONCE}")
            where = f"s3://{endpoint.bucket}/small"
            command = [*watched, "run", "--json", "--store", where, *settings]
            environ = {**endpoint.environ, "HOME": str(folder)}
            whole = measured(SMALL_JOBS, command, environ)
        told = json.loads(report.read_text())
        figures = {"wall": whole.figures["wall"], **told, "per job": 1000 * told["own"] / VALUES}
        return (Sample(SMALL_JOBS, figures),)

    return run


def _settings(repository: Path, folder: str, *more: str) -> list[str]:
    """Return the options of a run that has nothing of this machine."""
    pairs = (
        f"release.repository={repository}",
        f"paths.state={folder}/state",
        "power.after=nothing",
        # Else a first run, which knows of no jobs yet, would begin a browser, and that is measured too.
        f"browser.url={NOWHERE}",
        *more,
    )
    return [text for pair in pairs for text in ("--set", pair)]


def _files(folder: Path, count: int) -> Path:
    """Make the files of a hand-off; return the folder that `benchmarks.handoff` is told."""
    source = folder / f"files-{count}"
    source.mkdir()
    environ = {**os.environ, "MAYFLY_OUTPUT_DIR": str(source / "many")}
    command = [sys.executable, "-c", MAKE.format(files=count)]
    subprocess.run(command, env=environ, check=True, timeout=INSTALL_SECONDS)
    return source


def _hand_off(source: Path, files: int, endpoint: Endpoint) -> Callable[[], Iterable[Sample]]:
    def hand_off() -> Iterable[Sample]:
        report = source / "report"
        command = [sys.executable, "-m", "benchmarks.handoff", str(source), endpoint.bucket]
        whole = measured(str(files), [*command, "h", str(report)], endpoint.environ, cwd=ROOT)
        told = json.loads(report.read_text())
        inner = {"wall": told["wall"], "cpu": told["cpu"], "peak": whole.figures["peak"]}
        return (Sample(str(files), inner),)

    return hand_off
