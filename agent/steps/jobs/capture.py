"""A job's stdout and stderr: always drained, kept within a limit, redacted, and told to the log."""

from asyncio import StreamReader
from collections import deque
from collections.abc import Callable
from pathlib import Path

from agent.core.redact import Redactor
from agent.steps.logs import Log

CHUNK = 64 * 1024
LONGEST_LINE = 16 * 1024
"""Longer lines are cut here, so that a job without line ends cannot fill the memory."""
LOGGED_LINES = 500
"""Lines of an attempt that go to the run's log; the file keeps more."""
LOGGED_CHARACTERS = 2000
TAIL_LINES = 40


class Capture:
    """Keeps the first half and the last half of what a job writes, when that is more than the limit.

    Attributes:
        total: Bytes written by the job.
        tail: Its last lines, redacted.
    """

    def __init__(self, path: Path, limit: int, redactor: Redactor, log: Log) -> None:
        """Keep output in a file.

        Args:
            path: The file to write.
            limit: Its size in bytes, about.
            redactor: Hides secrets.
            log: Bound to job and attempt.
        """
        self._path = path
        self._half = limit // 2
        self._redactor = redactor
        self._log = log
        self._written = 0
        self._late: deque[bytes] = deque()
        self._late_bytes = 0
        self._left_out = 0
        self._lines = 0
        self.total = 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    async def drain(self, stream: StreamReader) -> None:
        """Read a stream to its end; everything that was read is in the file even when this is cancelled."""
        rest = b""
        with self._path.open("wb") as file:
            try:
                while chunk := await stream.read(CHUNK):
                    self.total += len(chunk)
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > LONGEST_LINE:
                        lines.append(rest)
                        rest = b""
                    for line in lines:
                        self._line(line, file.write)
            finally:
                if rest:
                    self._line(rest, file.write)
                if self._left_out:
                    file.write(f"[... {self._left_out} bytes left out ...]\n".encode())
                file.writelines(self._late)

    def _line(self, raw: bytes, write: Callable[[bytes], int]) -> None:
        text = self._redactor.text(raw[:LONGEST_LINE].decode(errors="replace").rstrip("\r"))
        self.tail.append(text)
        self._tell(text)
        line = text.encode() + b"\n"
        if self._written + len(line) <= self._half:
            self._written += write(line)
            return
        self._late.append(line)
        self._late_bytes += len(line)
        while self._late_bytes > self._half and len(self._late) > 1:
            dropped = len(self._late.popleft())
            self._late_bytes -= dropped
            self._left_out += dropped

    def _tell(self, text: str) -> None:
        self._lines += 1
        if self._lines <= LOGGED_LINES:
            self._log.info("job.output", line=text[:LOGGED_CHARACTERS])
        elif self._lines == LOGGED_LINES + 1:
            self._log.info("job.output_left_out", after_lines=LOGGED_LINES)
