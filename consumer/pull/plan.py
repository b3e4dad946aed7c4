"""Decisions of a pull, without effects: what is new, which jobs are wanted, what a manifest may do, what is removed."""

import json
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from agent.core.datapackage import manifest_problems
from agent.core.ids import commit_stamp, run_started
from agent.core.layout import (
    INDEX,
    INDEX_OVERLAP,
    IndexKey,
    parse_index_key,
)
from agent.core.manifest import IndexEntry, JobSummary, Manifest, Resource
from agent.core.results import JobStatus, RunStatus
from agent.core.shards import Shard
from pydantic import ValidationError

from agent.config.jobsfile import is_job_name
from consumer.facts.groups import Whole, complete_of, counts, shard_of, whole_of
from consumer.history import by_start, reason
from consumer.pull.state import Selection
from consumer.verify import summary_problems

MAX_BYTES = 10 * 1024**3
"""What a run may declare at most, unless a person says otherwise: a hundred days of a hundred megabytes."""
MAX_MANIFEST_BYTES = 48 * 1024**2
"""About 150,000 files at the 300 bytes that one takes."""
MAX_VALUES = 2_000_000
"""Separators in a manifest's text: ten for each file. Values cost far more memory than text; 48 MiB of `[],` would be
two gigabytes of lists."""
MAX_FILES = 200_000
MAX_PROBLEMS = 20
"""Of a refused run: the first few tell it all."""
CLOCKS = timedelta(days=1)
"""How much earlier than its run's start a commit may claim to be, where a clock was set back meanwhile."""
MOST_GROUPS = 1000
"""Complete groups that are remembered, the newest: a run may come after its group was complete."""
GROUPS_WAIT = timedelta(days=14)
"""How long after its commit a run waits for its group: each look at it costs a request."""
NEVER_COMPLETE = f"its group was not complete within {GROUPS_WAIT.days} days"
Part = tuple[Shard, RunStatus]
"""Which shard a committed run is, and how it ended."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person wants of a pull.

    Attributes:
        jobs: Names of jobs; empty for all.
        partial: Whether files of jobs that did not succeed are wanted, too.
        since: Runs that began earlier are not fetched.
        keep: How many runs of each job stay; None for all.
        max_bytes: What the wanted files of one run may declare in sum.
        again: Whether runs that were refused before are tried once more.
        complete_groups: Whether shards are wanted only when all shards of their group are committed.
    """

    jobs: frozenset[str] = frozenset()
    partial: bool = False
    since: datetime | None = None
    keep: int | None = None
    max_bytes: int = MAX_BYTES
    again: bool = False
    complete_groups: bool = False

    def wants(self, job: str | None) -> bool:
        """Tell whether a job is wanted; None is a whole run, of which something may be."""
        return not self.jobs or job is None or job in self.jobs


