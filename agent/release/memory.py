"""What is known of a channel's releases, in the bucket: read at the start, appended to when something is learnt.

Each entry has a name of its own and never changes. Two readers of the same entries know the same
(`agent.release.known`). The file on the disk is a copy for the time when the bucket does not answer; it also holds what
was not sent yet.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.base import durable
from agent.base.errors import MayflyError, ReleaseError, StoreError, StoreRefused
from agent.base.logs import Log
from agent.base.regular import read_regular
from agent.batch.log import GETS_AT_ONCE, Listed, Source, Store
from agent.contract.entries import MOST_BYTES, Invalid, write_entry
from agent.contract.ids import process_nonce
from agent.contract.layout import ReleaseKey, channel_prefix, parse_key
from agent.contract.releases import (
    MOST_COVERED,
    WINDOW,
    Contact,
    Fact,
    Learnt,
    ReleaseEntry,
    Snapshot,
    Trial,
    TrialStage,
    facts_of,
    read_release_entry,
)
from agent.release.known import Known, compacted

READ_SECONDS = 30.0
"""Limit for opening and reading the bucket; after that, the disk's copy and the image's release are used."""
SEND_SECONDS = 10.0
"""Limit of a write or a refresh: the machine costs money meanwhile."""
PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts at a put; what fails then waits for the next `send`."""
SNAPSHOT_AFTER = 2
"""Entries that are read one by one before a snapshot of them is put."""
SNAPSHOT_AGE = timedelta(days=30)
"""A snapshot is renewed before it leaves the window that a reader lists."""
CONTACT_AGE = timedelta(hours=12)
"""That git still answers is noted after so long."""
MOST_LISTED = 20_000
MOST_COPY_BYTES = 64 * 1024**2
"""Of the file on the disk, which has what a snapshot has and what was not sent."""
OWN_RUNS = 20
_ORIGIN = {"at", "written", "run", "by"}
"""Fields of a fact that its entry has for all of its facts."""


