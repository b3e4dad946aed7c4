"""Reads a stack with docker compose, and judges it; nothing is started."""

import asyncio
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.base.containers import OUTPUT, Mount, adapted, as_yaml, container_environment
from agent.base.engine import Engine
from agent.base.errors import ContainerError
from agent.config.faults import Fault
from agent.config.jobsfile import Job
from agent.delivery.scan import is_result
from agent.jobs.containers.compose import Compose, compose_environ, require_compose
from agent.jobs.containers.policy import (
    Stack,
    dotenv_faults,
    file_fault,
    mounts_of_release,
    named_files,
    place_in_release,
    stack_faults,
    text_faults,
    volumes_of,
)
from agent.jobs.containers.services import waits_with


@dataclass(frozen=True, slots=True)
class StackFile:
    """A stack that a job names: its compose file in the release, and the override file beside it.

    Attributes:
        job: The job.
        tree: The release's files.
        project: The project's name.
        environ: The environment of the engine's client: also that of variables in the file.
        mounts: What is mounted into the batch service.
        built: Begins the names of images that the stack builds.
    """

    job: Job
    tree: Path
    project: str
    environ: Mapping[str, str]
    mounts: tuple[Mount, ...]
    built: str = "mayfly-built"

    @property
    def file(self) -> str:
        """The compose file, as the job names it."""
        return self.job.compose or ""

    @property
    def compose(self) -> Compose:
        """What reads it: the compose file, and the override file that compose merges over it by default."""
        own = self.tree / self.file
        return Compose(self.project, (own, *_override_of(own)), self.environ)


@dataclass(frozen=True, slots=True)
class Reading:
    """What compose makes of a stack.

    Attributes:
        faults: Why it cannot run; all of them.
        stood_in: Env files that are missing, and whose variables the job has instead.
        mounted: Where the batch service has folders of the release, and which.
        volumes: Where it has volumes that go with the stack.
        waits_with: The program by which it waits and does not end.
        hides_code: The mount at the job's `output` hides its program.
        output: The folder of the release in which the job's output is, beside code; None for a folder of its own.
        document: The stack as compose would run it.
        compose: What runs it; None with faults.
    """

    faults: tuple[Fault, ...]
    stood_in: tuple[str, ...] = ()
    mounted: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    waits_with: str = ""
    hides_code: bool = False
    output: str | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    compose: Compose | None = None


_DEFAULT_NAMES = frozenset({"compose", "docker-compose"})


def _override_of(file: Path) -> tuple[Path, ...]:
    """Return the override file that `docker compose up` reads beside a compose file with a default name."""
    if file.stem not in _DEFAULT_NAMES or file.suffix not in {".yml", ".yaml"}:
        return ()
    named = (file.with_name(f"{file.stem}.override{suffix}") for suffix in (".yml", ".yaml"))
    return tuple(path for path in named if os.path.lexists(path))[:1]


async def read_stack(wanted: StackFile, folder: Path) -> Reading:
    """Judge a stack, and write to a folder of the job's what compose runs.

    What decides which files compose reads is judged before compose reads any: it has the agent's rights, and quotes
    what it does not understand.

    Raises:
        ContainerError: Compose does not accept the stack, or does not answer.
    """
    compose, service, output = wanted.compose, wanted.job.service or "", wanted.job.output or OUTPUT
    stack = Stack(
        wanted.file,
        wanted.project,
        service,
        str(wanted.tree),
        wanted.mounts,
        real=os.path.realpath,
    )
    if faults := await asyncio.to_thread(_before, compose.files, stack):
        return Reading(faults)
    model = await compose.written()
    services = model.get("services") or {}
    missing: tuple[Fault, ...] = ()
    if service not in services:
        remedy = f"its services are {', '.join(sorted(services))}"
        missing = (Fault(wanted.file, "services", f'has no "{service}"', remedy),)
    if not services:
        return Reading(missing)
    files = _Files(stack, (*wanted.job.secrets, *wanted.job.env))
    if text := files.override(services):
        override = folder / "override.yml"
        await asyncio.to_thread(override.write_text, text)
        compose = replace(compose, files=(*compose.files, override))
    document = await compose.resolved()
    batch = document["services"].get(service) or {}
    mounted = mounts_of_release(batch, str(wanted.tree))
    beside = place_in_release(output, mounted)
    if beside is not None and not _has_files(wanted.tree / beside, stack):
        beside = None
    mounts = [each for each in wanted.mounts if beside is None or each.target != output]
    document = adapted(document, service=service, mounts=mounts, built=wanted.built)
    faults = (*missing, *files.faults, *stack_faults(document, stack))
    own = document["services"].get(service) or {}
    return Reading(
        faults,
        stood_in=tuple(files.stood_in),
        mounted=mounted,
        volumes=volumes_of(own),
        waits_with=waits_with(own),
        hides_code=not faults and beside is None and _hides_code(output, batch),
        output=beside,
        document=document,
        compose=None if faults else await asyncio.to_thread(compose.judged, document, folder),
    )


def _has_files(folder: Path, stack: Stack) -> bool:
    """Tell whether the release has files in a folder: then it is code, and results are the new files in it."""
    if not stack.has(str(folder)):
        return False
    names = (name for _, _, names in os.walk(folder) for name in names)
    return folder.is_file() or any(map(is_result, names))


def _hides_code(output: str, service: Mapping[str, Any]) -> bool:
    """Tell whether a mount at `output` hides the image's program, according to its Dockerfile."""
    named = re.findall(r"(?im)^\s*WORKDIR\s+(\S+)", _dockerfile(service.get("build") or {}))
    mounted = (
        each.get("target") for each in service.get("volumes") or () if isinstance(each, dict)
    )
    return named[-1:] == [output] and output not in mounted


