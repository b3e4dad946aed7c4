"""What the bucket knows of earlier runs: which are committed, and what their jobs produced."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import ValidationError

from agent.bucket.store import Bucket
from agent.core.ids import run_started
from agent.core.layout import INDEX, STATE, parse_index_key, parse_state_key
from agent.core.manifest import IndexEntry
from agent.core.results import JobStatus
from agent.jobs.verdict import Past

WINDOW = timedelta(days=40)
"""How far back is looked: a monthly job still has its last run in it."""
CLOCKS = timedelta(days=1)
"""How far ahead of ours the clock of a machine may be."""
MEDIAN_RUNS = 14
"""Runs of which `expect.drop` takes the median."""
ONE_ANSWER = 1000
"""Keys that a store lists with one request."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The recent past.

    Attributes:
        committed: Runs with an index entry inside the window.
        past: What each job produced in its recent successful runs.
    """

    committed: frozenset[str] = frozenset()
    past: dict[str, list[Past]] = field(default_factory=dict)


async def read_ledger(bucket: Bucket, now: datetime, *, with_past: bool) -> Ledger:
    """Read the index of the last `WINDOW`: one listing, and the newest entries when `with_past`."""
    since = f"{INDEX}{now - WINDOW:%Y%m%d}"
    found = [parse_index_key(item.key) async for item in bucket.list(INDEX, after=since)]
    keys = sorted(
        (key for key in found if key is not None), key=lambda key: key.stamp, reverse=True
    )
    past: dict[str, list[Past]] = {}
    for key in keys[:MEDIAN_RUNS] if with_past else []:
        try:
            entry = IndexEntry.model_validate_json(await bucket.get(key.key) or b"")
        except ValidationError:
            continue
        # What a follow-up holds is a part of what its jobs produced.
        for job in entry.jobs if entry.continues is None else ():
            if job.status is JobStatus.SUCCEEDED:
                past.setdefault(job.name, []).append(Past(job.files, job.items))
    return Ledger(frozenset(key.run for key in keys), past)


async def newest_state(bucket: Bucket, ledger: Ledger, job: str, now: datetime) -> str | None:
    """Return the key of the memory that a job left in its newest committed run, or None.

    A memory whose run was never committed is passed over: the files it speaks of never arrived.
    """
    prefix = f"{STATE}{job}/"
    recent = f"{prefix}{now - WINDOW:%Y%m%d}"
    # What a clock that was wrong has dated later counts only where there is nothing else.
    to_come = f"{prefix}{now + CLOCKS:%Y%m%dT%H%M%S}"

    async def newest(keys: list[str]) -> str | None:
        for key in sorted(keys, key=lambda key: (key < to_come, key), reverse=True)[:MEDIAN_RUNS]:
            parsed = parse_state_key(key)
            if parsed and (
                parsed[1] in ledger.committed
                or (key < recent and await is_committed(bucket, parsed[1]))
            ):
                return key
        return None

    keys = await _keys(bucket, prefix, most=ONE_ANSWER)
    if len(keys) < ONE_ANSWER:
        return await newest(keys)
    # Years of memories: the newest are at the end of many answers.
    return await newest(await _keys(bucket, prefix, after=recent)) or await newest(
        await _keys(bucket, prefix)
    )


async def _keys(
    bucket: Bucket, prefix: str, *, after: str | None = None, most: int | None = None
) -> list[str]:
    keys = []
    async for item in bucket.list(prefix, after=after):
        keys.append(item.key)
        if len(keys) == most:
            break
    return keys


async def is_committed(bucket: Bucket, run: str) -> bool:
    """Look for the index entry of a run older than the ledger's window."""
    try:
        since = f"{INDEX}{run_started(run):%Y%m%dT%H%M%S}"
    except ValueError:  # the form of a run id, and no date
        return False
    async for item in bucket.list(INDEX, after=since):
        key = parse_index_key(item.key)
        if key and key.run == run:
            return True
    return False
