"""What many files cost the agent: its peak memory in a whole run, and the CPU time of the hand-off."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

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
    whole, handoffs = Case("whole runs", "memory", runs), Case("hand-offs", "growth", handed)
    peaks = whole.values(_name("s3", MANY), "peak")
    pairs = zip(handoffs.values(str(MANY), "cpu"), handoffs.values(str(FEW), "cpu"), strict=True)
    targets = (
        Target(f"peak memory of the agent, {MANY} files, S3", PEAK_LIMIT, "MB", peaks),
        Target(
            "CPU of the hand-off, 10 x the files", GROWTH_LIMIT, "x", tuple(a / b for a, b in pairs)
        ),
    )
    notes = (
        (
            "Whole runs begin with an empty state directory, in the machine's environment, without the extras. "
            "Peaks are those of a run's largest process; the hand-offs' CPU is the process's own without its start."
        ),
    )
    return Findings((whole, handoffs), targets, {}, notes)


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
            settings = {
                "release.repository": str(repository),
                "paths.state": f"{name}/state",
                "power.after": "nothing",
                # Else a first run, which knows of no jobs yet, would begin a browser, and that is measured too.
                "browser.url": NOWHERE,
            }
            pairs = [
                text for key, value in settings.items() for text in ("--set", f"{key}={value}")
            ]
            command = [str(mayfly), "run", "--json", "--store", store or f"{name}/bucket", *pairs]
            return (measured(who, command, environ),)

    return run


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
        wall, cpu = (float(word) for word in report.read_text().split())
        return (Sample(str(files), {"wall": wall, "cpu": cpu, "peak": whole.figures["peak"]}),)

    return hand_off
