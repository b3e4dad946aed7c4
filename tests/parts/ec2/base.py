"""The disk of Amazon's images in the stand-in: Debian's, with what Amazon's has and the project's image has not."""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path

from tests.parts.cache import cache_folder
from tests.parts.command import output_of
from tests.parts.machine import Disk
from tests.parts.machine_disk import ROOT, kept_disk
from tests.parts.missing import program

FILES = Path(__file__).with_name("disk")
SCRIPTS = ROOT / "packer" / "disk"
PACKAGES = (
    *("cloud-init", "sudo", "isc-dhcp-client", "amazon-ec2-net-utils"),
    *("selinux-policy-default", "policycoreutils"),
)
BUILD_SECONDS = 900


def base_disk() -> AbstractContextManager[Disk]:
    """Have the disk, built when its recipe has changed, for the length of a block."""
    for needed in ("mmdebstrap", "dockerd", "mke2fs", "qemu-img"):
        program(needed)
    return kept_disk("ec2", _key(SCRIPTS, FILES), _build)


def browser_archive() -> Path:
    """Return the file system of the browser's image as a tar archive, which the project's image is built from too."""
    return _archive(cache_folder() / "image", "browser")


def _build(draft: Path) -> None:
    cache = draft.parent
    root = _archive(cache, "root", *PACKAGES)
    for old in cache.glob("root-*.tar"):
        if old != root:
            old.unlink()
    _run("assemble.sh", str(root), str(browser_archive()), str(draft), str(FILES))


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