def _dockerfile(build: Mapping[str, Any]) -> str:
    text = build.get("dockerfile_inline")
    if text is None and build:
        file = Path(build.get("context", "."), build.get("dockerfile", "Dockerfile"))
        with suppress(OSError):  # the build will say so
            text = file.read_text(errors="replace")
    return text or ""


def origins(document: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the images that a judged stack pulls, and the Dockerfiles, with arguments, of those that it builds."""
    images, builds = [], []
    for service in (document.get("services") or {}).values():
        build = service.get("build")
        if build is None:
            images.append(str(service.get("image", "")))
            continue
        arguments = build.get("args") or {}
        builds.append("\n".join((_dockerfile(build), *map(str, arguments.values()))))
    return tuple(images), tuple(builds)


def _before(files: tuple[Path, ...], stack: Stack) -> tuple[Fault, ...]:
    """Judge the files that compose always reads: the compose file, its override, and `.env` beside it."""
    variables = files[0].with_name(".env")
    named = [*files, *([variables] if os.path.lexists(variables) else [])]
    links = tuple(
        Fault(
            stack.shown(str(path)),
            "",
            "is not a file of the release, or a link",
            "commit the file itself",
        )
        for path in named
        if not stack.has(str(path))
    )
    if links:
        return links
    faults = tuple(
        fault
        for file in files
        for fault in text_faults(file.read_bytes(), replace(stack, file=stack.shown(str(file))))
    )
    if variables in named and variables.is_file():
        text = variables.read_text(errors="replace")
        faults += dotenv_faults(text, stack.shown(str(variables)))
    return faults


@dataclass(slots=True)
class _Files:
    """Sorts the files from which services take variables and labels."""

    stack: Stack
    stands_in: tuple[str, ...]
    faults: list[Fault] = field(default_factory=list)
    stood_in: list[str] = field(default_factory=list)
    without: set[str] = field(default_factory=set)

    def override(self, services: Mapping[str, Any]) -> str:
        """Return a file by which compose passes over the files that it must not or cannot read; empty without any.

        In place of a missing one it names the job's variables, without values; what the service sets itself stays.
        """
        lines = []
        for name, own in sorted(services.items()):
            changes = []
            for key, files in named_files(own):
                kept = [file for file in files if self._is_readable(name, key, file)]
                if kept != files:
                    # An empty list alone would change nothing.
                    changes.append(
                        f"{key}: {f'!override {as_yaml(kept)}' if kept else '!reset []'}"
                    )
            if name in self.without - {self.stack.service}:
                known = {str(item).partition("=")[0] for item in own.get("environment") or ()}
                names = [each for each in self.stands_in if each not in known]
                changes.append(f"environment: {as_yaml(names)}")
            lines += [f"  {as_yaml(name)}: {{{', '.join(changes)}}}"] if changes else []
        return "\n".join(("services:", *lines)) if lines else ""

    def _is_readable(self, service: str, key: str, file: Any) -> bool:
        own = file if isinstance(file, dict) else {"path": file}
        path = str(own["path"])
        fault, shown = file_fault(service, key, path, self.stack), self.stack.shown(path)
        if fault is None and Path(path).exists():
            return True
        if fault is None and own.get("required", True):
            if self.stands_in:
                self.stood_in.append(shown)
                self.without.add(service)
            else:
                fault = self.stack.fault(
                    f"services.{service}.{key}",
                    shown,
                    "is not in the release",
                    "put what it sets into the machine's secrets, and their names into the job's secrets = [...]",
                )
        self.faults += [fault] if fault else []
        return False


@dataclass(frozen=True, slots=True)
class Examined:
    """The faults of a release's stacks, and notes for people."""

    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


async def examine_stacks(jobs: Iterable[Job], tree: Path, environ: Mapping[str, str]) -> Examined:
    """Judge the stacks of a release's jobs as the machine will.

    Raises:
        ContainerError: There is no compose.
    """
    stacks = [job for job in jobs if job.compose is not None]
    engine = Engine(environ)
    if stacks:
        await require_compose(engine.environ)
    found = [await _examine(job, tree.resolve(), engine) for job in stacks]
    return Examined(
        tuple(dict.fromkeys(fault for each in found for fault in each.faults)),
        tuple(note for each in found for note in each.notes),
    )


async def _examine(job: Job, tree: Path, engine: Engine) -> Examined:
    with TemporaryDirectory() as name:
        stack = StackFile(
            job,
            tree,
            project=f"mayfly-{job.name}",
            environ=compose_environ(engine, container_environment(job.env, []).environ),
            mounts=(Mount(name, job.output or OUTPUT),),
        )
        try:
            reading = await read_stack(stack, Path(name))
        except ContainerError as error:
            return Examined((Fault(stack.file, "", str(error), error.remedy),))
    return Examined(reading.faults, tuple(_notes(job, reading)))


def _notes(job: Job, reading: Reading) -> Iterator[str]:
    if reading.hides_code:
        yield (
            f'job {job.name}: output = "{job.output}" hides what the image of {job.service} has there, and its program'
            f" works there; have it write to a folder of its own, such as {job.output}/out"
        )
    if reading.waits_with and job.command is None:
        yield (
            f"job {job.name}: the command of {job.service} waits and does not end ({reading.waits_with});"
            " command = [...] in the job says what does the work"
        )
    places = (*reading.mounted, *reading.volumes)
    if job.output is None and places:
        yield (
            f"job {job.name}: it has no output, and what it writes to {', '.join(places)} goes with the stack;"
            f' output = "{places[0]}" hands it over'
        )


def summary(faults: Iterable[Fault]) -> str:
    """Return all faults as one sentence."""
    return "; ".join(dict.fromkeys(map(str, faults)))
