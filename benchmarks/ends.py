"""The two ends of a run: from the program's start to the first job, and from the last job's exit to the power-off."""

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.loops import loop_figures, stall_target, watching
from benchmarks.measured import measured
from benchmarks.memory import machine_environment
from benchmarks.peers import Endpoint
from benchmarks.results import ROOT, Case, Findings, Sample, Target, in_turn
from tests.parts.docker_engine import DockerEngine
from tests.parts.faultproxy import FaultProxy
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.parts.selenium_image import ensure_image

PLAIN, BROWSER, TAIL = "first job", "first browser job", "tail"
HEAD_LIMIT, TAIL_LIMIT = 0.7, 0.3
FILES = 1_000
SETTLED_SECONDS = 6
"""The job of the tail stays so long after its last file, so that all of them have left, as in a job that does more."""

STAMP = "date +%s.%N > {}"
MAKE = f"""
import os, time
out = os.environ["MAYFLY_OUTPUT_DIR"]
for number in range({FILES}):
    with open(f"{{out}}/{{number}}.bin", "wb") as file:
        file.write(os.urandom(2000 + number * 37 % 58000))
time.sleep({SETTLED_SECONDS})
"""


def ends(rounds: int) -> Findings:
    """Measure them, each in runs of its own, in turn."""
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name, DockerEngine() as engine:
        folder = Path(name)
        with S3Server(folder / "server") as server:
            endpoint = Endpoint(server.url, server, server.make_bucket())
            desks = {
                kind: _Desk(folder / kind.replace(" ", "-"), kind, engine, endpoint)
                for kind in (PLAIN, BROWSER, TAIL)
            }
            for desk in desks.values():
                desk.turn()  # the release is a warm one from here on
            samples = in_turn({kind: desk.turn for kind, desk in desks.items()}, rounds)
        idle = idle_pull()
    case = Case(
        "from the program's start to a job's, from a job's end to the power-off", "S3", samples
    )
    targets = (
        Target("head: to the first job, s", HEAD_LIMIT, "s", case.values(PLAIN, "seconds")),
        Target(
            "tail: to the power-off's request, s", TAIL_LIMIT, "s", case.values(TAIL, "seconds")
        ),
        Target("idle pull, requests", 1, "requests", (idle,)),
        *(stall_target(kind, case.values(kind, "stall")) for kind in (PLAIN, BROWSER, TAIL)),
    )
    notes = (
        (
            "Warm release, S3 server on this machine, the machine's environment without extras; the job's first "
            "command writes the time. The power-off goes to a program in the place of `systemctl` that writes the "
            f"time. The tail's job wrote {FILES} files and ended {SETTLED_SECONDS} s later. The browser is the "
            "Selenium image, in a container."
        ),
    )
    return Findings((case,), targets, {}, notes)


class _Desk:
    """A machine with a release of one job."""

    def __init__(self, folder: Path, kind: str, engine: DockerEngine, endpoint: Endpoint) -> None:
        folder.mkdir()
        self._folder, self._kind, self._engine, self._endpoint = folder, kind, engine, endpoint
        self._mayfly = machine_environment()
        self._stamp, self._off = folder / "stamp", folder / "off"
        self._repo = Repo(folder)
        self._repo.release("v1.0.0", {"jobs.toml": self._jobs(), "make.py": MAKE})
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name in ("systemctl", "shutdown"):
            self._program(name)

    def _jobs(self) -> str:
        first, make = STAMP.format(self._stamp), "python3 make.py"
        script = f"{make}; {first}" if self._kind == TAIL else first
        browser = str(self._kind == BROWSER).lower()
        return f'[[job]]\nname = "one"\nbrowser = {browser}\ncommand = ["sh", "-c", "{script}"]\n'

    def _program(self, name: str) -> None:
        """Stand in for the programs that switch the machine off."""
        path = self._bin / name
        now = STAMP.format(self._off)
        path.write_text(f'#!/bin/sh\ncase "$*" in\n  *poweroff* | *now*) {now} ;;\nesac\n')
        path.chmod(0o755)

    def turn(self) -> Iterable[Sample]:
        """Do a run, and tell how long its end of interest took."""
        settings = {
            "release.repository": str(self._repo.bare),
            "paths.state": str(self._folder / "state"),
            "power.after": "poweroff",
            "browser.port": "0",
        }
        if self._kind == BROWSER:
            settings["browser.image"] = ensure_image(self._engine)
        pairs = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
        store = f"s3://{self._endpoint.bucket}/{self._folder.name}"
        environ = {**self._endpoint.environ, **self._engine.environ, "HOME": str(self._folder)}
        environ["PATH"] = f"{self._bin}:{os.environ['PATH']}"
        began = time.time()
        loop, python = self._folder / "loop", self._mayfly.with_name("python")
        command = [*watching(loop, python), "run", "--json", "--store", store, *pairs]
        whole = measured(self._kind, command, environ, cwd=self._folder)
        stamp, off = float(self._stamp.read_text()), float(self._off.read_text())
        seconds = off - stamp if self._kind == TAIL else stamp - began
        figures = {**whole.figures, "seconds": seconds, **loop_figures(loop)}
        return (Sample(self._kind, figures),)


def idle_pull() -> int:
    """Return how many requests a pull sends when there is nothing new."""
    with _bucket_with_a_run() as (server, bucket, folder), FaultProxy(server) as proxy:
        endpoint = Endpoint(proxy.url, server, bucket)
        mayfly = str(Path(sys.executable).with_name("mayfly"))
        command = [mayfly, "pull", str(folder / "home"), "--store", f"s3://{bucket}/idle"]
        measured("first pull", command, endpoint.environ)
        before = proxy.count()
        measured("idle pull", command, endpoint.environ)
        return proxy.count() - before


@contextmanager
def _bucket_with_a_run() -> Iterator[tuple[S3Server, str, Path]]:
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
        folder = Path(name)
        (folder / "many").mkdir()
        (folder / "many" / "file.bin").write_bytes(b"a result")
        with S3Server(folder / "server") as server:
            bucket = server.make_bucket()
            endpoint = Endpoint(server.url, server, bucket)
            command = [sys.executable, "-m", "benchmarks.handoff", str(folder), bucket, "idle"]
            command.append(str(folder / "report"))
            measured("hand-off", command, endpoint.environ, cwd=ROOT)
            yield server, bucket, folder
