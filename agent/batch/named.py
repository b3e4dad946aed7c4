"""Which run a person means: the one rule of all commands that take RUN, who bring a listing. Decisions only."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from agent.base.errors import UsageError
from agent.contract.ids import Batch, is_run_id, run_started
from agent.contract.layout import INDEX, PointerKey, index_start, parse_key

LATEST = "latest"
CLOCKS = timedelta(days=1)
"""How far the clock of a machine may be off: a run's first pointer may have been put so long before its start."""


class Key(Protocol):
    """An object in a listing."""

    @property
    def key(self) -> str:
        """Relative to the bucket's prefix."""


class Index(Protocol):
    """A bucket whose objects are listed."""

    @property
    def name(self) -> str:
        """Its address, for people."""

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Key]:
        """Yield the objects under a prefix whose keys sort after `after`."""


def run_named(name: str, stood_back: Mapping[str, bool], where: str, more: str = "") -> str:
    """Return the run that a person means.

    Args:
        name: A run's id, or `latest`: of those that did not stand back, the last to begin.
        stood_back: The runs that are known, and whether each stood back.
        where: What they are known of, for people.
        more: What else to tell a person who means none of them.

    Raises:
        UsageError: It is none of them.
    """
    did = (run for run, nothing in stood_back.items() if not nothing)
    found = max(did, default=name) if name == LATEST else name
    if found in stood_back:
        return found
    remedy = f"`mayfly status -n 100` lists runs; `{LATEST}` is the last one. {more}".rstrip()
    raise UsageError(f"no run {name!r} is known in {where}", remedy=remedy)


async def find_run(index: Index, name: str, now: datetime) -> tuple[Batch, str]:
    """Return the run that a person means, and its batch: one LIST from its start on for each thousand pointers.

    Raises:
        UsageError: No pointer tells of it.
        StoreError: The index cannot be listed.
    """
    batches: dict[str, Batch] = {}
    stood_back: dict[str, bool] = {}
    if is_run_id(name) or name == LATEST:
        after = None if name == LATEST else index_start(run_started(name) - CLOCKS)
        async for item in index.list(INDEX, after=after):
            key = parse_key(item.key)
            if isinstance(key, PointerKey) and run_started(key.entry.run) <= now + CLOCKS:
                run = key.entry.run
                batches[run] = key.entry.batch
                stood_back[run] = key.kind == "stood_back" or stood_back.get(run, False)
                if run == name:
                    break
    run = run_named(name, stood_back, index.name)
    return batches[run], run
