"""A git server over SSH: sshd on a port of the test's own, where a key opens one repository and nothing else."""

import os
import pwd
import socket
from pathlib import Path
from typing import Self

from tests.parts.command import output_of
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program

READY_SECONDS = 60


def make_key(file: Path, passphrase: str = "") -> Path:
    """Make a key pair; return its private half."""
    command = (*("-q", "-t", "ed25519", "-N", passphrase), "-C", "test", "-f", str(file))
    output_of([program("ssh-keygen"), *command])
    return file


class SshServer:
    """Serves bare repositories to deploy keys, as a context manager.

    Attributes:
        folder: Its keys, configuration and log.
        port: Where it listens.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.port = free_port()
        self._keys = folder / "authorized_keys"
        self._keys.touch()
        make_key(folder / "host")
        (folder / "config").write_text(
            f"ListenAddress {LOOPBACK}:{self.port}\nHostKey {folder / 'host'}\nPidFile none\n"
            f"AuthorizedKeysFile {self._keys}\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        )
        self._program = self._new()

    def _new(self) -> Program:
        command = [program("sshd"), "-D", "-e", "-f", str(self.folder / "config")]
        return Program(command, log=self.folder / "sshd.log")

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            # Where the package's own unit would make it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._program.start(self._ready, seconds=READY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()

    def _ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self.port)) == 0

    def url(self, repository: Path) -> str:
        """Return the address of a repository."""
        return f"ssh://{pwd.getpwuid(os.geteuid()).pw_name}@{LOOPBACK}:{self.port}{repository}"

    @property
    def known_hosts(self) -> str:
        """The line of known_hosts that names its key."""
        kind, key, *_ = (self.folder / "host.pub").read_text().split()
        return f"[{LOOPBACK}]:{self.port} {kind} {key}"

    def admit(self, key: Path, repository: Path, *options: str) -> None:
        """Let a key read a repository, and no other any longer; `options` as in sshd(8)."""
        public = key.with_name(f"{key.name}.pub").read_text()
        command = f'command="git-upload-pack {repository}"'
        self._keys.write_text(f"{','.join(('restrict', command, *options))} {public}")

    def revoke(self) -> None:
        """Let no key in any longer."""
        self._keys.write_text("")

    def change_host_key(self) -> None:
        """Begin anew with another host key."""
        self._program.stop()
        for file in self.folder.glob("host*"):
            file.unlink()
        make_key(self.folder / "host")
        self._program = self._new()
        self._program.start(self._ready, seconds=READY_SECONDS)
