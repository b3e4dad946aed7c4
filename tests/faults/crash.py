"""`mayfly`, killed (SIGKILL) at a named point of its run.

    python -P crash.py MODULE:FUNCTION:EDGE:OCCURRENCE COUNTS FUNCTIONS ARGUMENTS...

The program runs as it is, with no hook in it: the interpreter tells of each call (`sys.settrace`), and only the named
functions are traced. EDGE is `enter`, `leave` (it returned; of a coroutine, at its real end) or `yield` (a context
manager is open). An occurrence of 0 never kills. COUNTS is a file for how often each point was passed, or `-`.
"""

import dis
import json
import os
import runpy
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_RETURNS = frozenset(
    dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in dis.opmap
)
_RESUME = dis.opmap["RESUME"]
_YIELDS = (dis.opmap["YIELD_VALUE"], _RESUME)
"""Where a generator stands that has yielded; the second since Python 3.13, where it will go on."""
_SOURCES = f"{os.sep}agent{os.sep}"


def _place(code: CodeType) -> str | None:
    """Return `agent.delivery.spool:SpooledRun.save` for a function of the agent."""
    if _SOURCES not in code.co_filename:
        return None
    module = code.co_filename.rpartition(_SOURCES)[2].removesuffix(".py").replace(os.sep, ".")
    return f"agent.{module}:{code.co_qualname}"


class Killer:
    """Counts the points that the program passes, and ends it at one of them."""

    def __init__(self, point: str, counts: str, places: frozenset[str]) -> None:
        wanted, _, number = point.rpartition(":")
        self._wanted, self._number = wanted, int(number)
        self._counts = None if counts == "-" else Path(counts)
        self._places = places
        self._passed: Counter[str] = Counter()
        self._known: dict[CodeType, str | None] = {}
        self._lock = threading.Lock()

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        """Be told of a call, by the interpreter."""
        code = frame.f_code
        if code not in self._known:
            place = _place(code)
            self._known[code] = place if place in self._places else None
        place = self._known[code]
        if place is None:
            return None
        frame.f_trace_lines = False
        operation = frame.f_code.co_code[frame.f_lasti]
        if event == "call":
            # A coroutine is called again whenever it goes on; only where it begins is the argument of RESUME 0.
            if operation == _RESUME and code.co_code[frame.f_lasti + 1] & 3 == 0:
                self._pass(f"{place}:enter")
        elif event == "return" and operation in _RETURNS:
            self._pass(f"{place}:leave")
        elif event == "return" and operation in _YIELDS and arg is None:
            self._pass(f"{place}:yield")
        return self.trace

    def _pass(self, point: str) -> None:
        with self._lock:
            self._passed[point] += 1
            if point == self._wanted and self._passed[point] == self._number:
                os.kill(os.getpid(), signal.SIGKILL)
            if self._counts is not None:
                self._counts.write_text(json.dumps(self._passed))


def main() -> None:
    """Run the agent's command line under the eyes of a killer."""
    point, counts, listed, *arguments = sys.argv[1:]
    killer = Killer(point, counts, frozenset(listed.split(",")))
    sys.argv[1:] = arguments
    threading.settrace(killer.trace)
    sys.settrace(killer.trace)
    runpy.run_module("agent", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
