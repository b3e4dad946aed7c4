"""A registry of images that wants a login: Debian's docker-registry with a file of users, or with a token service."""

from pathlib import Path
from typing import Self

from tests.parts.command import output_of
from tests.parts.docker_engine import DockerEngine
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program, answers
from tests.parts.registry_tokens import TokenService

READY_SECONDS = 60
USER = "puller"


class PrivateRegistry:
    """A registry, as a context manager.

    Attributes:
        host: What stands before an image's name.
    """

    def __init__(self, folder: Path, tokens: TokenService | None = None) -> None:
        folder.mkdir()
        self.host = f"{LOOPBACK}:{free_port()}"
        self._users = folder / "users"
        self._users.touch()
        (folder / "config.yml").write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\n"
            f"http: {{addr: '{self.host}'}}\n"
            + (
                tokens.settings
                if tokens
                else f"auth: {{htpasswd: {{realm: test, path: {self._users}}}}}\n"
            )
        )
        command = [program("docker-registry"), "serve", str(folder / "config.yml")]
        self._program = Program(command, log=folder / "registry.log")

    def __enter__(self) -> Self:
        asks = f"http://{self.host}/v2/"
        self._program.start(lambda: answers(asks, status=401), seconds=READY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()

    def admit(self, password: str) -> None:
        """Let in who has this password, and nobody else any longer; without a token service."""
        command = [program("htpasswd"), "-Bbn", USER, password]
        self._users.write_text(output_of(command))

    def push(self, engine: DockerEngine, image: str, name: str, config: Path, password: str) -> str:
        """Give it an image under a name; return how it is pulled. The engine keeps no trace of it."""
        target = f"{self.host}/{name}"
        login = ["--config", str(config), "login", "-u", USER, "-p", password, self.host]
        for arguments in (
            login,
            ["tag", image, target],
            ["--config", str(config), "push", "--quiet", target],
            ["image", "rm", target],
        ):
            engine.do(*arguments)
        return target
