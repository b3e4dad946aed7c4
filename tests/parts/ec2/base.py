"""The disk of Amazon's images in the stand-in: Debian's, with what Amazon's has and the project's image has not."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.cache import cache_folder, one_at_a_time
from tests.parts.command import output_of
from tests.parts.machine import Disk
from tests.parts.machine_disk import ROOT, forget, hold
from tests.parts.missing import MissingPartError, program

FILES = Path(__file__).with_name("disk")
SCRIPTS = ROOT / "packer" / "disk"
PACKAGES = (
    *("cloud-init", "sudo", "isc-dhcp-client", "amazon-ec2-net-utils"),
    *("selinux-policy-default", "policycoreutils"),
)
BUILD_SECONDS = 900


@contextmanager
def base_disk() -> Iterator[Disk]:
    """Yield the disk, built when its recipe has changed, and keep it from being removed meanwhile.

    Raises:
        CommandError: A step of the build failed.
        MissingPartError: A program that the build needs is not installed.
    """
    if os.geteuid() != 0:
        raise MissingPartError("the disk of Amazon's images", "building it needs root")
    for needed in ("mmdebstrap", "dockerd", "mke2fs", "qemu-img"):
        program(needed)
    cache = cache_folder() / "ec2"
    cache.mkdir(exist_ok=True)
    with one_at_a_time("ec2/built"):
        folder = cache / f"built-{_key(SCRIPTS, FILES)}"
        if not (folder / "disk.qcow2").exists():
            _build(cache, folder)
        held = hold(folder)
        forget(cache)
    with held:
        yield Disk.at(folder)


def browser_archive() -> Path:
    """Return the file system of the browser's image as a tar archive, which the project's image is built from too."""
    return _archive(cache_folder() / "image", "browser")


def _build(cache: Path, folder: Path) -> None:
    root = _archive(cache, "root", *PACKAGES)
    for old in cache.glob("root-*.tar"):
        if old != root:
            old.unlink()
    browser = browser_archive()
    draft = Path(tempfile.mkdtemp(dir=cache, prefix="draft-"))
    try:
        _run("assemble.sh", str(root), str(browser), str(draft), str(FILES))
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _archive(folder: Path, name: str, *packages: str) -> Path:
    return Path(_run("archive.sh", str(folder), name, *packages).strip())


def _run(script: str, *words: str) -> str:
    return output_of([str(SCRIPTS / script), *words], seconds=BUILD_SECONDS)


def _key(*tops: Path) -> str:
    digest = hashlib.sha256(repr(PACKAGES).encode())
    for top in tops:
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            target = str(path.readlink()) if path.is_symlink() else ""
            digest.update(f"{path.name} {target}\0".encode())
            if path.is_file() and not target:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
