"""What a reader of text must not do: write, delete, connect, start. The interpreter itself reports it (audit hooks).

Such a hook can't be taken away again, and while there is one, threads that start at once under a tracer (coverage) can
fail: CPython refuses the second `sys.settrace` during the first's audit. So only programs of their own watch, never the
runner of tests. `python -m tests.faults.effects FOLDER` shows what the watch sees.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

INPUT_SECONDS = 10
"""No input may take more of a processor's time to be read; usual is a millisecond. A busy machine takes any time
by the clock; what waits for anything but a processor is ended by the runner of tests."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = (
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.exec", "os.fork", "os.posix_spawn", "os.system", "os.kill"),
    *("socket.", "subprocess.", "shutil.", "tempfile.", "urllib.Request", "sqlite3.connect"),
    *("ctypes.dlopen", "pty.spawn", "webbrowser.open"),
)


class EffectError(AssertionError):
    """A reader of text did more than read."""


class HangError(AssertionError):
    """A reader of text did not come to an end."""


class _Watch:
    """The hook stays for as long as the interpreter; it is cheap while nobody watches."""

    def __init__(self) -> None:
        self.hooked = False
        self.armed = False
        self.seen = ""

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event == "open":
            flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
            if flags & _WRITING:
                self.seen = f"open {args[0]!r}"
        elif event.startswith(_FORBIDDEN):
            self.seen = f"{event} {args!r}"[:300]


_WATCH = _Watch()


@contextmanager
def watched(seconds: float = INPUT_SECONDS) -> Iterator[None]:
    """Watch what happens within.

    Args:
        seconds: Of the processor, that it may take; 0 where somebody else sees to that.

    Raises:
        EffectError: There was an effect.
        HangError: It did not end within `seconds`.
    """
    if not _WATCH.hooked:
        sys.addaudithook(_WATCH.hook)
        _WATCH.hooked = True
    _WATCH.seen, _WATCH.armed = "", True
    try:
        with _limited(seconds) if seconds else nullcontext():
            yield
    finally:
        _WATCH.armed = False
    if _WATCH.seen:
        raise EffectError(_WATCH.seen)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    before = signal.signal(signal.SIGPROF, _too_long)
    timer = signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        # What watched before us, such as the runner of tests, goes on.
        signal.signal(signal.SIGPROF, before)
        signal.setitimer(signal.ITIMER_PROF, *timer)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise HangError("not read in time")


def main() -> None:
    """Do what a reader may, and then what it must not; print as JSON what the watch said of each."""
    folder = Path(sys.argv[1])
    seen = {
        "reads a file": _said(Path(__file__).read_bytes),
        "writes a file": _said(lambda: (folder / "file").write_bytes(b"")),
        "starts a program": _said(lambda: subprocess.run(["true"], check=True)),
        "does not end": _said(lambda: all(number >= 0 for number in itertools.count()), 0.2),
    }
    print(json.dumps(seen))


def _said(action: Callable[[], object], seconds: float = INPUT_SECONDS) -> str:
    try:
        with watched(seconds):
            action()
    except (EffectError, HangError) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
