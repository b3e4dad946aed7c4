"""Puts the run's log in parts while it grows: they are signs of life, and all that is known of a run that is lost."""

import asyncio
import hashlib
from collections.abc import Iterator
from functools import partial
from time import monotonic

from agent.base.errors import StoreError
from agent.base.logs import Log
from agent.bucket.store import Bucket
from agent.contract.entries import Object
from agent.contract.layout import LogKey
from agent.delivery.database import fenced
from agent.delivery.prepare import put_surely
from agent.delivery.spool import LogPart, SpooledRun

NEWS_SECONDS = 60.0
"""Between two looks whether the log has grown."""
SILENCE_SECONDS = 300.0
"""A part is put after so long, even without news: a run that is silent for ten minutes has lost its batch."""
MOST_BYTES = 4 * 1024**2
"""Of one part."""

CUT, PUT, TOLD = range(3)


class LogParts:
    """Cuts the log at ends of lines and puts the parts. What the log holds has no secrets any more.

    A part is written down before it is put: whoever goes on puts the same bytes under its key, or takes the next.
    Its methods raise `StoreError` when the bucket fails, and `OSError` when the disk refuses.
    """

    def __init__(
        self,
        run: SpooledRun,
        bucket: "asyncio.Future[Bucket]",
        log: Log,
        *,
        news: float = NEWS_SECONDS,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self._run = run
        self._bucket = bucket
        self._log = log
        self._news = news
        self._silence = silence
        self._turn = asyncio.Lock()
        self._last: float | None = None
        self._over = False

    @property
    def due(self) -> bool:
        """Whether a commit takes a part along: the last one is a minute old."""
        return self._last is None or monotonic() - self._last >= self._news

    async def keep_putting(self) -> None:
        """Put parts until it is cancelled; a part that fails is put with the next."""
        began = monotonic()
        while True:
            await asyncio.sleep(self._news)
            if monotonic() - (self._last or began) >= self._silence - self._news / 2:
                self._log.info("run.alive")
            try:
                await self.put()
            except (StoreError, OSError) as error:
                self._log.warning("log.postponed", reason=str(error))

    async def put(self) -> None:
        """Put what is new in the log; nothing more after `put_last`, or once the run's end is sealed."""
        async with self._turn:
            await self._put()

    async def put_last(self) -> list[Object]:
        """Put the rest of the log, and nothing that comes after it, and return all parts that are in the bucket."""
        async with self._turn:
            await self._put()
            self._over = True
            parts = await asyncio.to_thread(self._run.parts)
            return [self._object(part) for part in parts if part.stage != CUT]

    async def _put(self) -> None:
        if self._over or await asyncio.to_thread(lambda: self._run.closing) is not None:
            return
        bucket = await asyncio.shield(self._bucket)
        for part in await fenced(self._unsent):
            key, data = self._key(part), await asyncio.to_thread(self._read, part)
            if hashlib.sha256(data).hexdigest() == part.sha256:
                await put_surely(bucket, key, len(data), partial(bucket.put, key, data))
                await self._note(part, PUT)
            elif await bucket.size(key) == part.stop - part.start:
                # A power cut took the end of the file; the part had arrived.
                await self._note(part, PUT)
            self._last = monotonic()

    async def told(self, parts: list[Object]) -> None:
        """Note that the batch's log names parts."""
        keys = {part.key for part in parts}
        for part in await asyncio.to_thread(self._run.parts):
            if self._key(part) in keys:
                await self._note(part, TOLD)

    async def untold(self) -> list[Object]:
        """Return the parts that are in the bucket and that the batch's log does not name."""
        parts = await asyncio.to_thread(self._run.parts)
        return [self._object(part) for part in parts if part.stage == PUT]

    def _unsent(self) -> list[LogPart]:
        """Return the parts that are not in the bucket, after cutting what is new."""
        parts = self._run.parts()
        waiting = [part for part in parts if part.stage == CUT]
        for part in self._cut(parts[-1] if parts else None):
            self._run.cut_part(part)
            waiting.append(part)
        return waiting

    def _cut(self, last: LogPart | None) -> Iterator[LogPart]:
        number, start = (last.number + 1, last.stop) if last else (0, 0)
        try:
            stream = self._run.log.open("rb")
        except FileNotFoundError:
            return
        with stream:
            stream.seek(start)
            while data := stream.read(MOST_BYTES):
                # A line that is being written waits; one that is longer than a part does not.
                end = data.rfind(b"\n") + 1 or (len(data) if len(data) == MOST_BYTES else 0)
                if not end:
                    return
                digest = hashlib.sha256(data[:end]).hexdigest()
                yield LogPart(number, start, start + end, digest, CUT)
                number, start = number + 1, start + end
                stream.seek(start)

    def _read(self, part: LogPart) -> bytes:
        try:
            with self._run.log.open("rb") as stream:
                stream.seek(part.start)
                return stream.read(part.stop - part.start)
        except FileNotFoundError:  # a power cut, too
            return b""

    async def _note(self, part: LogPart, stage: int) -> None:
        await fenced(self._run.cut_part, part._replace(stage=stage))

    def _key(self, part: LogPart) -> str:
        return LogKey(self._run.run, part.number).text

    def _object(self, part: LogPart) -> Object:
        return Object(key=self._key(part), bytes=part.stop - part.start, sha256=part.sha256)
