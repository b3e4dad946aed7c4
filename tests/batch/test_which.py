"""Which batch a run is for."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.batch.which import Purpose
from agent.contract.entries import Began
from agent.contract.ids import Batch, Shard
from tests.batch.entries import A, began

SLOT = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("purpose", "name"),
    [
        (Purpose(), A),
        (Purpose(by_name=True), A),
        (Purpose(slot=SLOT), "20261122T180000Z"),
        (Purpose(slot=SLOT.astimezone(TOKYO)), "20261122T180000Z"),
        (Purpose(slot=SLOT.replace(microsecond=9)), "20261122T180000Z"),
        (Purpose(shard=Shard("monday", 1, 8), retried=True), "monday.1-of-8"),
        # An engine's job of one piece, and a fleet's machine: the slot is the group.
        (Purpose(shard=Shard("4f1e", 0, 1), retried=True), "4f1e.0-of-1"),
        (Purpose(slot=SLOT, shard=Shard("20261122T180000Z", 3, 8)), "20261122T180000Z.3-of-8"),
    ],
)
def test_a_run_is_for_its_shard_else_its_slot_else_itself(purpose: Purpose, name: str) -> None:
    """Each attempt at the same thing has the same batch."""
    assert purpose.batch(A) == Batch("main", name)
    assert purpose.unscheduled is (name == A)


@pytest.mark.parametrize(
    "purpose",
    [
        Purpose("Main"),
        Purpose("a.b", SLOT),
        Purpose(shard=Shard("a/b", 0, 1)),
        Purpose(shard=Shard("", 0, 1)),
        Purpose(shard=Shard("a", 8, 8)),
    ],
)
def test_a_name_that_no_key_can_hold_is_refused(purpose: Purpose) -> None:
    """Whoever names schedules and groups has checked them before."""
    with pytest.raises(ValueError, match="cannot be a batch"):
        purpose.batch(A)


@given(
    st.sampled_from([None, SLOT]),
    st.none()
    | st.integers(1, 50).flatmap(
        lambda shards: st.builds(Shard, st.just("g.1"), st.integers(0, shards - 1), st.just(shards))
    ),
)
def test_what_a_beginning_tells_is_valid_and_names_the_batch(
    slot: datetime | None, shard: Shard | None
) -> None:
    """Home knows by it what is complete, and what is late; a copy of a model is not checked when it is made."""
    purpose = Purpose("main", slot, shard)
    batch = purpose.batch(A)
    said = Began.model_validate_json(purpose.in_batch(began(), batch).model_dump_json())
    assert (said.slot, said.host) == (slot, began().host)
    assert (said.group, said.shard, said.shards) == (batch.shard or (None, None, None))
    assert batch.shard == shard
    assert batch.slot == (slot if shard is None else None)
