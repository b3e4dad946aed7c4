"""A machine that AWS lends: it has what its image has, and nothing of yesterday.

Each turn of Mayfly begins with the state directory as `mayfly prepare` left it in an image with v1.0; each turn of the
recipe with a disk that was kept, on which yesterday's run has v1.0. Then there is a newer release, or none.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import requests

from benchmarks.billed import PARALLEL, RECIPE, power_stand_ins, selenium_answers
from benchmarks.loops import loop_figures, stall_target, watching
from benchmarks.measured import measured
from benchmarks.memory import machine_environment
from benchmarks.packages import Index
from benchmarks.peers import Endpoint, peers
from benchmarks.results import Case, Findings, Sample, Target, in_turn, ratio
from tests.parts.docker_engine import DockerEngine
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.parts.selenium_image import ensure_image

AGENT, TODAY, IDEAL = "mayfly", "today's recipe, disk kept", "ideal"
BAKED, NEW = "v1.0.0", "v1.5.0"
JOBS = ("shop", "timeline", "digest", "api", "poll")
IN_BROWSER = JOBS[:2]
AGAINST_RECIPE, AGAINST_IDEAL = 0.4, 1.25
FIRST, FIRST_BROWSER, LAST_COMMIT = "to the first job", "to the first browser job", "to the commit"
REGISTRY_SECONDS, IMAGE_SECONDS = 20.0, 600.0

OLD_PACKAGES = tuple(f"old{number:02d}" for number in range(10))
NEW_PACKAGES = tuple(f"new{number:02d}" for number in range(40))


@dataclass(frozen=True)
class Newest:
    """A release that is the newest one.

    Attributes:
        name: What is new in it.
        tag: Its tag.
        packages: What its lock has.
        browser: Whether it pins another browser image than the one that is here.
    """

    name: str
    tag: str = NEW
    packages: tuple[str, ...] = OLD_PACKAGES
    browser: bool = False


ALL = (
    Newest("v1.0, as in the image", BAKED),
    Newest("v1.5 with the same lock"),
    Newest("v1.5 with one new package", packages=(*OLD_PACKAGES, NEW_PACKAGES[0])),
    Newest("v1.5 with 40 new packages", packages=NEW_PACKAGES),
    Newest(
        "v1.5 with 40 new packages and another browser image", packages=NEW_PACKAGES, browser=True
    ),
)


def cold(rounds: int) -> Findings:
    """Measure all, side by side; `MAYFLY_BENCH_COLD=0,3` measures some cases, by their places."""
    chosen = os.environ.get("MAYFLY_BENCH_COLD", "")
    newest = [ALL[int(place)] for place in chosen.split(",")] if chosen else list(ALL)
    found = peers()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-bench-")))
        engine = stack.enter_context(DockerEngine())
        server = stack.enter_context(S3Server(folder / "server"))
        index = stack.enter_context(Index((*OLD_PACKAGES, *NEW_PACKAGES)))
        image = ensure_image(engine)
        other = ""
        if any(one.browser for one in newest):
            other = stack.enter_context(_another_image(engine, image, folder / "registry"))
        endpoint = Endpoint(server.url, server, server.make_bucket())
        parts = _Parts(engine, index, image, other)
        around = _Around(folder, parts, endpoint, found.program("aws"))
        turns: dict[str, Callable[[], Iterable[Sample]]] = {IDEAL: around.ideal}
        for one in newest:
            turns[f"{AGENT}|{one.name}"] = partial(around.mayfly, one)
            turns[f"{TODAY}|{one.name}"] = partial(around.recipe, one)
        samples = in_turn(turns, rounds)
        version = engine.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
    cases = tuple(_case(one, samples) for one in newest)
    stalls = zip(*(case.values(AGENT, "stall") for case in cases), strict=True)
    targets = (
        *(target for case in cases for target in _targets(case)),
        stall_target("cold, all cases", map(max, stalls)),
    )
    return Findings(cases, targets, {**found.versions(), "docker": version}, _notes())


def _case(newest: Newest, samples: Iterable[Sample]) -> Case:
    """Return one case; all have the ideal's turns in common, to which it makes no difference."""
    own = []
    for sample in samples:
        who, _, name = sample.who.partition("|")
        if name in ("", newest.name):
            own.append(Sample(who, sample.figures))
    return Case(newest.name, "a process, all servers on this machine", tuple(own))


