"""Shards: who says which one a run is, and what is made of it when they do not agree."""

from datetime import UTC, datetime
from typing import Any

import pytest

from agent.base.errors import ShardError
from agent.batch.shards import NO_HINTS, ShardHint, identify, shard_hints
from agent.contract.ids import Shard

SLOT = datetime(2026, 11, 22, 18, tzinfo=UTC)
ARRAY_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"
K8S = {"JOB_COMPLETION_INDEX": "1", "MAYFLY_SHARDS": "8", "MAYFLY_GROUP": "nightly-29381234"}
BATCH = {
    "AWS_BATCH_JOB_ARRAY_INDEX": "1",
    "AWS_BATCH_JOB_ARRAY_SIZE": "8",
    "AWS_BATCH_JOB_ID": "6f2c9f1e-0000-4a5b-8c7d-111111111111:1",
}
Machine = dict[str, Any]
FLEET: Machine = {"launch_index": 1, "count": "8"}
NO_EC2: Machine = {}


@pytest.mark.parametrize(
    ("flag", "group", "environ", "machine", "shard"),
    [
        (None, None, {}, (NO_EC2, None), None),
        (None, None, {}, ({"launch_index": 3}, SLOT), None),  # every instance has an index
        ("2/8", "g", {}, (NO_EC2, None), Shard("g", 1, 8)),
        ("8/8", None, {}, (NO_EC2, SLOT), Shard("20261122T180000Z", 7, 8)),
        ("1/1", "g", {}, (NO_EC2, None), Shard("g", 0, 1)),
        (None, "g", {}, (NO_EC2, None), Shard("g", 0, 1)),
        (None, None, K8S, (NO_EC2, None), Shard("nightly-29381234", 1, 8)),
        (None, None, K8S, ({"launch_index": 5}, None), Shard("nightly-29381234", 1, 8)),
        ("2/8", None, K8S, (NO_EC2, None), Shard("nightly-29381234", 1, 8)),
        ("2/8", "mine", K8S, (NO_EC2, None), Shard("mine", 1, 8)),
        (None, None, BATCH, (NO_EC2, None), Shard("6f2c9f1e-0000-4a5b-8c7d-111111111111", 1, 8)),
        ("1/2", "2026-11-23T03:00:00+09:00", {}, (NO_EC2, None), Shard("20261122T180000Z", 0, 2)),
        (None, None, {"AWS_BATCH_JOB_ID": "abc"}, (NO_EC2, None), Shard("abc", 0, 1)),
        (None, None, {}, (FLEET, SLOT), Shard("20261122T180000Z", 1, 8)),
        (None, None, {"MAYFLY_SHARDS": "8"}, ({"launch_index": 7}, SLOT), Shard("20261122T180000Z", 7, 8)),
        (None, None, {"MAYFLY_SHARDS": "1"}, (NO_EC2, SLOT), Shard("20261122T180000Z", 0, 1)),
        ("2/8", "g", {}, (FLEET, SLOT), Shard("g", 1, 8)),
    ],
)  # fmt: skip
def test_which_shard_a_run_is(
    flag: str | None,
    group: str | None,
    environ: dict[str, str],
    machine: tuple[Machine, datetime | None],
    shard: Shard | None,
) -> None:
    """The flag, Kubernetes, AWS Batch and an EC2 fleet each say it; a run that nobody speaks of is a whole batch."""
    facts, slot = machine
    assert identify(shard_hints(flag, group, environ), slot, **facts) == shard


@pytest.mark.parametrize(
    ("flag", "group", "environ", "facts", "words"),
    [
        ("0/8", "g", {}, NO_EC2, ["--shard", "1/8"]),
        ("9/8", "g", {}, NO_EC2, ["--shard"]),
        ("2 of 8", "g", {}, NO_EC2, ["--shard"]),
        ("²/8", "g", {}, NO_EC2, ["--shard"]),
        ("2/8", "a/b", {}, NO_EC2, ['"a/b"', "group"]),
        ("2/8", "x\n", {}, NO_EC2, ["group"]),
        ("2/8", None, {}, NO_EC2, ["group", "--group"]),
        ("3/8", None, K8S, NO_EC2, ["--shard", "2", "JOB_COMPLETION_INDEX", "1"]),
        ("2/9", None, K8S, NO_EC2, ["--shard", "9", "MAYFLY_SHARDS", "8"]),
        (None, "g", {**K8S, ARRAY_INDEX: "4"}, NO_EC2, ["JOB_COMPLETION_INDEX", ARRAY_INDEX]),
        ("3/8", "g", {}, FLEET, ["--shard", "the tag mayfly-shards"]),
        (None, "g", {"JOB_COMPLETION_INDEX": "1"}, NO_EC2, ["JOB_COMPLETION_INDEX", "MAYFLY_SHARDS"]),
        (None, "g", {"JOB_COMPLETION_INDEX": "8", "MAYFLY_SHARDS": "8"}, NO_EC2, ["shard 8", "of 8"]),
        (None, "g", {"JOB_COMPLETION_INDEX": "-1", "MAYFLY_SHARDS": "8"}, NO_EC2, ["JOB_COMPLETION_INDEX"]),
        (None, "g", {"MAYFLY_SHARDS": "8"}, NO_EC2, ["8 shards", "which one"]),
        (None, "g", {"MAYFLY_SHARDS": "0"}, NO_EC2, ["0 shards"]),
        (None, "g", {"MAYFLY_SHARDS": "999999"}, NO_EC2, ["999999"]),
        (None, "g", {}, {"launch_index": 1, "count": "many"}, ["mayfly-shards", "many"]),
    ],
)  # fmt: skip
def test_contradictions_and_gaps_are_refused(
    flag: str | None,
    group: str | None,
    environ: dict[str, str],
    facts: Machine,
    words: list[str],
) -> None:
    """Two sources that disagree are both named; what is missing is named with what would give it."""
    with pytest.raises(ShardError) as refused:
        identify(shard_hints(flag, group, environ), None, **facts)
    told = refused.value.with_remedy
    assert [word for word in words if word not in told] == []


def test_the_first_source_is_named_first() -> None:
    """The order of precedence is flag, Kubernetes, AWS Batch, fleet."""
    hints = shard_hints("2/8", None, K8S | BATCH).hints
    assert hints == (
        ShardHint("--shard", 1, 8),
        ShardHint("JOB_COMPLETION_INDEX", 1),
        ShardHint("AWS_BATCH_JOB_ARRAY_INDEX", 1, 8),
        ShardHint("MAYFLY_SHARDS", None, 8),
    )
    assert shard_hints(None, None, {}) == NO_HINTS
