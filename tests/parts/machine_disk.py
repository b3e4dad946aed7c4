"""The image of the machines in tests, built by `packer/image.sh` when anything that goes into it has changed."""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from tests.parts.cache import cache_folder, one_at_a_time
from tests.parts.command import logged
from tests.parts.gitserver import GitServer
from tests.parts.machine import Disk, forwards
from tests.parts.machine_release import BAKED_JOBS, CONFIG, GIT, files, publish_baked
from tests.parts.missing import MissingPartError, program
from tests.parts.repo import Repo

ROOT = Path(__file__).parents[2]
INPUTS = ("agent", "consumer", "systemd", "packer", "pyproject.toml", "uv.lock", "scrapers/uv.lock")
BUILD_SECONDS = 1500
KEPT = 2
"""Images in the cache: two checkouts may take turns; each has two gigabytes. What is in use is kept besides."""

HELD = "held"
"""In an image's folder: whoever uses the image holds a shared lock on this file."""


def built_disk() -> AbstractContextManager[Disk]:
    """Have the image, built when anything that goes into it has changed, for the length of a block."""

    def build(draft: Path) -> None:
        for needed in ("packer", "qemu-system-x86_64", "qemu-img", "mmdebstrap", "dockerd"):
            program(needed)
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            (place / "git").mkdir()
            publish_baked(Repo(place / "git"))
            config = place / "agent.toml"
            config.write_text(CONFIG)
            with GitServer(place / "git") as git:
                _run_builder(draft, config, {GIT: int(git.base_url.rpartition(":")[2])})

    return kept_disk("image", image_key(), build)


@contextmanager
def kept_disk(name: str, key: str, build: Callable[[Path], None]) -> Iterator[Disk]:
    """Yield a disk of the cache, and keep it from being removed meanwhile; of two test runs one builds it.

    Args:
        name: Of the folder in the cache.
        key: Of what goes into the disk.
        build: Builds it in an empty folder, when the cache does not have it.
    """
    if os.geteuid() != 0:
        raise MissingPartError("a machine's disk", "building it needs root")
    cache = cache_folder() / name
    cache.mkdir(exist_ok=True)
    folder = cache / f"built-{key}"
    with one_at_a_time(f"{name}/built"):
        if not (folder / "disk.qcow2").exists():
            draft = Path(tempfile.mkdtemp(dir=cache, prefix="draft-"))
            try:
                build(draft)
                shutil.rmtree(folder, ignore_errors=True)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        os.utime(folder)
        # Under the gate, so that nobody clears away between the build and this.
        held = hold(folder)
        forget(cache)
    with held:
        yield Disk.at(folder)


def forget(cache: Path, kept: int = KEPT) -> None:
    """Remove all images but the newest ones and those that are in use; the caller holds the gate."""
    for old in _oldest(cache, "built-*/", kept):
        with suppress(BlockingIOError), hold(old, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(old, ignore_errors=True)
    # Only a build reads bare disks and drafts, and it would hold the gate.
    for old in _oldest(cache, "disk-*/", kept):
        shutil.rmtree(old, ignore_errors=True)
    for draft in cache.glob("draft-*"):
        with suppress(OSError):
            shutil.rmtree(draft)


def _oldest(cache: Path, pattern: str, kept: int) -> list[Path]:
    return sorted(cache.glob(pattern), key=lambda path: path.stat().st_mtime)[:-kept]


def hold(folder: Path, how: int = fcntl.LOCK_SH) -> IO[bytes]:
    """Return an open file with the lock; the lock ends when it is closed, or the process dies.

    Raises:
        BlockingIOError: Somebody else holds it, and `how` says not to wait.
    """
    file = (folder / HELD).open("ab")
    try:
        fcntl.flock(file, how)
    except OSError:
        file.close()
        raise
    return file


def image_key() -> str:
    """Return a hash of all that goes into the image."""
    digest = hashlib.sha256(repr((CONFIG, sorted(files(*BAKED_JOBS).items()))).encode())
    for path in _inputs():
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _inputs() -> Iterator[Path]:
    for name in INPUTS:
        top = ROOT / name
        found = [top] if top.is_file() else sorted(top.rglob("*"))
        yield from (path for path in found if path.is_file() and "__pycache__" not in path.parts)


def _run_builder(folder: Path, config: Path, services: dict[str, int]) -> None:
    cache = folder.parent
    environ = {
        **os.environ,
        "MAYFLY_IMAGE_CACHE": str(cache),
        "MAYFLY_IMAGE_NETDEV": forwards(services),
        "LC_ALL": "C.UTF-8",
    }
    log = cache / "build.log"
    log.unlink(missing_ok=True)
    command = [str(ROOT / "packer" / "image.sh"), str(folder), str(config)]
    logged(command, log, environ=environ, seconds=BUILD_SECONDS)


def main() -> None:
    """Build the image ahead of the tests, so that no test has to wait for it, and say where it is."""
    with built_disk() as disk:
        sys.stdout.write(f"{disk.image.parent}\n")


if __name__ == "__main__":
    main()
