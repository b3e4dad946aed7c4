"""Names of runs, processes, schedules and batches, and the stamps that make keys sort by time. Decisions only."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Self

MOST_SHARDS = 100_000
"""Completions of an Indexed Job that Kubernetes accepts; AWS Batch ends at 10,000."""
COUNT_TAG = "mayfly-shards"
"""Instance tag of an EC2 fleet; the launch index alone says nothing, because every instance has one."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Times outside are invalid: arithmetic with them could leave the range of `datetime`."""

# ASCII digits only, and always with `fullmatch`: `$` would let a final line break pass.
RUN = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"
NONCE = r"[0-9a-f]{8}"
SCHEDULE = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
JOB = SCHEDULE
"""Also the name of a folder, a container and a unit."""
GROUP = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?"
STAMP = r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z"
_SLOT = r"[0-9]{8}T[0-9]{6}Z"
_SHARD = rf"({GROUP})\.(0|[1-9][0-9]{{0,4}})-of-([1-9][0-9]{{0,5}})"
BATCH = rf"(?:{RUN}|{_SLOT}|{GROUP}\.[0-9]{{1,5}}-of-[0-9]{{1,6}})"

_SECONDS = "%Y%m%dT%H%M%SZ"


class Shard(NamedTuple):
    """A part of a batch.

    Attributes:
        group: What the shards of one batch have in common.
        shard: This one, from 0.
        shards: How many there are.
    """

    group: str
    shard: int
    shards: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What may be tried more than once and must be done once.

    Attributes:
        schedule: The name of the schedule that it belongs to: batches of two schedules never meet.
        name: A slot's time, a shard of a group, or the id of a run that is a batch by itself.
    """

    schedule: str
    name: str

    @classmethod
    def of_slot(cls, schedule: str, slot: datetime) -> Self:
        """Return the batch of a scheduled time, to the second."""
        return cls(schedule, f"{slot.astimezone(UTC):{_SECONDS}}")

    @classmethod
    def of_shard(cls, schedule: str, group: str, shard: int, shards: int) -> Self:
        """Return the batch of one shard (from 0) of a group."""
        return cls(schedule, f"{group}.{shard}-of-{shards}")

    @classmethod
    def of_run(cls, schedule: str, run: str) -> Self:
        """Return the batch of a run by itself."""
        return cls(schedule, run)

    @property
    def slot(self) -> datetime | None:
        """The scheduled time; None for a batch of another kind."""
        return _time(self.name) if re.fullmatch(_SLOT, self.name) else None

    @property
    def shard(self) -> Shard | None:
        """The shard that it is; None for a batch of another kind."""
        match = re.fullmatch(_SHARD, self.name)
        if match is None:
            return None
        shard, shards = int(match[2]), int(match[3])
        return Shard(match[1], shard, shards) if shard < shards <= MOST_SHARDS else None

    @property
    def valid(self) -> bool:
        """Whether schedule and name have the form that keys need."""
        named = is_run_id(self.name) or self.slot is not None or self.shard is not None
        return named and re.fullmatch(SCHEDULE, self.schedule) is not None


def run_id(started: datetime, entropy: bytes) -> str:
    """Return the id of a run that began at `started` (aware), told apart by three bytes of `entropy`."""
    return f"{started.astimezone(UTC):{_SECONDS}}-{entropy[:3].hex()}"


def process_nonce(entropy: bytes) -> str:
    """Return what tells a process from every other that writes for the same run: four bytes of `entropy`."""
    return entropy[:4].hex()


def is_run_id(text: str) -> bool:
    """Tell whether `text` is a run id."""
    return re.fullmatch(RUN, text) is not None and _time(text[:16]) is not None


def run_started(run: str) -> datetime:
    """Return when a run began, to the second, by its writer's clock.

    Raises:
        ValueError: `run` is not a run id.
    """
    started = _time(run[:16]) if re.fullmatch(RUN, run) else None
    if started is None:
        raise ValueError(f"not a run id: {run!r}")
    return started


def stamp(moment: datetime) -> str:
    """Return `20261122T064817.123Z`: UTC with milliseconds, so that the order of texts is that of times."""
    utc = moment.astimezone(UTC)
    return f"{utc:%Y%m%dT%H%M%S}.{utc.microsecond // 1000:03d}Z"


def parse_stamp(text: str) -> datetime | None:
    """Return the time of a stamp; None for a text that is not one."""
    if re.fullmatch(STAMP, text) is None:
        return None
    return _time(text)


def _time(text: str) -> datetime | None:
    """Return the time of a text that has the right form; there may be no such day."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if EARLIEST <= time <= LATEST else None
