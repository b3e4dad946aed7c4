"""Slots: of all machines that are started for one scheduled time, one works. Decisions, without effects.

Why it holds, and where its limits are: docs/decisions/0085-one-machine-for-a-slot.md.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from agent.core.results import Record, RunStatus

STALE_TAG = timedelta(minutes=5)
"""A tag this much older than the boot may be the last slot's: in mode stopped a second schedule writes it, and each
schedule is exact to a minute only."""
TAG_COMES_WITHIN = timedelta(seconds=75)
"""After the boot, for such a tag: the minute by which two schedules may differ, and some for the call itself."""
CLOCKS = timedelta(minutes=5)
"""By how much the clocks of two machines may differ; a claim counts for so long after its deadline."""

_SLOT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_NUMBER = re.compile(r"/([1-9][0-9]{0,5})\.json\Z", re.ASCII)


class Claim(Record):
    """Says who works for a slot; the content of `slots/...`."""

    version: int = 1
    run_id: str
    claimed: datetime
    deadline: datetime
    host: str
    instance_id: str | None = None
    boot_id: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A claim in the bucket.

    Attributes:
        key: Where it is.
        written: When, by the store's clock.
        claim: None when nobody can read it: it holds nothing.
        number: Of a numbered claim, from 1.
    """

    key: str
    written: datetime
    claim: Claim | None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of a slot at one moment.

    Attributes:
        numbered: The claims that were put on condition that there was none, first, second, ...
        named: The claims that bear their run's name, of machines whose store ignores conditions.
        committed: Of the claims' runs, those that have an index entry, and what became of them.
    """

    numbered: Sequence[Found] = ()
    named: Sequence[Found] = ()
    committed: Mapping[str, RunStatus] = field(default_factory=dict)

    @property
    def claims(self) -> list[Claim]:
        """Return every claim that can be read."""
        return [one.claim for one in (*self.numbered, *self.named) if one.claim is not None]


@dataclass(frozen=True, slots=True)
class Witness:
    """What a claimant knows besides the bucket.

    Attributes:
        claim: Its own.
        dead: Runs of its own state directory that were not committed: it holds the directory's lock, so they are dead.
        now: Its clock.
    """

    claim: Claim
    dead: frozenset[str]
    now: datetime


def slot_name(slot: datetime, *, shard: int | None = None, shards: int | None = None) -> str:
    """Return what a slot is called in keys: `20261122T180000Z`, and `20261122T180000Z-3-of-8` for shard 3 of 0 to 7."""
    name = f"{slot.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    return name if shard is None else f"{name}-{shard}-of-{shards}"


def parse_slot(text: str) -> datetime | None:
    """Return the time that somebody names as a slot, to the second; None when it is not ISO 8601 with a zone."""
    if _SLOT.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        return None


def read_claim(content: bytes | None) -> Claim | None:
    """Return the claim in an object; None when there is none that can be understood."""
    try:
        claim = Claim.model_validate_json(content or b"")
    except ValidationError:
        return None
    return claim if claim.deadline.tzinfo is not None else None


def tag_may_change(slot: datetime, booted: datetime | None, now: datetime) -> bool:
    """Tell whether a slot's tag may be the last slot's, with this boot's own still to come."""
    if booted is None:
        return False
    return slot < booted - STALE_TAG and now < booted + TAG_COMES_WITHIN


def is_over(claim: Claim, scene: Scene, witness: Witness) -> bool:
    """Tell whether whoever claimed will do nothing more for the slot; true once, it is true for ever."""
    own = witness.claim
    rebooted = (
        claim.instance_id is not None
        and claim.instance_id == own.instance_id
        and None not in {claim.boot_id, own.boot_id}
        and claim.boot_id != own.boot_id
    )
    return (
        claim.run_id in scene.committed
        or claim.run_id in witness.dead
        or rebooted
        or claim.deadline + CLOCKS < witness.now
    )


def why_not(scene: Scene, witness: Witness) -> str:
    """Return why this machine has nothing to do for the slot; empty when it may claim it."""
    for claim in scene.claims:
        status = scene.committed.get(claim.run_id)
        if status is not None and status is not RunStatus.INTERRUPTED:
            return f"run {claim.run_id} has done it"
    for claim in scene.claims:
        if claim.run_id != witness.claim.run_id and not is_over(claim, scene, witness):
            return f"{_holder(claim)} works for it"
    return ""


def next_number(scene: Scene) -> int:
    """Return the number of the next conditional claim, from 1."""
    return max((one.number for one in scene.numbered), default=0) + 1


def number_of(key: str) -> int:
    """Return the number in the key of a numbered claim after the first; 0 for one that bears a name."""
    match = _NUMBER.search(key)
    return int(match.group(1)) if match else 0


def winner(scene: Scene, witness: Witness) -> Claim | None:
    """Return whose slot it is among those who named themselves: the first, by the store's clock, that is not over.

    None when not even the witness' own claim is there. Numbered claims do not count: this store overwrites them.
    """
    alive = [
        (one.written, one.claim.run_id, one.claim)
        for one in scene.named
        if one.claim is not None
        and (one.claim.run_id == witness.claim.run_id or not is_over(one.claim, scene, witness))
    ]
    if not any(run == witness.claim.run_id for _, run, _ in alive):
        return None
    return min(alive, key=lambda row: row[:2])[2]


def lost_to(claim: Claim) -> str:
    """Return why a claimant stands back that came second."""
    return f"{_holder(claim)} claimed it first"


def oldest_start(claims: Iterable[Claim]) -> datetime | None:
    """Return the earliest moment at which one of the claims was made."""
    return min((claim.claimed for claim in claims), default=None)


def _holder(claim: Claim) -> str:
    return f"run {claim.run_id} on {claim.instance_id or claim.host}"
