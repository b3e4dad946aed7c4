"""The home image, built from deploy/home/Dockerfile by a real engine that reaches no registry.

The two images that the Dockerfile starts from are stand-ins, imported from this machine: a Debian root with Python in
place of `python`, and the locked uv in place of its image. The root brings a warm cache of the locked packages, so that
the build's own `uv sync --frozen` needs no network.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.parts.cache import cache_folder
from tests.parts.docker_engine import DockerEngine
from tests.parts.missing import program

REPOSITORY = Path(__file__).parents[2]
# A host name that can never exist (RFC 6761), so that nobody takes these for the real images.
PLACE = "mayfly.test"
HOME_IMAGE = f"{PLACE}/mayfly-home:test"
PYTHON = "3.11"
"""Debian bookworm's; packages are cached for it."""
INCLUDED = "python3,ca-certificates,tzdata"
"""What the real `python:...-slim` has too."""
ROOT_SECONDS, FETCH_SECONDS, IMPORT_SECONDS, BUILD_SECONDS = 600, 300, 120, 300


class ImageBuildError(Exception):
    """A step failed; the message carries the end of what it said."""


def build_home_image(engine: DockerEngine, scratch: Path) -> str:
    """Build the image and return its name.

    Raises:
        ImageBuildError: A step failed.
        MissingPartError: A program that a step needs is not installed.
    """
    with (cache_folder() / "home-image.lock").open("wb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        base, uv = _base(engine, scratch), _uv(engine, scratch)
        # The classic builder: the other one is a plug-in that Debian's package does not bring.
        engine.environ["DOCKER_BUILDKIT"] = "0"
        arguments = ["--build-arg", f"BASE={base}", "--build-arg", f"UV={uv}", "--network", "none"]
        dockerfile = REPOSITORY / "deploy" / "home" / "Dockerfile"
        _check(
            engine.docker(
                *("build", "--tag", HOME_IMAGE, "--file", str(dockerfile), *arguments),
                str(REPOSITORY),
                seconds=BUILD_SECONDS,
            )
        )
    return HOME_IMAGE


def _base(engine: DockerEngine, scratch: Path) -> str:
    key = _key((REPOSITORY / "uv.lock").read_bytes(), PYTHON.encode(), INCLUDED.encode())
    name = f"{PLACE}/python:{key}"
    if engine.docker("image", "inspect", name).returncode == 0:
        return name
    root = cache_folder() / f"home-root-{_key(INCLUDED.encode())}.tar"
    if not root.exists():
        partial = root.with_suffix(".part")
        _run(
            program("mmdebstrap"),
            *("--variant=minbase", f"--include={INCLUDED}"),
            *("--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*"),
            *("--format=tar", "bookworm", str(partial)),
            seconds=ROOT_SECONDS,
        )
        partial.rename(root)
    whole = scratch / "base.tar"
    shutil.copyfile(root, whole)
    with tarfile.open(whole, "a") as archive:
        archive.add(_warm_cache(scratch), "var/cache/uv")
    changes = ["--change", "ENV UV_CACHE_DIR=/var/cache/uv UV_OFFLINE=1"]
    older = engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{PLACE}/python")
    _check(engine.docker("import", *changes, str(whole), name, seconds=IMPORT_SECONDS))
    whole.unlink()
    # Each has 300 MB, and nobody asks for one of an older lock file again; one that is in use stays.
    for image in older.stdout.split():
        engine.docker("image", "rm", image)
    return name


def _warm_cache(scratch: Path) -> Path:
    """Let uv fetch what is locked for home, and what builds the project, as any of its clients would."""
    cache, locked = scratch / "uv-cache", scratch / "requirements.txt"
    uv = program("uv")
    export = ["export", "--frozen", "--no-dev", "--extra", "home", "--no-emit-project"]
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
    if engine.docker("image", "inspect", name).returncode != 0:
        archive = scratch / "uv.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(binary, "uv")
        _check(engine.docker("import", str(archive), name, seconds=IMPORT_SECONDS))
    return name


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _run(*command: str, seconds: float) -> None:
    _check(
        subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    )


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        said: Sequence[str] = (done.stdout, done.stderr)
        raise ImageBuildError(f"{done.args} ended with {done.returncode}:\n{''.join(said)[-3000:]}")
