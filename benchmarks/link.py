"""A link with latency and a rate: `python -S -E link.py PORT MILLISECONDS MBIT` prints its own port.

Connections to it reach `PORT` of the loopback address. A round trip takes `MILLISECONDS`, also the one of a new
connection, and all connections share `MBIT` per second in each direction. TCP's slow start is not imitated, which
favours clients that open many connections.
"""

import asyncio
import sys
from collections.abc import Awaitable

HOST = "127.0.0.1"
PIECE = 16 * 1024
IN_FLIGHT = 64
"""Pieces of one connection on their way, 1 MiB: the window of a connection."""


class Lane:
    """One direction of the link: bytes of all connections leave one after the other."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = 0.0

    def leaves(self, size: int, now: float) -> float:
        """Return when a piece that wants to leave now has left."""
        self._free = max(self._free, now) + size / self._rate
        return self._free


async def carry(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, lane: Lane, delay: float
) -> None:
    """Carry one direction of a connection until it ends."""
    clock = asyncio.get_running_loop().time
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)

    async def read() -> None:
        data = b"first"
        while data:
            data = await source.read(PIECE)
            left = lane.leaves(len(data), clock())
            await asyncio.sleep(left - clock())
            await queue.put((left + delay, data))

    async def write() -> None:
        while True:
            arrives, data = await queue.get()
            await asyncio.sleep(arrives - clock())
            if not data:
                target.write_eof()
                return
            target.write(data)
            await target.drain()

    await _both(read(), write())


async def _both(one: Awaitable[None], other: Awaitable[None]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for task in (one, other):
                group.create_task(_quiet(task))
    except ExceptionGroup:
        return


async def _quiet(work: Awaitable[None]) -> None:
    await work


async def main(port: int, milliseconds: float, mbit: float) -> None:
    """Serve until killed."""
    delay, rate = milliseconds / 2000, mbit * 1e6 / 8
    up, down = Lane(rate), Lane(rate)
    # The loop forgets a connection whose client has said its last, and with it whoever waits for the answer.
    held: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        held.add(task)
        try:
            await relay(reader, writer)
        finally:
            held.discard(task)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * delay)  # its handshake, which the loopback has had already
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, port)
        except OSError:
            writer.close()
            return
        await _both(carry(reader, far_writer, up, delay), carry(far_reader, writer, down, delay))
        for end in (writer, far_writer):
            end.close()

    server = await asyncio.start_server(connected, HOST, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 -- whoever started it reads it
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
