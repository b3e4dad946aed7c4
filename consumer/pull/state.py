"""What a folder remembers between pulls, as values: how far the index was read, what was refused, which hooks are owed.

Which runs are there is not in here: a run is there when its folder is. So the state may be lost without harm: the
next pull lists the whole index once, and finds in place what is in place.
"""

import re
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Annotated, Self

from agent.core.ids import is_run_id
from agent.core.layout import parse_index_key
from agent.core.shards import is_group
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from agent.config.jobsfile import is_job_name

MAX_REFUSED = 1000
"""Refusals that are remembered, the newest: a bucket full of forgeries must not fill the disk with their names."""
MAX_SELECTIONS = 50
_GROUP = re.compile(r"(.+)/([1-9][0-9]{0,5})", re.ASCII)
MIN_YEAR, MAX_YEAR = 1970, 9999
"""Both excluded: a reader looks a little before and after the moments it remembers, and there is no year 0 or 10000."""


def _run(text: str) -> str:
    if not is_run_id(text):
        raise ValueError("not a run id")
    return text


def _job(text: str) -> str:
    if not is_job_name(text):
        raise ValueError("not the name of a job")
    return text


def _index(text: str) -> str:
    if parse_index_key(text) is None:
        raise ValueError("not the key of an index entry")
    return text


def _moment(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not MIN_YEAR < moment.year < MAX_YEAR:
        raise ValueError("not a moment of ours")
    return text


def _cursor(text: str) -> str:
    if text and not MIN_YEAR < datetime.strptime(text, "%Y%m%dT%H%M%S.%f%z").year < MAX_YEAR:
        raise ValueError("not a stamp of ours")
    return text


def _group(text: str) -> str:
    match = _GROUP.fullmatch(text)
    if match is None or not is_group(match.group(1)):
        raise ValueError("not a group and the number of its shards")
    return text


RunId = Annotated[str, AfterValidator(_run)]
Job = Annotated[str, AfterValidator(_job)]
Key = Annotated[str, AfterValidator(_index)]
Moment = Annotated[str, AfterValidator(_moment)]
Cursor = Annotated[str, AfterValidator(_cursor)]
Group = Annotated[str, AfterValidator(_group)]


class Kept(BaseModel):
    """A frozen part of the state."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Selection(Kept):
    """How far the index was read for one choice of jobs.

    Attributes:
        since: Runs that began before this were passed over (ISO 8601); None when none was.
        cursor: Stamp of the newest index key that is settled; empty before the first.
        seen: Settled keys that a listing from the cursor, less the overlap, still shows.
        waiting: Keys of runs that could not be fetched, or wait for their group, to be tried again.
        whole: Whether all of the index is listed each time, and all keys stay in `seen`: for a bucket that checks
            nobody's clock, where a new key may be further behind the cursor than any overlap.
        complete: Groups that were complete, as `name/shards`, in the order in which that was seen.
    """

    since: Moment | None = None
    cursor: Cursor = ""
    seen: tuple[Key, ...] = ()
    waiting: tuple[Key, ...] = ()
    whole: bool = False
    complete: tuple[Group, ...] = ()


class Refusal(Kept):
    """A run, or one job of it, that is not what it says it is, and is not downloaded again.

    Attributes:
        job: Empty when the whole run is refused.
        needed: Bytes it declares, when these were too many; it is tried again when more are allowed.
    """

    key: Key
    run: RunId
    job: Job | None = None
    problems: tuple[str, ...]
    needed: int | None = None


class Owed(Kept):
    """A hook that has not succeeded yet, with what it is told."""

    run: RunId
    job: Job
    status: str
    files: int
    bytes: int
    partial: bool


class Item(Kept):
    """A job of a run."""

    run: RunId
    job: Job


class State(Kept):
    """All of it.

    Attributes:
        selections: By `plan.selection_name`.
        refused: Oldest first.
        owed: Oldest first.
        partial: What is in place of jobs that did not succeed; `latest` never leads there.
    """

    version: int = Field(1, le=1)
    selections: dict[str, Selection] = {}
    refused: tuple[Refusal, ...] = ()
    owed: tuple[Owed, ...] = ()
    partial: tuple[Item, ...] = ()

    def with_selection(self, name: str, selection: Selection) -> Self:
        """Return the state with one selection replaced, as the newest."""
        others = {key: value for key, value in self.selections.items() if key != name}
        newest = dict(list(others.items())[-(MAX_SELECTIONS - 1) :])
        return self.model_copy(update={"selections": {**newest, name: selection}})

    def with_refusals(self, refusals: Iterable[Refusal]) -> Self:
        """Return the state with these refusals, each in the place of an older one of the same run and job."""
        kept = {(one.run, one.job): one for one in self.refused}
        for one in refusals:
            kept.pop((one.run, one.job), None)
            kept[one.run, one.job] = one
        return self.model_copy(update={"refused": tuple(kept.values())[-MAX_REFUSED:]})

    def without_refusals(self, refusals: Collection[Refusal]) -> Self:
        """Return the state without these refusals."""
        kept = tuple(one for one in self.refused if one not in refusals)
        return self.model_copy(update={"refused": kept})

    def owing(self, owed: Owed) -> Self:
        """Return the state with one more hook to run."""
        if any((one.run, one.job) == (owed.run, owed.job) for one in self.owed):
            return self
        return self.model_copy(update={"owed": (*self.owed, owed)})

    def paid(self, run: str, job: str) -> Self:
        """Return the state without a hook."""
        kept = tuple(one for one in self.owed if (one.run, one.job) != (run, job))
        return self.model_copy(update={"owed": kept})

    def with_partial(self, run: str, job: str) -> Self:
        """Return the state that knows a job of a run as partial."""
        item = Item(run=run, job=job)
        if item in self.partial:
            return self
        return self.model_copy(update={"partial": (*self.partial, item)})

    def without(self, job: str, runs: Iterable[str]) -> Self:
        """Return the state after runs of a job were removed."""
        gone = {(run, job) for run in runs}
        kept = tuple(one for one in self.partial if (one.run, one.job) not in gone)
        return self.model_copy(update={"partial": kept})


def read_state(text: bytes) -> State | None:
    """Return the state in a file, or None when it holds none that could be gone on from."""
    try:
        return State.model_validate_json(text)
    except ValidationError:
        return None