def _targets(case: Case) -> Iterator[Target]:
    what = f"cold, {case.name}: billed seconds against"
    if "browser image" not in case.name:
        yield ratio(f"{what} the recipe", case, "wall", AGAINST_RECIPE, who=AGENT, against=TODAY)
        yield ratio(f"{what} the ideal", case, "wall", AGAINST_IDEAL, who=AGENT, against=IDEAL)


def _notes() -> tuple[str, ...]:
    return (
        (
            "From the program's start to the point at which the power would go off; booting comes before it, and is "
            "measured in the virtual machine. The five jobs are those of the part above; each imports what its release "
            "locks before it begins."
        ),
        (
            f"`{AGENT}` begins with what an image has in which v1.0 was baked: release, environment, cache of "
            f"packages, browser image, and no earlier run. `{TODAY}` ([`cold.sh`](../benchmarks/recipe/cold.sh)) has "
            "yesterday's clone, environment, cache and browser image. The disk's pages are in memory for both: a new "
            "machine of EC2 reads its disk from a snapshot, more slowly."
        ),
        (
            f"The index's packages have {len(OLD_PACKAGES)} to {len(NEW_PACKAGES)} wheels of 26 modules and 0.3 MB; "
            "index, registry, git and bucket are on this machine, and share its cores."
        ),
        (
            "Physical: the longest job alone takes 25.3 s. A browser image that is not here has to be fetched and "
            "unpacked by the engine before the first browser job."
        ),
    )


@dataclass(frozen=True)
class _Parts:
    """What releases are made of: packages, and two images of a browser, the other one only in a registry."""

    engine: DockerEngine
    index: Index
    image: str
    other: str


