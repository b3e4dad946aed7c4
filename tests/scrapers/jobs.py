"""A job's program, started with the environment an agent gives it and nothing else."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uv

from tests.parts.demo_site import SCRAPERS

JOB_SECONDS = 150.0


def install_environment() -> Path:
    """Install the scrapers' locked environment and return its Python."""
    own = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    command = [uv.find_uv_bin(), "sync", "--frozen", "--quiet", "--project", str(SCRAPERS)]
    subprocess.run([*command, "--python", sys.executable], check=True, env=own, timeout=300)
    return SCRAPERS / ".venv" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Ended:
    """What a job left behind."""

    code: int
    output: Path
    state: Path
    result: dict[str, Any]
    log: str

    @property
    def files(self) -> set[str]:
        """Everything in the output folder, by relative path."""
        return {
            str(path.relative_to(self.output)) for path in self.output.rglob("*") if path.is_file()
        }

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a file of JSON lines."""
        return [json.loads(line) for line in (self.output / name).read_text("utf-8").splitlines()]


class JobProcess:
    """A job that was started in `folder`, where its output, state, downloads, log and result are."""

    def __init__(self, folder: Path, command: Sequence[str], environ: Mapping[str, str]) -> None:
        for name in ("output", "state", "downloads"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._log = (folder / "log").open("wb")
        surroundings = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MAYFLY_OUTPUT_DIR": str(folder / "output"),
            "MAYFLY_STATE_DIR": str(folder / "state"),
            "MAYFLY_DOWNLOADS_DIR": str(folder / "downloads"),
            "MAYFLY_RESULT_FILE": str(folder / "result.json"),
            "MAYFLY_DEADLINE": str(time.time() + JOB_SECONDS),
        }
        set_ones = {key: value for key, value in {**surroundings, **environ}.items() if value}
        self.process = subprocess.Popen(
            command, cwd=SCRAPERS, env=set_ones, stdout=self._log, stderr=subprocess.STDOUT
        )

    def ended(self, seconds: float = JOB_SECONDS) -> Ended:
        """Wait for its end and return what it left; one that outlives `seconds` is killed."""
        try:
            code = self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait(10)
            self._log.close()
        result = self._folder / "result.json"
        return Ended(
            code=code,
            output=self._folder / "output",
            state=self._folder / "state",
            result=json.loads(result.read_text("utf-8")) if result.exists() else {},
            log=(self._folder / "log").read_text("utf-8", errors="replace"),
        )
