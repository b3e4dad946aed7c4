"""The container engine behind a socket, as on the machine: the first question starts it, and waits for it."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.base.engine import ANSWER_SECONDS, Engine
from agent.base.logs import RunLogger
from tests.parts.busybox_image import ensure_busybox
from tests.parts.docker_engine import DockerEngine

pytestmark = pytest.mark.long

UNIX = "unix://"


@contextmanager
def starting(engine: DockerEngine, place: Path, seconds: float) -> Iterator[dict[str, str]]:
    """Yield the environment of an engine whose socket takes connections now and answers after some seconds."""
    real = engine.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix(UNIX)
    closing = threading.Event()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(place))
        door.listen(16)

        def serve() -> None:
            closing.wait(seconds)
            while not closing.is_set():
                with suppress(OSError):
                    client, _ = door.accept()
                    threading.Thread(target=_carry, args=(client, real), daemon=True).start()

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        try:
            yield {**os.environ, **engine.environ, "DOCKER_HOST": f"{UNIX}{place}"}
        finally:
            closing.set()
            door.shutdown(socket.SHUT_RDWR)
            server.join(10)


def _carry(client: socket.socket, real: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as engine:
        engine.connect(real)
        back = threading.Thread(target=_copy, args=(engine, client), daemon=True)
        back.start()
        _copy(client, engine)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_the_first_question_waits_for_an_engine_that_starts(
    docker_engine: DockerEngine, tmp_path: Path
) -> None:
    """It takes longer to start than any other answer may take, and the image that is there is found, not pulled."""
    image = ensure_busybox(docker_engine)
    with starting(docker_engine, tmp_path / "docker.sock", ANSWER_SECONDS + 2) as environ:
        inspected, pulled = asyncio.run(
            Engine(environ).have(image, RunLogger().log, "image.pulled")
        )
    assert not pulled
    assert image.encode() in inspected
