"""The claim for a slot, in the bucket: of all machines that are started for one time, one works.

The rules are in `agent.core.slots`. Where the store honours conditions, whoever creates the next numbered claim has the
slot. Where it does not, each claimant puts a claim under its own name, waits until the others' would be seen, and the
first by the store's own clock has it.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from agent.base.errors import StoreConflict, StoreError
from agent.bucket.store import Bucket
from agent.core.layout import (
    INDEX,
    INDEX_OVERLAP,
    named_slot_key,
    parse_index_key,
    slot_key,
    slot_prefix,
)
from agent.core.manifest import IndexEntry
from agent.core.slots import (
    Claim,
    Found,
    Scene,
    Witness,
    lost_to,
    next_number,
    number_of,
    oldest_start,
    read_claim,
    tag_may_change,
    why_not,
    winner,
)
from agent.machine.instance import HostFacts
from agent.machine.metadata import read_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.base.logs import Log
    from agent.core.results import RunStatus

CLAIM_SECONDS = 90.0
"""For the whole claim; then the run works without one, because a lost day is worse than two runs of one."""
SETTLE_SECONDS = 5.0
"""Where the store ignores conditions: what it has stamped is in its listings after this, and its own clocks differ by
less than half of it."""
ROUNDS = 8
"""Of looking again, after others came first or what was written did not show yet."""
MOST_CLAIMS = 1000
"""That are read of one slot; only a broken schedule makes more."""
TAG_POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Settled:
    """How a run stands to its slot.

    Attributes:
        slot: The scheduled time; None for a run that has none.
        why_not: Why this run stands back; empty when it works.
        key: Of its claim; None when it works without one.
        warning: What a person should know of it; may be empty.
    """

    slot: datetime | None = None
    why_not: str = ""
    key: str | None = None
    warning: str = ""


async def slot_of_tag(
    facts: HostFacts | None, booted: datetime | None, environ: "Mapping[str, str]", log: "Log"
) -> datetime | None:
    """Return the slot that the machine's tag names; waits, bounded, where the tag may be the last slot's still."""
    slot = facts.slot if facts else None
    while slot is not None and tag_may_change(slot, booted, datetime.now(UTC)):
        log.info("slot.tag_is_old", slot=slot.isoformat())
        await asyncio.sleep(TAG_POLL_SECONDS)
        again = await read_facts(environ, log)
        slot = again.slot if again and again.slot else slot
    return slot


async def claim_slot(
    bucket: Bucket,
    name: str,
    own: Claim,
    *,
    conditional: bool,
    dead: frozenset[str],
    settle: float = SETTLE_SECONDS,
) -> Settled:
    """Claim a slot; of several claimants one gets an answer without `why_not`.

    Args:
        bucket: The bucket.
        name: The slot's, from `slot_name`.
        own: What this run claims.
        conditional: Whether the store honours conditions, as was seen.
        dead: Uncommitted runs of the own state directory, whose lock the caller holds.
        settle: Seconds after which a listing shows what was written, where the store ignores conditions.

    Raises:
        StoreError: The bucket failed, or others came first again and again.
    """
    desk = _Desk(bucket, name, own, dead)
    return await (desk.claim_number() if conditional else desk.claim_name(settle))


class _Desk:
    def __init__(self, bucket: Bucket, name: str, own: Claim, dead: frozenset[str]) -> None:
        self._bucket = bucket
        self._name = name
        self._own = own
        self._dead = dead
        self._data = own.model_dump_json(indent=1).encode()

    async def claim_number(self) -> Settled:
        for _ in range(ROUNDS):
            scene = await self._look()
            reason = why_not(scene, self._witness())
            if reason:
                return Settled(why_not=reason)
            key = slot_key(self._name, next_number(scene))
            try:
                await self._bucket.create(key, self._data)
            except StoreConflict:
                continue
            return Settled(key=key)
        raise StoreError(f"others claimed {self._name} {ROUNDS} times before this run")

    async def claim_name(self, settle: float) -> Settled:
        reason = why_not(await self._look(), self._witness())
        if reason:
            return Settled(why_not=reason)
        key = named_slot_key(self._name, self._own.run_id)
        # A name of its own: nobody overwrites it, and an attempt that arrives late changes nobody else's.
        await self._bucket.create(key, self._data)
        for _ in range(ROUNDS):
            await asyncio.sleep(settle)
            first = winner(await self._look(), self._witness())
            if first is None:
                continue
            if first.run_id == self._own.run_id:
                return Settled(key=key)
            # It would hold the slot, should the winner die and start again.
            await self._bucket.delete([key])
            return Settled(why_not=lost_to(first))
        raise StoreError(f"the bucket does not list {key}, which it accepted")

    def _witness(self) -> Witness:
        return Witness(self._own, self._dead, datetime.now(UTC))

    async def _look(self) -> Scene:
        first = slot_key(self._name)
        prefix = slot_prefix(self._name)
        below = []
        async for item in self._bucket.list(prefix):
            below.append((item.key, item.written))
            if len(below) == MOST_CLAIMS:
                break
        content = await self._bucket.get(first)
        named: list[Found] = []
        numbered: list[Found] = []
        if content is not None:
            # Its time is of no interest: numbers tell who came first.
            numbered.append(Found(first, datetime.min.replace(tzinfo=UTC), read_claim(content), 1))
        for key, written in sorted(below):
            number = number_of(key)
            found = Found(key, written, read_claim(await self._bucket.get(key)), number)
            (numbered if number else named).append(found)
        scene = Scene(numbered, named)
        return Scene(numbered, named, await self._committed(scene.claims))

    async def _committed(self, claims: list[Claim]) -> "dict[str, RunStatus]":
        """Return what became of the claims' runs that are committed; an entry that nobody can read says nothing."""
        since = oldest_start(claims)
        if since is None:
            return {}
        wanted = {claim.run_id for claim in claims}
        after = f"{INDEX}{since - INDEX_OVERLAP - timedelta(hours=1):%Y%m%dT%H%M%S}"
        found = {}
        async for item in self._bucket.list(INDEX, after=after):
            key = parse_index_key(item.key)
            if key is None or key.run not in wanted:
                continue
            try:
                entry = IndexEntry.model_validate_json(await self._bucket.get(key.key) or b"")
            except ValidationError:
                continue
            found[key.run] = entry.status
        return found
