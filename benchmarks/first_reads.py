"""A browser's first start from a disk that is slow where it is read first, as a new EBS volume is.

`python -m benchmarks.first_reads [MILLISECONDS...]` mounts the file system of the tests' browser image from a device
whose every read takes so long (0, 7 and 20; at 7 a gigabyte takes a minute, read piece by piece), and opens a session:
as it is, with its files read beside, and with all of them read before. Nothing of it is in memory at first. Needs root,
nbdkit and libnbd-bin.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import requests

from tests.parts.ec2.base import browser_archive
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program

MILLISECONDS = (0, 7, 20)
SESSION_SECONDS = 600
WAYS = ("as it is", "read beside", "read before")
READ = "find usr -xdev -type f -size +32k -print0 | xargs -0 -n 4 -P 16 cat >/dev/null"
OPTIONS = {"binary": "/usr/bin/chromium", "args": ["--headless", "--disable-dev-shm-usage"]}
WANTED = {"browserName": "chrome", "goog:chromeOptions": OPTIONS}


@contextmanager
def mounted(words: list[str], place: Path) -> Iterator[Path]:
    """Mount something at a new folder, and take it away whoever uses it still."""
    place.mkdir()
    _run("mount", *words, str(place))
    try:
        yield place
    finally:
        _run("umount", "--lazy", str(place))


@contextmanager
def slow(raw: Path, folder: Path, milliseconds: int) -> Iterator[str]:
    """Yield a device with what is on a disk, every read of which takes so long."""
    socket, fuse = folder / "nbd.sock", folder / "fuse"
    fuse.mkdir()
    words = [program("nbdkit"), "-f", "-r", "-U", str(socket), "--filter=delay", "--threads=64"]
    server = Program([*words, "file", str(raw), f"rdelay={milliseconds}ms"], log=folder / "nbd.log")
    client = Program(
        [program("nbdfuse"), "-r", str(fuse), "--unix", str(socket)], log=folder / "fuse.log"
    )
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start(socket.exists, seconds=30)
        stack.callback(client.stop)
        client.start((fuse / "nbd").exists, seconds=30)
        words = ["--direct-io=on", "--read-only", "--find", "--show", str(fuse / "nbd")]
        device = _run("losetup", *words).strip()
        stack.callback(_run, "losetup", "--detach", device)
        yield device


def start(raw: Path, folder: Path, milliseconds: int, way: str) -> str:
    """Open a session, and say after how many seconds it was there, and what was read until then."""
    with ExitStack() as stack:
        device = stack.enter_context(slow(raw, folder, milliseconds))
        before = _read_of(device)
        disk = stack.enter_context(mounted(["-o", "ro,noload", device], folder / "disk"))
        above = stack.enter_context(mounted(["-t", "tmpfs", "tmpfs"], folder / "above"))
        (above / "upper").mkdir()
        (above / "work").mkdir()
        layers = f"lowerdir={disk},upperdir={above / 'upper'},workdir={above / 'work'}"
        root = stack.enter_context(
            mounted(["-t", "overlay", "overlay", "-o", layers], folder / "root")
        )
        for name, words in (("proc", ["-t", "proc", "proc"]), ("dev", ["--rbind", "/dev"])):
            (root / name).mkdir(exist_ok=True)
            _run("mount", *words, str(root / name))
            stack.callback(_run, "umount", "--lazy", str(root / name))
        (root / "etc/hosts").write_text(f"{LOOPBACK} localhost\n")
        begun = time.monotonic()
        if way != WAYS[0]:
            reader = subprocess.Popen(["sh", "-c", READ], cwd=disk, start_new_session=True)
            stack.callback(_end, reader)
        if way == WAYS[2]:
            reader.wait()
        port = free_port()
        driver = Program(
            [program("chroot"), str(root), "/usr/bin/chromedriver", f"--port={port}"],
            log=folder / "driver.log",
        )
        url = f"http://{LOOPBACK}:{port}"
        stack.callback(driver.stop)
        driver.start(lambda: _answers(url), seconds=SESSION_SECONDS)
        body = {"capabilities": {"alwaysMatch": WANTED}}
        made = requests.post(f"{url}/session", json=body, timeout=SESSION_SECONDS)
        made.raise_for_status()
        seconds = time.monotonic() - begun
        requests.delete(f"{url}/session/{made.json()['value']['sessionId']}", timeout=60)
        reads, sectors = (now - then for now, then in zip(_read_of(device), before, strict=True))
        return f"{seconds:.1f} s, {sectors * 512 / 1e6:.0f} MB in {reads} reads"


def _end(reader: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(reader.pid, signal.SIGKILL)
    reader.wait()


def _answers(url: str) -> bool:
    try:
        return bool(requests.get(f"{url}/status", timeout=5).ok)
    except requests.RequestException:
        return False


def _read_of(device: str) -> tuple[int, int]:
    """Return reads and sectors that a device has served."""
    words = Path(f"/sys/block/{Path(device).name}/stat").read_text().split()
    return int(words[0]), int(words[2])


def _run(name: str, *words: str) -> str:
    done = subprocess.run(
        [program(name), *words], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


def main() -> None:
    """Start each, and print a line for it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        (place / "browser").mkdir()
        _run("tar", "-xf", str(browser_archive()), "-C", str(place / "browser"))
        raw = place / "disk.raw"
        _run("mke2fs", "-q", "-t", "ext4", "-d", str(place / "browser"), str(raw), "1200M")
        for milliseconds in [int(word) for word in sys.argv[1:]] or MILLISECONDS:
            for way in WAYS:
                folder = place / f"{milliseconds}-{WAYS.index(way)}"
                folder.mkdir()
                said = start(raw, folder, milliseconds, way)
                print(f"{milliseconds} ms a read, {way}: {said}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
