"""`python -m demo_site --port 0`: serve the demo site until SIGTERM, and say where."""

import argparse
import signal
import threading
from types import FrameType

from demo_site.server import DemoServer


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m demo_site", description=__doc__)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8787, help="0 picks a free one (default: %(default)s)"
    )
    options = parser.parse_args()
    with DemoServer((options.host, options.port)) as server:

        def stop(_signal: int, _frame: FrameType | None) -> None:
            # shutdown() waits for the loop that this handler interrupts: it needs a thread of its own.
            threading.Thread(target=server.shutdown, daemon=True).start()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        host, port = server.server_address[:2]
        print(f"listening on http://{host!s}:{port}/", flush=True)
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
