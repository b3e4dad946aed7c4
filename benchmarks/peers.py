"""The programs that Mayfly is measured against, pinned by `peers.txt`, in an environment of their own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.parts.seaweed import REGION, S3Server

HERE = Path(__file__).parent
PINNED = HERE / "peers.txt"
INSTALL_SECONDS = 600
CHECKED = "s5cmd, sha256sum, sync"
"""What a careful user would write: fetched, hashed and on the disk, which the programs alone do not see to."""
AT_ONCE = "16"
"""Transfers at once where a peer's own choice is lower (rclone: 4, s3transfer: 10); s5cmd's is 256."""


@dataclass(frozen=True)
class Endpoint:
    """Where a bucket is reached, and with what.

    Attributes:
        url: The address, perhaps of a slow link in front of the server.
        server: The server itself.
        bucket: The bucket's name.
    """

    url: str
    server: S3Server
    bucket: str

    @property
    def environ(self) -> dict[str, str]:
        """An environment that has the keys and nothing of the user's own configuration."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            **self.server.environ,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "MAYFLY_CONFIG": os.devnull,
            "MAYFLY_STORE_ENDPOINT": self.url,
        }


@dataclass(frozen=True)
class Peers:
    """The peers, installed."""

    folder: Path

    @property
    def s5cmd(self) -> str:
        """The program itself: the package starts it through Python, which would cost it 50 ms."""
        found = self.folder.glob("lib/python*/site-packages/s5cmd/bin/s5cmd")
        return str(next(found))

    def program(self, name: str) -> str:
        """Return a program of the environment."""
        return str(self.folder / "bin" / name)

    def uploads(self, source: Path, to: Endpoint, prefix: str) -> dict[str, list[str]]:
        """Return the commands that copy a folder into a bucket."""
        target = f"s3://{to.bucket}/{prefix}/"
        plain = ["--endpoint-url", to.url]
        aws, boto = self.program("aws"), [self.program("python"), str(HERE / "threads.py")]
        return {
            "s5cmd": [self.s5cmd, *plain, "cp", f"{source}/", target],
            "rclone": [*self._rclone(to), "copy", str(source), f":s3:{to.bucket}/{prefix}"],
            "aws s3 cp": [aws, *plain, "s3", "cp", str(source), target, "--recursive", "--quiet"],
            "aws s3 sync": [aws, *plain, "s3", "sync", str(source), target, "--quiet"],
            "boto3": [*boto, "up", to.url, to.bucket, prefix, str(source), AT_ONCE],
        }

    def downloads(self, prefix: str, of: Endpoint, target: Path) -> dict[str, list[str]]:
        """Return the commands that copy what is under a prefix into a folder."""
        source = f"s3://{of.bucket}/{prefix}/"
        plain = ["--endpoint-url", of.url]
        aws, boto = self.program("aws"), [self.program("python"), str(HERE / "threads.py")]
        fetch = [self.s5cmd, *plain, "cp", f"{source}*", f"{target}/"]
        check = 'cd "$1" && find . -type f -exec sha256sum {} + > sums && sync --file-system .'
        careful = ["sh", "-ec", f'target=$1; shift; "$@"; set -- "$target"; {check}', "sh"]
        return {
            "s5cmd": fetch,
            CHECKED: [*careful, str(target), *fetch],
            "rclone": [*self._rclone(of), "copy", f":s3:{of.bucket}/{prefix}", str(target)],
            "aws s3 cp": [aws, *plain, "s3", "cp", source, str(target), "--recursive", "--quiet"],
            "aws s3 sync": [aws, *plain, "s3", "sync", source, str(target), "--quiet"],
            "boto3": [*boto, "down", of.url, of.bucket, prefix, str(target), AT_ONCE],
        }

    def _rclone(self, at: Endpoint) -> list[str]:
        options = {"provider": "SeaweedFS", "endpoint": at.url, "env-auth": "true"}
        pairs = [f"--s3-{key}={value}" for key, value in options.items()]
        return [self.program("rclone"), "--config", "", *pairs, "--transfers", AT_ONCE]

    def versions(self) -> Mapping[str, str]:
        """Return what they say of themselves."""
        return {
            "s5cmd": _first(self.s5cmd, "version"),
            "rclone": _first(self.program("rclone"), "version"),
            "aws": _first(self.program("aws"), "--version"),
            "boto3": _first(self.program("python"), "-c", "import boto3; print(boto3.__version__)"),
        }


def peers() -> Peers:
    """Install the peers, where they are not, as `peers.txt` pins them: versions and hashes."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "mayfly-bench" / "peers"
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_bytes() == PINNED.read_bytes():
        return Peers(folder)
    uv = str(Path(sys.executable).with_name("uv"))
    python = str(folder / "bin" / "python")
    install = [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes"]
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [*install, "--only-binary", ":all:", "--requirement", str(PINNED)],
    ):
        subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
    mark.write_bytes(PINNED.read_bytes())
    return Peers(folder)


def _first(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()[0]
