"""A git server over smart HTTP: the standard library's web server in front of `git http-backend`."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.parts.certificate import Certificate
from tests.parts.loopback_http import LoopbackHttp, QuietHandler, basic
from tests.parts.missing import program

BACKEND_SECONDS = 60
DRIP_SECONDS = 0.25


class GitServer:
    """Serves the bare repositories of a folder, as a context manager.

    Attributes:
        root: The folder whose `<name>.git` folders are served.
        requests: Method and request target of each request, in order.
        pack_limit: How many bytes of a pack are sent from now on before the connection falls silent.
        drip: Whether a pack is sent at four bytes a second from now on.
        refusal: What it says to whom it does not let in.
        watch: Called with each request, while the client waits for its answer.
        closing: Set when it stops.
    """

    def __init__(
        self,
        root: Path,
        *,
        user: str = "",
        password: str = "",
        certificate: Certificate | None = None,
    ) -> None:
        self.root = root
        self.requests: list[tuple[str, str]] = []
        self.pack_limit: int | None = None
        self.drip = False
        self.refusal = "who are you?"
        self.watch: Callable[[], None] = lambda: None
        self.authorization = ""
        if user:
            self.admit(user, password)
        self._http = LoopbackHttp(_Handler, owner=self, certificate=certificate)
        self.closing = self._http.closing

    @property
    def base_url(self) -> str:
        """Where it listens, without a trailing slash."""
        return self._http.url

    def url(self, name: str = "scrapers") -> str:
        """The URL of one repository, without credentials."""
        return f"{self.base_url}/{name}.git"

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._http.__exit__(*raised)

    def admit(self, user: str, password: str) -> None:
        """Let one user in, and nobody else any longer."""
        self.authorization = basic(user, password)


class _Handler(QuietHandler):
    owner: GitServer

    def _serve(self) -> None:
        server = self.owner
        server.requests.append((self.command, self.path))
        body = self.read_body()
        server.watch()
        if server.authorization not in ("", self.headers.get("Authorization", "")):
            headers = {"WWW-Authenticate": 'Basic realm="git"', "Content-Type": "text/plain"}
            self.answer(401, f"{server.refusal}\n".encode(), headers)
            return
        status, headers, content = _backend(server.root, self, body)
        self.begin(status, len(content), headers)
        is_pack = "git-upload-pack-result" in headers.get("Content-Type", "")
        if is_pack and server.pack_limit is not None:
            self.wfile.write(content[: server.pack_limit])
            server.closing.wait()
            self.close_connection = True
        elif is_pack and server.drip:
            self._drip(content)
        else:
            self.wfile.write(content)

    def _drip(self, content: bytes) -> None:
        for position in range(len(content)):
            self.wfile.write(content[position : position + 1])
            if self.owner.closing.wait(DRIP_SECONDS):
                return

    do_GET = do_POST = _serve  # noqa: N815 -- the library's names


def _backend(root: Path, request: QuietHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Run `git http-backend` as a CGI program and take its answer apart."""
    done = subprocess.run(
        [program("git"), "http-backend"],
        input=body,
        env=_cgi(root, request, len(body)),
        capture_output=True,
        timeout=BACKEND_SECONDS,
        check=False,
    )
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if line)
    status = int(headers.pop("Status", "200" if done.returncode == 0 else "500").split()[0])
    return status, headers, content


def _cgi(root: Path, request: QuietHandler, length: int) -> dict[str, str]:
    path, _, query = request.path.partition("?")
    return {
        "PATH": os.environ.get("PATH", ""),
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        # Any one commit may be asked for, as the well-known hosts allow.
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "uploadpack.allowAnySHA1InWant",
        "GIT_CONFIG_VALUE_0": "true",
        "GIT_CONFIG_KEY_1": "uploadpack.allowFilter",
        "GIT_CONFIG_VALUE_1": "true",
        "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": request.command,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(length),
        "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
        "REMOTE_ADDR": request.client_address[0],
    }
