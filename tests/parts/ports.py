"""TCP ports on the loopback address, for programs that have to be told theirs before they start."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

LOOPBACK = "127.0.0.1"
FIRST, LAST, BLOCK = 10_000, 32_000, 500
"""Below those that Linux gives to connections and to servers that name none (32,768 and above): nobody takes one by
chance between the moment it is chosen and the moment its server binds it."""


def free_ports(count: int) -> list[int]:
    """Distinct ports that nothing listens on, and that no other process of the tests is given."""
    with _LOCK:
        return list(itertools.islice(filter(_is_free, _PORTS), count))


def free_port() -> int:
    """One port that nothing listens on, and that no other process of the tests is given."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind((LOOPBACK, port))
        return True
    return False


def _block() -> Iterator[int]:
    """Yield the ports of a block again and again; a name that the kernel frees at our end says that it is ours."""
    for first in range(FIRST, LAST, BLOCK):
        with socket.socket(socket.AF_UNIX) as mark, suppress(OSError):
            mark.bind(f"\0mayfly-tests-ports-{first}")
            yield from itertools.cycle(range(first, first + BLOCK))
    raise RuntimeError(f"{(LAST - FIRST) // BLOCK} processes of the tests run at once")


_PORTS = _block()
_LOCK = threading.Lock()