class _Around:
    """What all turns need: releases, image, state as it was baked, disk as it was kept."""

    def __init__(self, folder: Path, parts: _Parts, endpoint: Endpoint, aws: str) -> None:
        self._folder, self._endpoint, self._aws = folder, endpoint, aws
        self._engine, self._image, self._other = parts.engine, parts.image, parts.other
        self._bin, self._stamps = power_stand_ins(folder / "bin"), folder / "stamps"
        self._stamps.mkdir()
        self._uv = str(Path(sys.executable).with_name("uv"))
        self._agent = str(machine_environment())
        self._locks = {
            packages: parts.index.locked(folder / f"lock-{number}", packages)
            for number, packages in enumerate(dict.fromkeys(one.packages for one in ALL))
        }
        self._repo = Repo(folder)
        self._repo.release(BAKED, self._files(ALL[0]))
        self._bake()
        self._keep()

    def _files(self, newest: Newest) -> dict[str, str]:
        """Return a release: its jobs, what they run, its lock."""
        jobs = (
            (RECIPE / "jobs.toml")
            .read_text()
            .replace('"python3", "work.py"', '"python", "main.py"')
        )
        jobs = jobs.replace("[[job]]", f'[[job]]\nenv = {{ STAMPS = "{self._stamps}" }}')
        pinned = f'[browser]\nimage = "{self._other}"\n\n' if newest.browser else ""
        own = {name: (RECIPE / name).read_text() for name in ("main.py", "work.py")}
        return {"jobs.toml": pinned + jobs, **own, **self._locks[newest.packages]}

    def _publish(self, newest: Newest) -> None:
        """Make the repository what it would be: the baked release, and perhaps one more."""
        repo = self._repo
        repo.git("reset", "--quiet", "--hard", BAKED)
        for tag in repo.git("tag", "--list", NEW).split():
            repo.git("tag", "--delete", tag)
        if newest.tag == NEW:
            repo.release(NEW, self._files(newest))
        else:
            repo.push()
        if self._other:
            self._engine.docker("image", "rm", "--force", self._other)

    def _bake(self) -> None:
        command = [self._agent, "prepare", *self._settings()]
        measured("prepare", command, self._environ(), cwd=self._folder)
        (self._folder / "state").rename(self._folder / "baked")

    def _keep(self) -> None:
        """Do what yesterday's run of the recipe left on its disk."""
        kept = self._folder / "kept"
        clone = 'git clone --quiet --depth 1 --branch "$TAG" "$REPOSITORY" scrapers'
        script = f'{clone} && cd scrapers && "$UV" sync --quiet --frozen'
        kept.mkdir()
        environ = {**self._environ(), **self._recipes(ALL[0], kept)}
        measured("kept disk", ["sh", "-c", script], environ, cwd=kept)

    def mayfly(self, newest: Newest) -> Iterable[Sample]:
        """Run the agent as on a machine that was just launched."""
        self._publish(newest)
        state, log = self._folder / "state", self._folder / "log"
        shutil.rmtree(state, ignore_errors=True)
        # Hard links would let a turn change what the next one begins with.
        shutil.copytree(self._folder / "baked", state, symlinks=True)
        store = f"s3://{self._endpoint.bucket}/{time.monotonic_ns()}"
        loop, python = self._folder / "loop", Path(self._agent).with_name("python")
        run = [*watching(loop, python), "run", "--log", "json", "--json", "--store", store]
        run += self._settings()
        command = ["sh", "-c", 'log=$1; shift; exec "$@" 2>"$log"', "sh", str(log), *run]
        sample, began = self._turn(f"{AGENT}|{newest.name}", command, self._environ(), self._folder)
        committed = max(_committed(log))
        watched = Sample(sample.who, {**sample.figures, **loop_figures(loop)})
        return (self._with_stamps(watched, began, committed),)

    def recipe(self, newest: Newest) -> Iterable[Sample]:
        """Run the shell on its kept disk."""
        self._publish(newest)
        with self._desk() as desk, self._container(newest, desk) as environ:
            shutil.copytree(self._folder / "kept", desk, symlinks=True, dirs_exist_ok=True)
            command = [str(RECIPE / "cold.sh")]
            sample, began = self._turn(f"{TODAY}|{newest.name}", command, environ, desk)
        committed = float((self._stamps / "commit").read_text())
        return (self._with_stamps(sample, began, committed),)

    def ideal(self) -> Iterable[Sample]:
        """Run nothing but the jobs, all at once."""
        with self._desk() as desk, self._container(ALL[0], desk) as environ:
            sessions = ("SE_NODE_MAX_SESSIONS=2", "SE_NODE_OVERRIDE_MAX_SESSIONS=true")
            self._engine.docker(
                *("run", "--detach", "--name", environ["CONTAINER"], "--shm-size", "1g"),
                *(part for one in sessions for part in ("--env", one)),
                *("--publish", f"{LOOPBACK}:{environ['PORT']}:4444", self._image),
            )
            url = f"http://localhost:{environ['PORT']}/wd/hub"
            selenium_answers(f"{url}/status")
            environ |= {"MAYFLY_WEBDRIVER_URL": url, "SCRAPERS": str(RECIPE)}
            return (measured(IDEAL, [str(RECIPE / "ideal.sh")], environ, cwd=desk),)

    def _turn(
        self, who: str, command: list[str], environ: Mapping[str, str], cwd: Path
    ) -> tuple[Sample, float]:
        for stamp in self._stamps.iterdir():
            stamp.unlink()
        began = time.time()
        return measured(who, command, environ, cwd=cwd), began

    def _with_stamps(self, sample: Sample, began: float, committed: float) -> Sample:
        jobs = {name: float((self._stamps / name).read_text()) - began for name in JOBS}
        reached = {
            FIRST: min(jobs.values()),
            FIRST_BROWSER: min(jobs[name] for name in IN_BROWSER),
            LAST_COMMIT: committed - began,
        }
        return Sample(sample.who, {**sample.figures, **reached})

    def _settings(self) -> list[str]:
        settings = {
            "release.repository": self._repo.bare.as_uri(),
            "release.trust": "none",
            "paths.state": str(self._folder / "state"),
            "paths.cache": str(self._folder / "state" / "cache"),
            "power.after": "poweroff",
            "browser.image": self._image,
            "browser.port": "0",
            "limits.jobs": str(PARALLEL),
        }
        return [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]

    def _recipes(self, newest: Newest, desk: Path) -> dict[str, str]:
        """Return what a recipe has in its environment."""
        name = f"mayfly-bench-{time.monotonic_ns()}"
        return {
            "CONTAINER": name,
            "PORT": str(free_port()),
            "IMAGE": self._other if newest.browser else self._image,
            "REPOSITORY": self._repo.bare.as_uri(),
            "TAG": newest.tag,
            "UV": self._uv,
            "UV_CACHE_DIR": str(desk / "cache"),
            "UV_COMPILE_BYTECODE": "1",
            "STAMPS": str(self._stamps),
            "AWS": self._aws,
            "ENDPOINT": self._endpoint.url,
            "TARGET": f"s3://{self._endpoint.bucket}/{name}",
        }

    @contextmanager
    def _container(self, newest: Newest, desk: Path) -> Iterator[dict[str, str]]:
        """Yield a recipe's environment; remove its container afterwards, as a power-off would."""
        environ = {**self._environ(), **self._recipes(newest, desk)}
        try:
            yield environ
        finally:
            self._engine.docker("rm", "--force", environ["CONTAINER"])

    @contextmanager
    def _desk(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="desk-", dir=self._folder) as desk:
            yield Path(desk)

    def _environ(self) -> dict[str, str]:
        path = f"{self._bin}:{Path(sys.executable).resolve().parent}:{os.environ['PATH']}"
        around = {**self._endpoint.environ, **self._engine.environ}
        return {**around, "HOME": str(self._folder), "PATH": path}


