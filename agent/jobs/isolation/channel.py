"""The agent's end of the launcher: how it is started, what it is told, and what it answers."""

import asyncio
import os
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.jobs.interface import Launch

_LAUNCHER = Path(__file__).with_name("launcher.py")
_LONGEST_ANSWER = 500


def launcher_command() -> tuple[str, ...]:
    """Return the command of a launcher."""
    return (os.path.realpath(sys.executable), "-I", "-S", "-c", _LAUNCHER.read_text())


class Channel:
    """To a launcher that was started with the other end as its standard input."""

    def __init__(self, answers: StreamReader, orders: StreamWriter) -> None:
        self._answers = answers
        self._orders = orders
        self._program = ""

    async def user(self) -> int | None:
        """Return the user as whom it runs, as soon as it does; None when it ended before."""
        said = await self._answers.readline()
        return int(said) if said.endswith(b"\n") else None

    async def order(self, program: str, launch: Launch, *, memory: int | None = None) -> None:
        """Tell it to become a program, each of whose processes may use `memory` bytes."""
        self._program = program
        command = (program, *launch.command[1:])
        variables = (f"{name}={value}" for name, value in launch.environ.items())
        fields = (str(memory or 0), str(len(command)), *command, *variables)
        self._orders.write(b"\0".join(os.fsencode(field) for field in fields))
        self._orders.write_eof()
        await self._orders.drain()

    async def became(self) -> None:
        """Return when nobody but the program is left at the other end: it holds this open until it is the program.

        Raises:
            OSError: It could not become the program.
        """
        if number := await self._answers.read(_LONGEST_ANSWER):
            raise OSError(int(number), os.strerror(int(number)), self._program)


@asynccontextmanager
async def channel() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """Yield our end, and the launcher's, which whoever has started it closes."""
    ours, theirs = socket.socketpair()
    with theirs:
        answers, orders = await asyncio.open_unix_connection(sock=ours)
        try:
            yield Channel(answers, orders), theirs
        finally:
            orders.close()
