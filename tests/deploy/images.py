"""The images for home and for shards, built from their Dockerfiles by a real engine that reaches no registry.

The two images that a Dockerfile starts from are stand-ins, imported from this machine: a Debian root with Python in
place of `python`, and the locked uv in place of its image. The root brings a warm cache of the locked packages, so that
the build's own `uv sync --frozen` needs no network; and it has the Debian packages that the Dockerfile installs, so
that its `apt-get install` has nothing to do.
"""

import hashlib
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.parts.cache import cache_folder, one_at_a_time
from tests.parts.command import output_of
from tests.parts.docker_engine import DockerEngine
from tests.parts.missing import program

REPOSITORY = Path(__file__).parents[2]
# A host name that can never exist (RFC 6761), so that nobody takes these for the real images.
PLACE = "mayfly.test"
PYTHON = "3.11"
"""Debian bookworm's; packages are cached for it."""
SLIM = "python3,ca-certificates,tzdata"
"""What the real `python:...-slim` has too."""
ROOT_SECONDS, FETCH_SECONDS, IMPORT_SECONDS = 600, 300, 120


@dataclass(frozen=True)
class Recipe:
    """An image of this repository.

    Attributes:
        name: Its folder in deploy/.
        base: The repository of the stand-in for `python`.
        included: Debian packages of that stand-in.
        extras: Extras of the project that it installs.
    """

    name: str
    base: str
    included: str
    extras: tuple[str, ...] = ()

    @property
    def image(self) -> str:
        """The name of the image: another checkout's is another one, and several may be tested at once."""
        return f"{PLACE}/mayfly-{self.name}:{_key(str(REPOSITORY).encode())}"


HOME = Recipe("home", f"{PLACE}/python", SLIM, ("home",))
FLEET = Recipe("fleet", f"{PLACE}/python-fleet", f"{SLIM},git,openssh-client")


def build_image(recipe: Recipe, engine: DockerEngine, scratch: Path) -> str:
    """Build an image and return its name.

    Raises:
        CommandError: A step failed.
        MissingPartError: A program that a step needs is not installed.
    """
    with one_at_a_time("home-image"):
        base, uv = _base(recipe, engine, scratch), _uv(engine, scratch)
        arguments = ["--build-arg", f"BASE={base}", "--build-arg", f"UV={uv}", "--network", "none"]
        dockerfile = REPOSITORY / "deploy" / recipe.name / "Dockerfile"
        engine.build(recipe.image, REPOSITORY, "--file", str(dockerfile), *arguments)
    return recipe.image


def _base(recipe: Recipe, engine: DockerEngine, scratch: Path) -> str:
    included = recipe.included.encode()
    name = f"{recipe.base}:{_key((REPOSITORY / 'uv.lock').read_bytes(), PYTHON.encode(), included)}"
    if engine.has(name):
        return name
    root = cache_folder() / f"home-root-{_key(included)}.tar"
    if not root.exists():
        partial = root.with_suffix(".part")
        _run(
            program("mmdebstrap"),
            *("--variant=minbase", f"--include={recipe.included}"),
            '--aptopt=Acquire::Retries "3"',
            *("--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*"),
            *("--format=tar", "bookworm", str(partial)),
            seconds=ROOT_SECONDS,
        )
        partial.rename(root)
    whole = scratch / "base.tar"
    shutil.copyfile(root, whole)
    with tarfile.open(whole, "a") as archive:
        archive.add(_warm_cache(recipe, scratch), "var/cache/uv")
    changes = ["--change", "ENV UV_CACHE_DIR=/var/cache/uv UV_OFFLINE=1"]
    older = engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", recipe.base)
    engine.do("import", *changes, str(whole), name, seconds=IMPORT_SECONDS)
    whole.unlink()
    # Each has 300 MB, and nobody asks for one of an older lock file again; one that is in use stays.
    for image in older.stdout.split():
        engine.docker("image", "rm", image)
    return name


def _warm_cache(recipe: Recipe, scratch: Path) -> Path:
    """Let uv fetch what is locked for an image, and what builds the project, as any of its clients would."""
    cache, locked = scratch / "uv-cache", scratch / "requirements.txt"
    uv = program("uv")
    extras = [word for extra in recipe.extras for word in ("--extra", extra)]
    export = ["export", "--frozen", "--no-dev", *extras, "--no-emit-project"]
    _run(uv, *export, "--output-file", str(locked), seconds=60)
    for wanted in (["--requirements", str(locked), "--require-hashes"], ["hatchling"]):
        _run(
            uv,
            *("pip", "install", "--target", str(scratch / "unused"), "--python-version", PYTHON),
            *("--only-binary", ":all:", "--cache-dir", str(cache), *wanted),
            seconds=FETCH_SECONDS,
        )
    shutil.rmtree(scratch / "unused")
    return cache


def _uv(engine: DockerEngine, scratch: Path) -> str:
    """Return an image that holds uv at its root, as uv's own image does."""
    binary = Path(program("uv"))
    key = _key(binary.read_bytes())
    name = f"{PLACE}/uv:{key}"
    if not engine.has(name):
        archive = scratch / "uv.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(binary, "uv")
        engine.do("import", str(archive), name, seconds=IMPORT_SECONDS)
    return name


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _run(*command: str, seconds: float) -> None:
    output_of(command, at=REPOSITORY, environ={**os.environ, "LC_ALL": "C.UTF-8"}, seconds=seconds)