class Copy(BaseModel):
    """The file on the disk.

    Attributes:
        place: Store and channel that it is about.
        facts: What was known.
        unsent: What was learnt and is not in the bucket.
        runs: Runs that used this disk: their trials that did not end have died.
        images: Browser images that releases brought here.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    place: str = ""
    facts: tuple[Fact, ...] = ()
    unsent: tuple[Fact, ...] = ()
    runs: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


@dataclass(slots=True)
class Channel:
    """What was read of a channel's entries, by their names.

    Attributes:
        base: The snapshot that the facts are added to.
        arrived: When each entry arrived.
        invalid: When each invalid entry arrived, and why it is invalid.
    """

    channel: str
    base: tuple[ReleaseKey, datetime, Snapshot] | None = None
    facts: dict[str, tuple[Fact, ...]] = field(default_factory=dict)
    arrived: dict[str, datetime] = field(default_factory=dict)
    invalid: dict[str, tuple[datetime, str]] = field(default_factory=dict)

    @property
    def known(self) -> tuple[Fact, ...]:
        """All facts that were read."""
        base = self.base[2].facts if self.base else ()
        return (*base, *(fact for some in self.facts.values() for fact in some))

    async def look(self, store: Source, now: datetime) -> None:
        """List the entries and get new ones: one LIST and a GET each, if a snapshot is in the window.

        Raises:
            StoreError: The store failed.
        """
        after = f"{channel_prefix(self.channel)}{now - WINDOW:%Y%m%dT%H%M%SZ}"
        listed = await self._listed(store, after)
        if not await self._take_base(store, listed):
            listed = await self._listed(store, None)
            await self._take_base(store, listed)
        new = [(key, item) for key, item in listed.items() if self._is_new(key, item)]
        for start in range(0, len(new), GETS_AT_ONCE):
            some = new[start : start + GETS_AT_ONCE]
            await asyncio.gather(*(self._read(store, key, item) for key, item in some))

    async def _listed(self, store: Source, after: str | None) -> dict[ReleaseKey, Listed]:
        found: dict[ReleaseKey, Listed] = {}
        async for item in store.list(channel_prefix(self.channel), after=after):
            key = parse_key(item.key)
            if isinstance(key, ReleaseKey) and key.channel == self.channel:
                found[key] = item
            if len(found) == MOST_LISTED:
                raise StoreError(
                    f"{channel_prefix(self.channel)} has more than {MOST_LISTED} entries"
                )
        return found

    async def _take_base(self, store: Source, listed: dict[ReleaseKey, Listed]) -> bool:
        """Take the newest valid snapshot; return whether there is one."""
        snapshots = [(item.written, key.name, key) for key, item in listed.items() if key.snapshot]
        for written, _, key in sorted(snapshots, reverse=True):
            if self.base and self.base[0] == key:
                return True
            if key.name in self.invalid:
                continue
            entry = await self._get(store, key, listed[key])
            if isinstance(entry, ReleaseEntry) and entry.snapshot:
                facts = tuple(fact for fact in entry.snapshot.facts if fact.at <= written)
                snapshot = entry.snapshot.model_copy(update={"facts": facts})
                self.base = (key, written, snapshot)
                return True
        return self.base is not None

    def _is_new(self, key: ReleaseKey, item: Listed) -> bool:
        if key.snapshot or key.name in self.facts or key.name in self.invalid:
            return False
        if self.base is None:
            return True
        snapshot = self.base[2]
        return item.written >= snapshot.since and key.name not in snapshot.covers

    async def _read(self, store: Source, key: ReleaseKey, item: Listed) -> None:
        entry = await self._get(store, key, item)
        if entry is not None:
            self.facts[key.name] = facts_of(entry, item.written)
            self.arrived[key.name] = item.written

    async def _get(self, store: Source, key: ReleaseKey, item: Listed) -> ReleaseEntry | None:
        if item.bytes > MOST_BYTES:
            self.invalid[key.name] = (item.written, f"it has {item.bytes} bytes")
            return None
        content = await store.get(key.text, limit=MOST_BYTES)
        if content is None:  # the listing is ahead of the objects; the next look has it
            return None
        entry = read_release_entry(key, content)
        if isinstance(entry, Invalid):
            self.invalid[key.name] = (item.written, entry.reason)
            return None
        return entry

    def snapshot(self, now: datetime) -> Snapshot | None:
        """Return a snapshot of what was read, if it is time for one."""
        old = self.base is not None and self.base[1] < now - SNAPSHOT_AGE
        if len(self.facts) < SNAPSHOT_AFTER and not old:
            return None
        # With a clock that is ahead, entries that nobody has seen must not count as covered.
        latest = max([*self.arrived.values(), *([self.base[1]] if self.base else [])])
        since = min(now, latest) - WINDOW
        # Entries of runs that began within the window may still be listed.
        begun = f"{since - WINDOW:%Y%m%dT%H%M%SZ}"
        covers = {name for name in (self.base[2].covers if self.base else ()) if name[:16] >= begun}
        covers |= {name for name, arrived in self.arrived.items() if arrived >= since}
        if len(covers) > MOST_COVERED:
            return None
        facts = compacted(self.known)
        return Snapshot(facts=facts, covers=tuple(sorted(covers)), since=since)


@dataclass(frozen=True, slots=True)
class Writer:
    """Who learns something.

    Attributes:
        run: The run, or a name of the same form for what an operator does.
        by: The machine, or the operator.
        deadline: When the run has ended, or died.
        quiet: Report only bad releases: of a thousand shards that begin together one reports the rest.
    """

    run: str
    by: str
    deadline: datetime
    quiet: bool = False


def read_copy(path: Path) -> Copy:
    """Return the copy on the disk; an empty one if there is no such file.

    Raises:
        ReleaseError: It is damaged.
    """
    try:
        return Copy.model_validate_json(read_regular(path, MOST_COPY_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return Copy()
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ReleaseError(f"{path} cannot be read: {reason}", remedy="remove it") from error


class Memory:
    """What one process knows of a channel's releases, and adds to it.

    Attributes:
        known: What is known.
        read: Whether it comes from the bucket; else it comes from the disk.
        problems: What a person should look at.
    """

    def __init__(
        self,
        channel: str,
        writer: Writer,
        *,
        copy: Path | None,
        place: str = "",
        now: Callable[[], datetime],
        log: Log,
        seconds: float = READ_SECONDS,
        redact: Callable[[ReleaseEntry], ReleaseEntry] = lambda entry: entry,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._channel = Channel(channel)
        self._writer = writer
        self._path = copy
        self._now = now
        self._log = log
        self._redact = redact
        self._seconds = seconds
        self._failed = False
        self._pause = pause
        self._opening: asyncio.Future[Store] | None = None
        self._nonce = process_nonce(os.urandom(4))
        self._number = 0
        self._sent: dict[str, tuple[Fact, ...]] = {}
        self.read = False
        self.problems: list[str] = []
        self._copy = self._load(f"{place} {channel}")
        self._unsent = list(self._copy.unsent)
        self._own: list[Fact] = []
        self.known = Known.of([*self._copy.facts, *self._unsent])

    def _load(self, place: str) -> Copy:
        copy = Copy()
        if self._path is not None:
            try:
                copy = read_copy(self._path)
            except ReleaseError as error:
                self._log.warning("releases.copy_damaged", reason=str(error))
        return copy if copy.place == place else Copy(place=place, images=copy.images)

    @property
    def _store(self) -> Store | None:
        """The bucket, once it is open; perhaps later than it was waited for."""
        opening = self._opening
        if opening is None or not opening.done() or opening.cancelled() or opening.exception():
            return None
        return opening.result()

    @property
    def run(self) -> str:
        """The run that learns."""
        return self._writer.run

    @property
    def dead(self) -> frozenset[str]:
        """Runs that used this disk before: the holder of its lock is the only one alive."""
        return frozenset(self._copy.runs) - {self._writer.run}

    @property
    def images(self) -> tuple[str, ...]:
        """Browser images that releases brought to this disk."""
        return self._copy.images

    def keep_images(self, images: Sequence[str]) -> None:
        """Set the browser images that releases brought to this disk."""
        self._save(images=tuple(dict.fromkeys(images)))

    async def open(self, store: Awaitable[Store] | None) -> None:
        """Read the bucket; if it does not answer, the disk's copy stays, and a problem says so."""
        if store is None:
            return
        try:
            await self.connect(store)
        except StoreError as error:
            self._failed = True
            reason = str(error)
            self._log.warning("releases.not_read", reason=reason)
            self.problems.append(
                f"what is known of releases could not be read from the bucket ({reason}): a pin, bad releases and the"
                " minimum version are as this machine or its image knows them"
            )

    async def connect(self, store: Awaitable[Store]) -> None:
        """Read the bucket.

        Raises:
            StoreError: It does not answer, or denies access.
        """
        self._opening = asyncio.ensure_future(store)
        try:
            async with asyncio.timeout(self._seconds):
                await asyncio.shield(self._opening)
                await self.refresh()
        except TimeoutError as error:
            raise StoreError(f"no answer within {self._seconds:g} s") from error
        except StoreError:
            raise
        except MayflyError as error:  # its keys are not available
            raise StoreError(str(error), remedy=error.remedy) from error

    async def refresh(self) -> None:
        """Read what was written meanwhile.

        Raises:
            StoreError: The bucket failed.
        """
        if self._store is None:
            return
        await self._channel.look(self._store, self._now())
        self.read = True
        for name in self._channel.facts.keys() & self._sent.keys():
            del self._sent[name]
        self._fold()
        self._warn_of_damage()
        self._save()

    async def look_again(self) -> None:
        """Refresh; a failure is only logged."""
        if not self._failed and (reason := await self._failure(self.refresh())):
            self._log.warning("releases.not_read", reason=reason)

    async def _failure(self, request: Awaitable[object]) -> str:
        """Return why the bucket did not do something in time; empty if it did."""
        seconds = min(SEND_SECONDS, self._seconds)
        try:
            async with asyncio.timeout(seconds):
                await request
        except (MayflyError, TimeoutError) as error:
            return str(error) or f"no answer within {seconds:g} s"
        return ""

    def _fold(self) -> None:
        read = self._channel.known if self.read else self._copy.facts
        sent = (fact for some in self._sent.values() for fact in some)
        self.known = Known.of([*read, *sent, *self._unsent, *self._own])

    def _warn_of_damage(self) -> None:
        """Warn of invalid entries, until an operator decides about releases again."""
        decided = self.known.pinned.at if self.known.pinned else None
        some = {
            name: reason
            for name, (arrived, reason) in self._channel.invalid.items()
            if decided is None or arrived > decided
        }
        if not some:
            return
        name, reason = min(some.items())
        text = (
            f"{len(some)} entries of {channel_prefix(self._channel.channel)} cannot be read, such as {name}.json"
            f" ({reason}): a pin or a bad release may be forgotten; mayfly release pin, unpin or rollback ends this"
            " warning"
        )
        if text not in self.problems:
            self._log.error("releases.damaged", reason=text)
            self.problems.append(text)

    def learn(self, **parts: Any) -> None:
        """Add facts. They are sent with the next `send`; a disk that is kept has them at once."""
        now = self._now()
        origin = {"at": now, "written": now, "run": self._writer.run, "by": self._writer.by}
        quiet = self._writer.quiet and "bad" not in parts
        (self._own if quiet else self._unsent).append(Fact.model_validate({**parts, **origin}))
        self._fold()
        self._save()

    def trial(self, commit: str, ref: str, stage: TrialStage) -> None:
        """Note how far this run came with a release."""
        deadline = self._writer.deadline
        self.learn(trial=Trial(commit=commit, ref=ref, stage=stage, deadline=deadline))

    def end_trials(self) -> None:
        """Note that the trials of this run ended in order, not with the machine."""
        for fact in self.known.facts:
            trial = fact.trial
            if trial and fact.run == self._writer.run and trial.stage.known is not TrialStage.ENDED:
                self.trial(trial.commit, trial.ref, TrialStage.ENDED)

    def contact(self, **changes: datetime | None) -> None:
        """Note whether git answered, or since when an older release runs; that all is well, once in `CONTACT_AGE`."""
        old = self.known.contact
        new = old.model_copy(update=changes)
        again = new.model_copy(update={"reached": old.reached}) == old
        since = new.reached - old.reached if new.reached and old.reached else CONTACT_AGE
        if new != old and not (again and since < CONTACT_AGE):
            self.learn(contact=Contact.model_validate(dict(new)))

    async def send(self, *, last: bool = False) -> None:
        """Put what was learnt; what fails stays on the disk for the next attempt.

        `last`: no later attempt follows in this run; only then is a bucket asked that did not answer before.
        """
        if self._store is None or not self._unsent or (self._failed and not last):
            return
        if reason := await self._failure(self._send(self._store)):
            self._failed = True
            self._log.error("releases.not_sent", reason=reason)
            text = "what was learnt about releases could not be written to the bucket, and a machine without a disk"
            if not any(problem.startswith(text) for problem in self.problems):
                self.problems.append(f"{text} forgets it: {reason}")

    async def write(self, **parts: Any) -> None:
        """Put an operator's decision.

        Raises:
            StoreError: It cannot be put.
        """
        self.learn(**parts)
        if self._store is None:
            raise StoreError("the bucket is not open")
        await self._send(self._store)

    async def _send(self, store: Store) -> None:
        # An entry has one time: of two facts about the same thing only the later one is sent. The other is forgotten
        # at once: sent later, by its time in the bucket it would replace the one that replaced it.
        self._unsent = list(compacted(self._unsent))
        facts = sorted(self._unsent, key=lambda fact: fact.run)
        # What an earlier run on this disk could not send is still that run's.
        for run, some in groupby(facts, key=lambda fact: fact.run):
            own = tuple(some)
            name = await self._put(store, run, own, snapshot=None)
            self._sent[name] = own
            self._unsent = [fact for fact in self._unsent if fact not in own]
            self._save()

    async def compact(self) -> None:
        """Put a snapshot of what was read, if reading it has become long; nothing depends on it."""
        snapshot = self._channel.snapshot(self._now()) if self.read else None
        if snapshot is None or self._store is None:
            return
        try:
            reason = await self._failure(self._put(self._store, self._writer.run, (), snapshot))
        except ValueError as error:  # it is larger than an entry may be
            reason = str(error)
        if reason:
            self._log.warning("releases.not_compacted", reason=reason)
        else:
            self._log.info("releases.compacted", facts=len(snapshot.facts))

    async def _put(
        self, store: Store, run: str, facts: Sequence[Fact], snapshot: Snapshot | None
    ) -> str:
        entry = ReleaseEntry(
            channel=self._channel.channel,
            run=run,
            nonce=self._nonce,
            written=max([fact.written for fact in facts], default=self._now()),
            by=facts[0].by if facts else self._writer.by,
            learnt=tuple(
                Learnt.model_validate(fact.model_dump(exclude_none=True, exclude=_ORIGIN))
                for fact in facts
            ),
            snapshot=snapshot,
        )
        data = write_entry(self._redact(entry))
        for pause in (*PAUSES, None):
            key = ReleaseKey(
                self._channel.channel, run, self._nonce, self._number, snapshot is not None
            )
            self._number += 1
            try:
                await store.put_once(key.text, data)
            except StoreError as error:
                if pause is None or isinstance(error, StoreRefused):
                    raise
                await self._pause(pause)
            else:
                return key.name
        raise AssertionError("the last attempt returns or raises")

    def _save(self, **changes: Any) -> None:
        """Keep a copy on the disk; a failure is only logged, the bucket has it."""
        runs = tuple(dict.fromkeys((*self._copy.runs, self._writer.run)))[-OWN_RUNS:]
        values = {"facts": self.known.facts, "unsent": tuple(self._unsent), "runs": runs, **changes}
        copy = self._copy.model_copy(update=values)
        if copy == self._copy:
            return
        self._copy = copy
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_atomic(self._path, copy.model_dump_json(exclude_none=True).encode())
        except OSError as error:
            self._log.warning("releases.no_copy", file=str(self._path), reason=str(error))