@dataclass(frozen=True, slots=True)
class JobFiles:
    """What a run holds of one job; paths are relative to the run.

    Attributes:
        names: What files are called at home that the bucket could not call so, by their paths.
    """

    name: str
    status: JobStatus
    partial: bool
    files: tuple[Resource, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What its files declare in sum."""
        return sum(file.bytes for file in self.files)

    def inner(self, file: Resource) -> str:
        """Return a file's path within the job's folder."""
        return self.names.get(file.path) or file.path.removeprefix(f"{self.name}/")


def selection_name(wishes: Wishes) -> str:
    """Return the name under which the cursor of such a choice is kept: another choice has seen other runs."""
    choice = {"jobs": sorted(wishes.jobs), "partial": wishes.partial}
    # Only when asked for: a choice that is older than groups goes on under its name.
    return json.dumps(choice | ({"complete_groups": True} if wishes.complete_groups else {}))


def continued(
    selection: Selection | None, since: datetime | None, *, whole: bool = False
) -> Selection:
    """Return the selection to go on from: a new one when earlier runs are wanted than it has looked at."""
    new = Selection(since=None if since is None else since.isoformat(), whole=whole)
    if selection is None or selection.whole != whole:
        return new
    if selection.since is None or (since and since >= datetime.fromisoformat(selection.since)):
        return selection
    return new


def list_after(selection: Selection) -> str | None:
    """Return the key after which the index is listed; None for all of it."""
    if selection.whole:
        return None
    if selection.cursor:
        return f"{INDEX}{commit_stamp(stamp_time(selection.cursor) - INDEX_OVERLAP)}"
    if selection.since is not None:
        return f"{INDEX}{commit_stamp(datetime.fromisoformat(selection.since) - CLOCKS)}"
    return None


def stamp_time(stamp: str) -> datetime:
    """Return the time of a commit stamp.

    Raises:
        ValueError: It has the form, and is no date.
    """
    return datetime.strptime(stamp, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)


def to_look_at(listed: Iterable[IndexKey], selection: Selection) -> list[IndexKey]:
    """Return the index keys to look at, oldest first: the new ones, and those that wait."""
    seen = set(selection.seen) - set(selection.waiting)
    found = {key.key: key for key in listed if key.key not in seen}
    found |= {text: key for text in selection.waiting if (key := parse_index_key(text))}
    return [found[text] for text in sorted(found)]


def waiting_for(selection: Selection, keys: Iterable[str]) -> Selection:
    """Return the selection with more keys to be looked at."""
    waiting = tuple(sorted({*selection.waiting, *keys}))
    return selection if waiting == selection.waiting else _changed(selection, waiting=waiting)


def passed_over(selection: Selection, since: datetime | None) -> Selection:
    """Return the selection after a run was too early: a later pull that wants earlier ones has to look anew."""
    return selection if since is None else _changed(selection, since=since.isoformat())


def too_early(key: IndexKey, since: datetime | None) -> bool:
    """Tell whether a run began before what is wanted. One without a credible date is not early: it is refused."""
    try:
        return since is not None and run_started(key.run) < since
    except ValueError:
        return False


def date_problem(key: IndexKey) -> str | None:
    """Return why an index key cannot be: it has the form, and its dates are none."""
    try:
        run_started(key.run)
        stamp_time(key.stamp)
    except ValueError:
        return "its dates are impossible"
    return None


def settled(selection: Selection, keys: Iterable[IndexKey], now: datetime) -> Selection:
    """Return the selection after these keys were dealt with, in whatever way.

    The cursor never passes `now`: a forged stamp of the year 9999 would hide every run to come.
    """
    keys = list(keys)
    limit = commit_stamp(now)
    stamps = [key.stamp for key in keys if key.stamp <= limit and date_problem(key) is None]
    cursor = max([selection.cursor, *stamps])
    after = list_after(_changed(selection, cursor=cursor)) or ""
    done = {key.key for key in keys}
    seen = sorted(key for key in {*selection.seen, *done} if key > after)
    waiting = tuple(key for key in selection.waiting if key not in done)
    return _changed(selection, cursor=cursor, seen=tuple(seen), waiting=waiting)


def _changed(selection: Selection, **changes: object) -> Selection:
    return selection.model_copy(update=changes)


def deferred(selection: Selection, key: IndexKey, now: datetime) -> Selection:
    """Return the selection after a run could not be fetched for now."""
    moved = settled(selection, [key], now)
    return waiting_for(moved, [key.key])


def held_as(
    key: IndexKey, entry: IndexEntry, selection: Selection
) -> tuple[Shard | None, list[str]]:
    """Return as which shard a run has to wait for its group, None when it has not; and why it is refused."""
    problem = date_problem(key)
    problems = [problem] if problem else entry_problems(entry)
    try:
        shard = shard_of(entry)
    except ValueError as error:
        return None, [*problems, str(error)]
    waits = shard is not None and group_name(shard) not in selection.complete
    return (shard if waits and not problems else None), problems


def group_name(shard: Shard) -> str:
    """Return the name under which a complete group is remembered."""
    name, shards = whole_of(shard)
    return f"{name}/{shards}"


def held(parts: Mapping[IndexKey, Part], selection: Selection) -> dict[IndexKey, Part]:
    """Return the runs whose groups are not complete."""
    return {
        key: part for key, part in parts.items() if group_name(part[0]) not in selection.complete
    }


def with_complete(selection: Selection, parts: Iterable[Part]) -> Selection:
    """Return the selection that knows which of the groups of these runs are complete.

    That is remembered before the first of them is fetched: a pull that is killed in the middle goes on with the others.
    """
    new = sorted(f"{name}/{shards}" for name, shards in complete_of(parts))
    old = [name for name in selection.complete if name not in new]
    complete = (*old, *new)[-MOST_GROUPS:]
    return selection if not new else _changed(selection, complete=complete)


def waited_enough(keys: Iterable[IndexKey], now: datetime) -> list[IndexKey]:
    """Return the runs that are not looked at again for the sake of their group."""
    return [key for key in keys if stamp_time(key.stamp) < now - GROUPS_WAIT]


def waiting_lines(parts: Mapping[IndexKey, Part], known: Collection[str]) -> list[str]:
    """Return what a person is told of groups that wait.

    Args:
        parts: Their runs.
        known: Index keys of runs that waited before: a group without a new one is not told of again.
    """
    done: dict[Whole, set[int]] = {}
    for shard, status in parts.values():
        shards = done.setdefault(whole_of(shard), set())
        shards |= {shard.shard} if counts(status) else set()
    new = {whole_of(shard) for key, (shard, _) in parts.items() if key.key not in known}
    return [
        f"group {name}: {len(done[name, shards])} of {shards} shards are committed;"
        " its runs wait for the others"
        for name, shards in sorted(new)
    ]


def may_be_second(key: IndexKey, after: str | None) -> bool:
    """Tell whether a run may have been committed before, under a key that a listing after `after` does not show."""
    return after is not None and f"{INDEX}{commit_stamp(run_started(key.run))}" <= after


def wanted_jobs(entry: IndexEntry, wishes: Wishes) -> list[JobSummary]:
    """Return the jobs of a run that have something for this person, by what the index entry says."""
    return [
        job
        for job in entry.jobs
        if wishes.wants(job.name)
        and (job.status is JobStatus.SUCCEEDED or (wishes.partial and job.files > 0))
    ]


def entry_problems(entry: IndexEntry) -> list[str]:
    """Return why an index entry is not followed to its manifest."""
    problems = [
        f"{job.name[:100]!r} cannot be the name of a job"
        for job in entry.jobs
        if not is_job_name(job.name)
    ]
    if entry.manifest.bytes > MAX_MANIFEST_BYTES:
        problems.append(
            f"its manifest has {entry.manifest.bytes} bytes, more than {MAX_MANIFEST_BYTES}"
        )
    return problems[:MAX_PROBLEMS]


def read_manifest(text: bytes, entry: IndexEntry) -> tuple[Manifest | None, list[str]]:
    """Return a manifest, or what is wrong with it.

    Args:
        text: The manifest as it was fetched, of bounded size.
        entry: The index entry that commits it.
    """
    if len(text) != entry.manifest.bytes or sha256(text).hexdigest() != entry.manifest.sha256:
        return None, ["its manifest is not what the index entry committed"]
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        return None, ["its manifest has more values than any run needs"]
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        return None, [f"its manifest is none: {reason(error)}"]
    problems = [one.detail for one in summary_problems(entry, manifest)]
    if manifest.run.run_id != entry.run_id:
        problems.append("its manifest is about another run")
    if len(manifest.resources) > MAX_FILES:
        problems.append(f"it lists {len(manifest.resources)} files, more than {MAX_FILES}")
    problems = problems or path_problems(manifest)
    return (None if problems else manifest), _few(problems)


def _few(problems: Sequence[str]) -> list[str]:
    if len(problems) <= MAX_PROBLEMS:
        return [problem[:500] for problem in problems]
    more = len(problems) - MAX_PROBLEMS
    return [*(problem[:500] for problem in problems[:MAX_PROBLEMS]), f"and {more} more"]


def path_problems(manifest: Manifest) -> list[str]:
    """Return which names lead elsewhere: out of the run, or out of their job."""
    problems = manifest_problems(manifest)
    jobs = {job.name for job in manifest.run.jobs}
    for resource in manifest.resources:
        path = resource.path
        if resource.job is not None and (
            resource.job not in jobs or not path.startswith(f"{resource.job}/")
        ):
            problems.append(f"{path!r}: it is not in the folder of a job of this run")
    return problems


def alike(job: JobFiles) -> list[tuple[str, str]]:
    """Return pairs of a job's paths that a file system could take for one, or for a file and its folder.

    Some ignore case, some the form of accents; each has its own idea of both. Which pairs meet, only it can tell.
    """
    pairs: list[tuple[str, str]] = []
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for resource in job.files:
        path = job.inner(resource)
        same = folded(path)
        if files.setdefault(same, path) != path:
            pairs.append((files[same], path))
        parts = same.split("/")
        for depth in range(1, len(parts)):
            folders.setdefault("/".join(parts[:depth]), path)
    return pairs + [(files[same], folders[same]) for same in sorted(files.keys() & folders.keys())]


def collisions(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return what a person is told of paths that meet in the folder at home."""
    return _few([f"{one!r} and {other!r}: DEST cannot hold both" for one, other in pairs])


def folded(path: str) -> str:
    """Return what a path has in common with all that any file system may take for it."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def jobs_of(manifest: Manifest, wishes: Wishes) -> list[JobFiles]:
    """Return what of a sound manifest is wanted, by job."""
    files: dict[str, list[Resource]] = {}
    for resource in manifest.resources:
        if resource.job is not None:
            files.setdefault(resource.job, []).append(resource)
    found = []
    for job in manifest.run.jobs:
        of_job = tuple(files.get(job.name, ()))
        good = job.status is JobStatus.SUCCEEDED and not any(file.partial for file in of_job)
        if wishes.wants(job.name) and (good or (wishes.partial and of_job)):
            found.append(JobFiles(job.name, job.status, not good, of_job))
    return found


def latest_of(runs: Iterable[str], partial: Collection[str], now: datetime) -> str | None:
    """Return the run that `latest` leads to: the last that began, and succeeded; None when there is none."""
    good = (run for run in runs if run not in partial)
    return max(good, key=lambda run: by_start(run, now), default=None)


def would_go(run: str, runs: Collection[str], keep: int | None, now: datetime) -> bool:
    """Tell whether a run would be removed as soon as it is there, because enough newer ones are."""
    return keep is not None and run in to_remove({*runs, run}, keep, (), now)


def to_remove(
    runs: Iterable[str], keep: int, protected: Collection[str], now: datetime
) -> list[str]:
    """Return the runs of a job that go, oldest first.

    Args:
        runs: Those that are there.
        keep: How many of the newest stay; of those that a wrong clock dated to come, as many beside them.
        protected: What stays whatever its age: the latest, and runs whose hook has not succeeded.
        now: What is later than this was dated by a wrong clock.
    """
    ordered = sorted(runs)
    to_come = [run for run in ordered if not by_start(run, now)[0]]
    past = ordered[: len(ordered) - len(to_come)]
    old = [*past[:-keep], *to_come[:-keep]]
    return [run for run in old if run not in protected]
