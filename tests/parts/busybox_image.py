"""A small image: BusyBox, from Debian's static build. No registry is needed."""

import hashlib
import io
import tarfile
from pathlib import Path

from tests.parts.cache import cache_folder, one_at_a_time
from tests.parts.docker_engine import DockerEngine
from tests.parts.missing import program

# A host name that can never exist (RFC 6761), so that nobody tries to pull it.
REPOSITORY = "mayfly.test/busybox"
APPLETS = (
    *("cat", "chmod", "date", "dd", "echo", "env", "false", "head", "id", "grep", "kill", "ln"),
    *("ls", "mkdir", "mkfifo", "mount", "nc", "ps", "sh", "sleep", "tail", "touch", "true"),
    *("wget", "yes"),
)


def ensure_busybox(engine: DockerEngine) -> str:
    """The name of the image, imported when the engine does not have it."""
    binary = Path(program("busybox")).read_bytes()
    name = f"{REPOSITORY}:{hashlib.sha256(binary + repr(APPLETS).encode()).hexdigest()[:12]}"
    with one_at_a_time("busybox-image"):
        if not engine.has(name):
            archive = cache_folder() / "busybox-root.tar"
            _write_root(archive, binary)
            engine.do("import", str(archive), name)
    return name


def _write_root(archive: Path, binary: bytes) -> None:
    with tarfile.open(archive, "w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, io.BytesIO(binary))
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
