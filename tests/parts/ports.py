"""Free TCP ports on the loopback address."""

import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Distinct ports that nothing listens on at this moment.

    They are held open together before any is given out, so that none is given out twice. A stranger may still take
    one before its server binds it; the server then fails to start and its log says so.
    """
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]


def free_port() -> int:
    """One port that nothing listens on at this moment."""
    return free_ports(1)[0]
