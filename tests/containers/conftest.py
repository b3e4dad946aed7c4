"""Fixtures of container jobs."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.parts.busybox_image import ensure_busybox
from tests.parts.compose import with_plugin
from tests.parts.docker_engine import DockerEngine
from tests.run.bench import Bench, Ran
from tests.run.conftest import bench, bucket

__all__ = ["bench", "bucket"]


@pytest.fixture(scope="session")
def busybox(docker_engine: DockerEngine) -> str:
    """The name of a small image with a shell."""
    return ensure_busybox(docker_engine)


@pytest.fixture
def yard(bench: Bench, docker_engine: DockerEngine) -> Iterator[Bench]:
    """A computer with a container engine, and no browser unless a test says so."""
    bench.environ |= docker_engine.environ
    yield bench
    assert remains(docker_engine, bench) == []


@pytest.fixture
def compose_yard(yard: Bench) -> Bench:
    """The same with docker compose."""
    yard.environ |= with_plugin(yard.environ)
    return yard


@pytest.fixture
def own_image(docker_engine: DockerEngine) -> Iterator[str]:
    """A name for an image of the test's own, which is removed after it; others may use the engine as well."""
    name = f"mayfly.test/own-{uuid.uuid4().hex[:12]}:1"
    yield name
    docker_engine.docker("image", "rm", "--force", name)


def path_without(folder: Path, *names: str) -> str:
    """A PATH on which there are all programs of the usual one but these."""
    folder.mkdir()
    for usual in os.get_exec_path():
        for program in Path(usual).iterdir() if Path(usual).is_dir() else ():
            if program.name not in names and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    return str(folder)


def said(ran: Ran, job: str) -> list[str]:
    """Return what a job of a run printed."""
    return [event["line"] for event in ran.events("job.output") if event["job"] == job]


def remains(engine: DockerEngine, bench: Bench) -> list[str]:
    """What is left in the engine of this computer's runs and their stacks; others may use the engine as well."""
    runs = Bucket.in_folder(bench.folder / "bucket").runs
    ours = tuple(f"mayfly-{run.lower()}-" for run in runs)
    found = []
    for kind in ("container", "network", "volume"):
        listing = ["container", "ls", "--all"] if kind == "container" else [kind, "ls"]
        name = "{{.Names}}" if kind == "container" else "{{.Name}}"
        listed = engine.docker(*listing, "--format", name)
        found += [line for line in listed.stdout.split() if line.startswith(ours)]
    return found
