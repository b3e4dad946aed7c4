"""Watches an event loop: `watched.py REPORT ARGUMENT...` runs `mayfly ARGUMENT...` in this process.

The report is JSON: `stall`, the longest time in seconds between two looks at what is ready, in which nothing else
had its turn; `busy`, the most CPU seconds of the loop's thread in such a time, which other programs do not
lengthen; `own`, CPU seconds of this process without those that it started; `peak`, its memory in MB of 2**20 bytes.
"""

import asyncio
import json
import resource
import selectors
import sys
from pathlib import Path
from time import monotonic, process_time, thread_time
from typing import NoReturn


class _Selector(selectors.EpollSelector):
    """Every turn of the loop asks it once: what lies between two questions was spent in callbacks."""

    stall = busy = 0.0
    _since: tuple[float, float] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._since is not None:
            began, used = self._since
            _Selector.stall = max(_Selector.stall, monotonic() - began)
            _Selector.busy = max(_Selector.busy, thread_time() - used)
        ready = super().select(timeout)
        self._since = monotonic(), thread_time()
        return ready


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(_Selector())


def watch() -> None:
    """Watch the event loops that are made from now on."""
    asyncio.set_event_loop_policy(_Policy())


def seen() -> dict[str, float]:
    """Return what was seen since then."""
    return {
        "stall": _Selector.stall,
        "busy": _Selector.busy,
        "own": process_time(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main(report: Path, arguments: list[str]) -> None:
    """Run the program as it is, and write the report before it ends."""
    watch()
    import agent.cli  # noqa: PLC0415 -- as late as the program itself imports it

    leave = agent.cli.leave

    def written(code: int) -> NoReturn:
        report.write_text(json.dumps(seen()))
        leave(code)

    agent.cli.leave = written  # the program ends there, in no other way
    sys.argv[1:] = arguments
    agent.cli.main()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