def _committed(log: Path) -> Iterator[float]:
    """Yield when the log says that something was committed."""
    for line in log.read_text().splitlines():
        entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if entry.get("event") in ("jobs.committed", "run.closed"):
            yield datetime.fromisoformat(entry["timestamp"]).timestamp()


@contextmanager
def _another_image(engine: DockerEngine, image: str, folder: Path) -> Iterator[str]:
    """Yield the name of an image in a registry of this machine, of which the engine has no layer."""
    folder.mkdir()
    host = f"{LOOPBACK}:{free_port()}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    command = [program("docker-registry"), "serve", str(folder / "config.yml")]
    registry, name = Program(command, log=folder / "registry.log"), f"{host}/selenium:2"
    registry.start(lambda: _answers(f"http://{host}/v2/"), seconds=REGISTRY_SECONDS)
    try:
        _flatten(engine, image, name, folder / "root.tar")
        _done(engine, "push", "--quiet", name)
        engine.docker("image", "rm", "--force", name)
        yield name
    finally:
        engine.docker("image", "rm", "--force", name)
        registry.stop()


def _flatten(engine: DockerEngine, image: str, name: str, archive: Path) -> None:
    """Make the same image with one layer of its own."""
    config = json.loads(_done(engine, "image", "inspect", image))[0]["Config"]
    container = _done(engine, "create", image).strip()
    try:
        _done(engine, "export", "--output", str(archive), container)
    finally:
        engine.docker("rm", container)
    changes = [f"ENV {entry}" for entry in config["Env"]]
    changes += [f"{word} {json.dumps(config[key])}" for word, key in _WORDS if config.get(key)]
    changes += [f"USER {config['User']}"] if config.get("User") else []
    options = [part for change in changes for part in ("--change", change)]
    _done(engine, "import", *options, str(archive), name)
    archive.unlink()


_WORDS = (("ENTRYPOINT", "Entrypoint"), ("CMD", "Cmd"))


def _done(engine: DockerEngine, *arguments: str) -> str:
    done = engine.docker(*arguments, seconds=IMAGE_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"docker {arguments[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False
