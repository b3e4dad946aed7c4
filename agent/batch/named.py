"""Which run a person means: the one rule of all commands that take RUN, who bring a listing. Decisions only."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from agent.base.errors import UsageError
from agent.contract.ids import Batch, is_run_id, run_started
from agent.contract.layout import PointerKey, index_start, parse_key

LATEST = "latest"
CLOCKS = timedelta(days=1)
"""How far the clock of a machine may be off: a run's first pointer may have been put so long before its start."""


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


class Search:
    """The run that a person means, looked for in the keys of the index: one LIST for each thousand pointers.

    Attributes:
        after: The key after which the listing begins; None for its beginning.
        possible: Whether a run can have this name: else nothing need be listed.
    """

    def __init__(self, name: str, now: datetime) -> None:
        self.possible = name == LATEST or is_run_id(name)
        self.after = index_start(run_started(name) - CLOCKS) if is_run_id(name) else None
        self._name = name
        self._until = now + CLOCKS
        self._batches: dict[str, Batch] = {}
        self._stood_back: dict[str, bool] = {}

    def add(self, text: str) -> bool:
        """Take the next key of the listing; return whether that was enough."""
        key = parse_key(text)
        if not isinstance(key, PointerKey) or run_started(key.entry.run) > self._until:
            return False
        run = key.entry.run
        self._batches[run] = key.entry.batch
        self._stood_back[run] = key.kind == "stood_back" or self._stood_back.get(run, False)
        return run == self._name

    def found(self, where: str) -> tuple[Batch, str]:
        """Return the run's batch, and its id.

        Raises:
            UsageError: No pointer tells of it.
        """
        run = run_named(self._name, self._stood_back, where)
        return self._batches[run], run
