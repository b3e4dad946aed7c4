"""Groups of shards: which are complete, which are late, and what came of their jobs over all shards."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agent.core.manifest import IndexEntry, StartedMarker
from agent.core.results import JobCause, JobStatus, RunStatus
from agent.core.shards import MOST_SHARDS, Shard, is_group

from consumer.facts.rows import BegunRow, JobRow, RunRow

PATIENCE = 3600.0
"""Seconds after the last commit of a group within which its engine has to start what is missing."""
LATE_FOR = 7 * 86400.0
"""Seconds after its begin for which a late group is counted: a week of looking at it."""
MOST_MISSING = 20
"""Missing shards that are named."""
MOST_FAMILIES = 50
"""Kinds of jobs that are told of in a group, those with most jobs; the others are summed up as one."""
OTHERS = "_others"
"""The name of that one; no job can have it."""


class GroupState(StrEnum):
    """How a group stands."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    LATE = "late"


Whole = tuple[str, int]
"""What shards have in common: the group's name, and in how many it was dealt. Dealt anew, it is another whole."""


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A group, now.

    Attributes:
        shards: How many there are to be.
        committed: How many are done: these have a committed run that was not interrupted.
        missing: The first of the others, from 0.
        began: When the first of its runs did (Unix seconds).
        due: When it is late, unless it is complete (Unix seconds).
        runs: Its committed runs, oldest first.
        running: Of its runs that are not committed, how many are before their deadline.
    """

    name: str
    shards: int
    committed: int
    missing: tuple[int, ...]
    state: GroupState
    began: float
    due: float
    runs: tuple[str, ...]
    running: int = 0


@dataclass(frozen=True, slots=True)
class Family:
    """The jobs of a kind over all shards of a group; see `families`.

    Attributes:
        jobs: How many were due. A job that runs on several shards, because others need it, counts on each.
        succeeded: How many of them succeeded.
        files, bytes, seconds: Of all of them together.
        failures: How many failed, by cause.
    """

    name: str
    jobs: int = 0
    succeeded: int = 0
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failures: Mapping[JobCause, int] = field(default_factory=dict)


def shard_of(said: IndexEntry | StartedMarker) -> Shard | None:
    """Return which shard a run says it is; None for one that is a whole batch.

    Raises:
        ValueError: No agent would say so.
    """
    if said.group is None and said.shard is None and said.shards is None:
        return None
    group, shard, shards = said.group, said.shard, said.shards
    if group is None or shard is None or shards is None or not is_group(group):
        raise ValueError("its shard is impossible")
    if not shard < shards <= MOST_SHARDS:
        raise ValueError("its shard is impossible")
    return Shard(group, shard, shards)


def whole_of(shard: Shard) -> Whole:
    """Return what a shard is a part of."""
    return shard.group, shard.shards


def counts(status: RunStatus) -> bool:
    """Tell whether a committed run settles its shard: an interrupted one is started again for what is missing."""
    return status is not RunStatus.INTERRUPTED


def complete_of(parts: Iterable[tuple[Shard, RunStatus]]) -> frozenset[Whole]:
    """Return the groups of which each shard is settled, among committed runs."""
    done: dict[Whole, set[int]] = {}
    for shard, status in parts:
        if counts(status):
            done.setdefault(whole_of(shard), set()).add(shard.shard)
    return frozenset(whole for whole, shards in done.items() if len(shards) == whole[1])


def groups_of(
    runs: Iterable[RunRow], begun: Iterable[BegunRow], now: float, limit: float | None = None
) -> tuple[GroupFacts, ...]:
    """Return the facts of each group that is known, by the begin of its first run.

    A group is late when it is not complete, no run of it is before its deadline, and the last commit is `PATIENCE` ago.

    Args:
        runs: Committed runs; of a group that began before them some shards are missing.
        begun: Runs that are not committed.
        now: Unix seconds.
        limit: Seconds after its begin when a group is late, instead of that; None for that.
    """
    of_runs: dict[Whole, list[RunRow]] = {}
    of_begun: dict[Whole, list[BegunRow]] = {}
    for run in runs:
        if run.part is not None:
            of_runs.setdefault(whole_of(run.part), []).append(run)
    for one in begun:
        if one.part is not None:
            of_begun.setdefault(whole_of(one.part), []).append(one)
    facts = [
        _facts(whole, of_runs.get(whole, []), of_begun.get(whole, []), now, limit)
        for whole in of_runs.keys() | of_begun.keys()
    ]
    return tuple(sorted(facts, key=lambda group: (group.began, group.name, group.shards)))


def _facts(
    whole: Whole,
    runs: Sequence[RunRow],
    begun: Sequence[BegunRow],
    now: float,
    limit: float | None,
) -> GroupFacts:
    name, shards = whole
    done = {run.part.shard for run in runs if run.part is not None and counts(run.status)}
    missing: list[int] = []
    for shard in range(shards):
        if len(missing) == MOST_MISSING:
            break
        if shard not in done:
            missing.append(shard)
    began = min([*(run.started for run in runs), *(one.started for one in begun)])
    ends = [*(run.finished + PATIENCE for run in runs), *(one.deadline for one in begun)]
    due = max(ends) if limit is None else began + limit
    state = GroupState.LATE if now > due else GroupState.INCOMPLETE
    return GroupFacts(
        name=name,
        shards=shards,
        committed=len(done),
        missing=tuple(missing),
        state=state if missing else GroupState.COMPLETE,
        began=began,
        due=due,
        runs=tuple(sorted(run.run for run in runs)),
        running=sum(one.deadline > now for one in begun),
    )


def newest_of(groups: Sequence[GroupFacts]) -> GroupFacts | None:
    """Return the group that began last, also when nothing of it is committed yet: it may be late."""
    return groups[-1] if groups else None


def late_of(groups: Iterable[GroupFacts], now: float) -> tuple[GroupFacts, ...]:
    """Return the late groups that began in the last seven days."""
    return tuple(
        group for group in groups if group.state is GroupState.LATE and group.began > now - LATE_FOR
    )


def families_of(rows: Iterable[JobRow], parts: Mapping[str, Shard]) -> tuple[Family, ...]:
    """Return what came of the jobs of a group, by kind: the name in jobs.toml, which a matrix shares.

    Of each job on each shard the last run counts in which it was due: an attempt that repeats what was missing leaves
    out what an earlier one finished.

    Args:
        rows: Jobs of the group's committed runs.
        parts: The shard that each run is; rows of other runs are passed over.
    """
    last: dict[tuple[str, int], JobRow] = {}
    for row in sorted(rows, key=lambda row: row.run):
        if row.due and row.run in parts:
            last[row.name, parts[row.run].shard] = row
    kinds = families(name for name, _ in last)
    kinds |= {name: row.family for (name, _), row in last.items() if row.family is not None}
    sizes = Counter(kinds[name] for name, _ in last)
    kept = set(sorted(sizes, key=lambda kind: (-sizes[kind], kind))[:MOST_FAMILIES])
    of_kind: dict[str, list[JobRow]] = {}
    for (name, _), row in last.items():
        kind = kinds[name] if kinds[name] in kept else OTHERS
        of_kind.setdefault(kind, []).append(row)
    return tuple(_family(kind, of_kind[kind]) for kind in sorted(of_kind))


def _family(name: str, rows: Sequence[JobRow]) -> Family:
    failed = Counter(row.cause or JobCause.ERROR for row in rows if row.failed)
    return Family(
        name=name,
        jobs=len(rows),
        succeeded=sum(row.status is JobStatus.SUCCEEDED for row in rows),
        files=sum(row.files for row in rows),
        bytes=sum(row.bytes for row in rows),
        seconds=sum(row.seconds for row in rows),
        failures=dict(failed),
    )


def families(names: Iterable[str]) -> dict[str, str]:
    """Return what the kind of each job may be, where its run does not say.

    It is the shortest begin of its name, up to a hyphen, that another name has, too: a value of a matrix is a job
    called `<job>-<value>`. Jobs whose names begin alike are one kind even when they are no matrix.
    """
    unique = set(names)
    begins = Counter(name[:at] for name in unique for at in _hyphens(name))
    begins.update(unique)
    return {
        name: next((name[:at] for at in _hyphens(name) if begins[name[:at]] > 1), name)
        for name in unique
    }


def _hyphens(name: str) -> Iterable[int]:
    return (at for at, letter in enumerate(name) if letter == "-")
