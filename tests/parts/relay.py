"""Carries one TCP connection between a guest and a port of this machine; QEMU starts it for each (`guestfwd=`).

`python -S -E relay.py PORT`, with the guest's end as standard input and output. It imports no more than it needs,
because every connection waits for it.
"""

import os
import socket
import sys
import threading

CHUNK = 65536


def main(port: int) -> None:
    """Carry bytes both ways until both have ended; ends at once when nobody listens, as a refused connection would."""
    try:
        link = socket.create_connection(("127.0.0.1", port), timeout=10)
    except OSError:
        return
    link.settimeout(None)
    threading.Thread(target=send, args=(link,), daemon=True).start()
    while data := link.recv(CHUNK):
        while data:
            data = data[os.write(1, data) :]


def send(link: socket.socket) -> None:
    """Carry what the guest sends."""
    try:
        while data := os.read(0, CHUNK):
            link.sendall(data)
        link.shutdown(socket.SHUT_WR)
    except OSError:
        return


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except OSError:
        os._exit(0)
