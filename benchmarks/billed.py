"""Seconds that a machine is up for five mixed jobs: Mayfly, what people write today, and nothing but the jobs."""

import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.loops import loop_figures, stall_target, watching
from benchmarks.measured import measured
from benchmarks.peers import Endpoint, peers
from benchmarks.results import Case, Findings, Sample, in_turn, ratio
from tests.parts.compose import with_plugin
from tests.parts.docker_engine import DockerEngine
from tests.parts.ports import free_port
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.parts.selenium_image import ensure_image

RECIPE = Path(__file__).parent / "recipe"
AGENT, TODAY, COMPOSE, IDEAL = "mayfly", "today's recipe", "with docker compose", "ideal"
PARALLEL = 5
READY_SECONDS = 120.0


def billed(rounds: int) -> Findings:
    """Measure all four in turn."""
    found = peers()
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name, DockerEngine() as engine:
        folder = Path(name)
        with S3Server(folder / "server") as server:
            endpoint = Endpoint(server.url, server, server.make_bucket())
            surroundings = _Surroundings(folder, engine, endpoint, found.program("aws"))
            samples = surroundings.measure(rounds)
    case = Case("five jobs, 1,000 files and one of 20 MB", "loopback", samples)
    targets = (
        ratio("billed seconds against today's recipe", case, "wall", 0.5, who=AGENT, against=TODAY),
        ratio("billed seconds against the ideal", case, "wall", 1.15, who=AGENT, against=IDEAL),
        stall_target("five mixed jobs", case.values(AGENT, "stall")),
    )
    notes = (
        (
            "From the program's start to the point at which the power would go off, with a warm release and the image "
            "in the engine. Alone the jobs take about 18 s and 10 s (browser), 5 s (a core), 25 s and 15 s (they wait)."
        ),
        (
            f"Mayfly has `limits.jobs = {PARALLEL}`, since most of these jobs wait; the recipes run one job after the "
            "other, as they are written today ([`benchmarks/recipe/`](../benchmarks/recipe))."
        ),
        "The ideal runs all five at once, with the browser up, and uploads nothing.",
    )
    return Findings((case,), targets, {**found.versions(), "docker": surroundings.version}, notes)


class _Surroundings:
    """What all four need: the image, the release, the bucket."""

    def __init__(self, folder: Path, engine: DockerEngine, endpoint: Endpoint, aws: str) -> None:
        self._folder, self._engine, self._endpoint, self._aws = folder, engine, endpoint, aws
        self._image = ensure_image(engine)
        self._bin = power_stand_ins(folder / "bin")
        self._repo = Repo(folder)
        texts = {name: (RECIPE / name).read_text() for name in ("jobs.toml", "work.py")}
        self._repo.release("v1.0.0", texts)
        self.version = engine.docker("version", "--format", "{{.Server.Version}}").stdout.strip()

    def measure(self, rounds: int) -> tuple[Sample, ...]:
        """Measure all of them, after one run of Mayfly that makes its release a warm one."""
        self._mayfly()
        turns = {AGENT: self._mayfly, TODAY: self._today, COMPOSE: self._compose}
        return in_turn({**turns, IDEAL: self._ideal}, rounds)

    def _mayfly(self) -> Iterable[Sample]:
        settings = {
            "release.repository": str(self._repo.bare),
            "paths.state": str(self._folder / "state"),
            "power.after": "poweroff",
            "browser.image": self._image,
            "browser.port": "0",
            "limits.jobs": str(PARALLEL),
        }
        pairs = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
        store, loop = f"s3://{self._endpoint.bucket}/mayfly", self._folder / "loop"
        command = [*watching(loop), "run", "--json", "--store", store, *pairs]
        environ = self._environ()
        environ["PATH"] = f"{self._bin}:{environ['PATH']}"
        whole = measured(AGENT, command, environ, cwd=self._folder)
        return (Sample(AGENT, {**whole.figures, **loop_figures(loop)}),)

    def _today(self) -> Iterable[Sample]:
        return self._recipe(TODAY)

    def _compose(self) -> Iterable[Sample]:
        return self._recipe(COMPOSE, "compose")

    def _recipe(self, who: str, *arguments: str) -> Iterable[Sample]:
        with self._container() as settings, self._desk() as desk:
            command = [str(RECIPE / "today.sh"), *arguments]
            return (measured(who, command, self._environ() | settings, cwd=desk),)

    def _ideal(self) -> Iterable[Sample]:
        with self._container() as settings, self._desk() as desk:
            port = settings["PORT"]
            options = ("--detach", "--name", settings["CONTAINER"], "--shm-size", "1g")
            sessions = (
                "--env",
                "SE_NODE_MAX_SESSIONS=2",
                "--env",
                "SE_NODE_OVERRIDE_MAX_SESSIONS=true",
            )
            publish = ("--publish", f"127.0.0.1:{port}:4444")
            self._engine.docker("run", *options, *sessions, *publish, self._image)
            url = f"http://localhost:{port}/wd/hub"
            selenium_answers(f"{url}/status")
            settings |= {"MAYFLY_WEBDRIVER_URL": url, "SCRAPERS": str(RECIPE)}
            command = [str(RECIPE / "ideal.sh")]
            return (measured(IDEAL, command, self._environ() | settings, cwd=desk),)

    @contextmanager
    def _container(self) -> Iterator[dict[str, str]]:
        """Yield what a recipe has in its environment; remove its container afterwards, as a power-off would."""
        name = f"mayfly-bench-{uuid.uuid4().hex[:8]}"
        try:
            yield {
                "CONTAINER": name,
                "PORT": str(free_port()),
                "IMAGE": self._image,
                "REPOSITORY": self._repo.bare.as_uri(),
                "AWS": self._aws,
                "ENDPOINT": self._endpoint.url,
                "TARGET": f"s3://{self._endpoint.bucket}/{name}",
                "COMPOSE_FILE": str(RECIPE / "compose.yaml"),
                "COMPOSE_PROJECT_NAME": name,
            }
        finally:
            self._engine.docker("rm", "--force", name)
            self._engine.docker("network", "rm", f"{name}_default")

    @contextmanager
    def _desk(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="desk-", dir=self._folder) as desk:
            yield Path(desk)

    def _environ(self) -> dict[str, str]:
        plain = {**self._endpoint.environ, **self._engine.environ}
        # Its own folder first: a version manager's `python3` is a script that takes half a second for each job.
        path = f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}"
        return {**with_plugin(plain), "HOME": str(self._folder), "PATH": path}


def power_stand_ins(folder: Path) -> Path:
    """Make programs that stand in for those which switch the machine off, and only end."""
    folder.mkdir()
    for name in ("systemctl", "shutdown"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def selenium_answers(url: str) -> None:
    """Wait until a Selenium server is ready.

    Raises:
        TimeoutError: It was not, in time.
    """
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 -- our own container
                if b'"ready": true' in answer.read():
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise TimeoutError(url)
