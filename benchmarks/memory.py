"""Peak memory of the agent for a run with many files: does it grow with them, and does it stay below 80 MB?"""

import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

JOBS = """
[[job]]
name = "many"
command = ["python3", "make.py"]
"""
MAKE = """
import os
for number in range({files}):
    folder = f"{{os.environ['MAYFLY_OUTPUT_DIR']}}/{{number % 100}}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{{folder}}/{{number}}.bin", "wb") as file:
        file.write(os.urandom(2000 + number * 37 % 20000))
"""
LOOK_SECONDS = 0.05
RUN_SECONDS = 300.0


@dataclass(frozen=True)
class Peak:
    """Peaks of several runs.

    Attributes:
        files: Files of each run.
        megabytes: Peak resident memory of the agent's process in each run (VmHWM, in units of 2**20 bytes).
        seconds: Wall-clock time of each run, the job's own included.
    """

    files: int
    megabytes: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the peaks."""
        return statistics.median(self.megabytes)


def measure(mayfly: Path, files: int, runs: int, store: str, environ: Mapping[str, str]) -> Peak:
    """Run a release that makes `files` files of 2 to 22 kB, `runs` times, each from an empty state directory."""
    peaks, times = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as folder:
            began = time.monotonic()
            peaks.append(_peak(mayfly, Path(folder), files, store, environ))
            times.append(time.monotonic() - began)
    return Peak(files, tuple(peaks), tuple(times))


def _peak(mayfly: Path, folder: Path, files: int, store: str, environ: Mapping[str, str]) -> float:
    release = folder / "release"
    _release(release, files)
    settings = {
        "release.repository": str(release),
        "paths.state": str(folder / "state"),
        "power.after": "nothing",
    }
    pairs = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    target = store or str(folder / "bucket")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(mayfly), "run", "--json", "--store", target, *pairs],
            env=dict(environ),
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        peak = _watch(process)
    if process.returncode != 0:
        raise RuntimeError((folder / "log").read_text()[-2000:])
    return peak


def _watch(process: "subprocess.Popen[bytes]") -> float:
    peak, until = 0, time.monotonic() + RUN_SECONDS
    while process.poll() is None:
        if time.monotonic() > until:
            process.kill()
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        peak = max(peak, int(found.group(1)) if found else 0)
        time.sleep(LOOK_SECONDS)
    return peak / 1024


def _release(folder: Path, files: int) -> None:
    folder.mkdir()
    (folder / "jobs.toml").write_text(JOBS)
    (folder / "make.py").write_text(MAKE.format(files=files))
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
    for arguments in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        (*identity, "commit", "--quiet", "--message", "bench"),
        ("tag", "v1.0.0"),
    ):
        environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
        subprocess.run(["git", *arguments], cwd=folder, env=environ, check=True, timeout=60)
