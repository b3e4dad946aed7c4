"""Looks which jobs an interrupted run has finished a short while ago, so that they are not done again."""

from collections.abc import Sequence

from pydantic import ValidationError

from agent.bucket.store import Bucket
from agent.core.catchup import Beginning, Earlier, caught_up, earlier
from agent.core.layout import INDEX, INDEX_OVERLAP, parse_index_key, started_key
from agent.core.manifest import IndexEntry, StartedMarker
from agent.core.results import RunStatus
from agent.steps.spool import SpooledRun

MOST_RUNS = 50
"""That are read, the newest: a machine that starts more often within the window has other worries."""


async def finished_before(
    bucket: Bucket, waiting: Sequence[SpooledRun], begins: Beginning
) -> dict[str, str]:
    """Return the jobs that need not run again, each with the reason.

    Args:
        bucket: Holds the committed runs.
        waiting: Runs of this machine that are not committed yet; they are about to be.
        begins: The run that asks.

    Raises:
        StoreError: The bucket did not say.
    """
    runs = {
        run.run_id: earlier(run.journal.run, begins.wanted)
        for run in waiting
        # The journal of a run whose agent died says `interrupted` until it is concluded.
        if run.journal.planned
    }
    # Commits of the window, and of clocks that go wrong by less than a reader's overlap.
    since = begins.now - begins.window - INDEX_OVERLAP
    after = f"{INDEX}{since:%Y%m%dT%H%M%S}"
    keys = [item.key async for item in bucket.list(INDEX, after=after)]
    for key in sorted(keys, reverse=True)[:MOST_RUNS]:
        found = await _committed(bucket, key)
        if found is not None:
            runs[found.run_id] = found
    return caught_up(list(runs.values()), begins)


async def _committed(bucket: Bucket, key: str) -> Earlier | None:
    parsed = parse_index_key(key)
    if parsed is None:
        return None
    try:
        entry = IndexEntry.model_validate_json(await bucket.get(key) or b"")
        if entry.status is not RunStatus.INTERRUPTED or entry.continues is not None:
            return earlier(entry)
        marker = await bucket.get(started_key(entry.run_id))
        wanted = StartedMarker.model_validate_json(marker).release_wanted if marker else None
    except ValidationError:
        return None
    return earlier(entry, wanted)
