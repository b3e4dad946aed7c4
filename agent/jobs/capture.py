"""A job's stdout and stderr: always drained, kept within a limit, redacted, and logged."""

import codecs
from asyncio import StreamReader
from collections import deque
from io import FileIO
from pathlib import Path

from agent.base.logs import Log
from agent.base.redact import Redactor

CHUNK = 64 * 1024
LONGEST_LINE = 16 * 1024
"""Longer lines are handled in pieces, so that a job without line ends cannot fill the memory."""
HELD_BACK = 4096
"""The end of such a piece waits for what follows: a secret up to this length is never cut in two."""
LOGGED_LINES = 500
"""Lines of an attempt that go to the run's log; the file keeps more."""
LOGGED_CHARACTERS = 2000
TAIL_LINES = 200
"""Kept for the reason of a failure: the stacks of Java, Go and Chrome are long, and it stands above them."""


class Capture:
    """Keeps what a job writes in a file: the first half and the last half, when that is more than `limit` bytes.

    It works on blocks of whole lines, because a job may write millions of lines; only what is logged is split.

    Attributes:
        total: Bytes written by the job.
        tail: Its last lines, redacted.
        lost: Why the file does not have all that it should; empty when it does.
    """

    def __init__(self, path: Path, limit: int, redactor: Redactor, log: Log) -> None:
        self._path = path
        self._half = limit // 2
        self._redactor = redactor
        self._log = log
        self._file: FileIO | None = None
        self._early = 0
        self._late: deque[bytes] = deque()
        self._late_kept = 0
        self._late_seen = 0
        self._lines = 0
        self.total = 0
        self.lost = ""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    async def drain(self, stream: StreamReader) -> None:
        """Read a stream to its end; everything that was read is in the file even when this is cancelled.

        When the disk is full it goes on reading, so that the job does not stall.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""
        try:
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            self.lost = error.strerror or str(error)
        try:
            while chunk := await stream.read(CHUNK):
                self.total += len(chunk)
                text = self._redactor.text(rest + decoder.decode(chunk))
                end = _end_of_block(text)
                block, rest = text[:end], text[end:]
                if block:
                    self._take(block)
        finally:
            rest = self._redactor.text(rest + decoder.decode(b"", final=True))
            if rest:
                self._take(f"{rest}\n")
            self._close()

    def _write(self, data: bytes) -> None:
        """Write to the file, if there is one; a disk that does not take it sets `lost`."""
        rest = memoryview(data)
        try:
            # A disk that is nearly full takes a part, and says why only then.
            while rest and self._file:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.lost = error.strerror or str(error)

    def _take(self, block: str) -> None:
        block = block.replace("\r\n", "\n")
        self._log_lines(block)
        last = block.removesuffix("\n").rsplit("\n", TAIL_LINES)[-TAIL_LINES:]
        self.tail.extend(map(_both_ends, last))
        data = block.encode()
        room = self._half - self._early
        if len(data) <= room:
            self._write(data)
            self._early += len(data)
            return
        end = (data.rfind(b"\n", 0, room) + 1) or len(_whole_characters(data[:room]))
        self._write(data[:end])
        self._early = self._half
        self._late.append(data[end:])
        self._late_kept += len(data) - end
        self._late_seen += len(data) - end
        while self._late and self._late_kept - len(self._late[0]) >= self._half:
            self._late_kept -= len(self._late.popleft())

    def _close(self) -> None:
        """Write the last half, which is known only now."""
        late = b"".join(self._late)
        if len(late) > self._half:
            late = late[len(late) - self._half :]
            late = _whole_characters(late[late.find(b"\n", 0, len(late) - 1) + 1 :])
        if left_out := self._late_seen - len(late):
            self._write(f"\n[... {left_out} bytes left out ...]\n".encode())
        self._write(late)
        if self._file:
            self._file.close()

    def _log_lines(self, block: str) -> None:
        room = LOGGED_LINES - self._lines
        if room < 0:
            return
        lines = block.removesuffix("\n").split("\n", room)
        for line in lines[:room]:
            self._log.info("job.output", line=line[:LOGGED_CHARACTERS])
        self._lines += len(lines)
        if len(lines) > room:
            self._log.info("job.output_left_out", after_lines=LOGGED_LINES)


def _end_of_block(text: str) -> int:
    """Return the end of the last whole line; in a line that is too long, the end of a piece."""
    end = text.rfind("\n") + 1
    return end if len(text) - end <= LONGEST_LINE else len(text) - HELD_BACK


def _both_ends(line: str) -> str:
    """Return a line of at most `LOGGED_CHARACTERS`: an exception begins it, a progress bar's last state ends it."""
    half = LOGGED_CHARACTERS // 2
    return line if len(line) <= LOGGED_CHARACTERS else f"{line[:half]}{line[-half:]}"


def _whole_characters(data: bytes) -> bytes:
    """Return UTF-8 without incomplete characters."""
    return data.decode(errors="ignore").encode()
