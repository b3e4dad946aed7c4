"""`mayfly diff`."""

import asyncio
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import click

from agent.base.errors import ExitCode, StoreError, UsageError
from agent.batch.named import LATEST, run_named
from agent.contract.entries import Invalid
from agent.contract.ids import is_run_id
from agent.contract.layout import JobKey
from agent.contract.results import JobStatus
from consumer.cli.command import Options, dump
from consumer.cli.known import Known, known_command, known_of
from consumer.diff import Changes, Side, changes_of, compare, package_in
from consumer.entries import read_package
from consumer.objects import file_of
from consumer.pull.plan import Result, Wish, wanted
from consumer.pull.state import schedules


@click.command()
@click.argument("job", metavar="JOB")
@click.argument("runs", metavar="[RUN [RUN]]", nargs=-1)
@click.option(
    "--dest",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Compare what was pulled into this folder, and ask no bucket.",
)
@click.option(
    "--ignore", metavar="FIELD", multiple=True, help="Ignore this field of records; repeatable."
)
@known_command
def diff(
    *, options: Options, job: str, runs: tuple[str, ...], dest: Path | None, ignore: tuple[str, ...]
) -> ExitCode:
    """Show what changed in a job's results: files, and records where their schema has a primaryKey.

    Compared are the last success and the one before it, of the same schedule; with one RUN, that and the one before
    it; with two, these. RUN is a run's id, as `mayfly status` lists them, or `latest`: here the last success.
    """
    if len(runs) > 2:  # noqa: PLR2004
        raise UsageError("two runs are compared, not more")
    with ExitStack() as stack:
        known = _at_home(dest, job) if dest else _in_bucket(known_of(options), job, stack)
        before, after = _chosen(job, known, runs)
        found = compare(before.side(), after.side(), ignore) if before else None
    changes = changes_of(found, before.id, after.id) if found and before else None
    if options.as_json:
        earlier = before.id if before else None
        document: dict[str, object] = {"job": job, "before": earlier, "after": after.id}
        if found and changes:
            document |= {"sum": str(changes.sum), "files": asdict(found.files), **asdict(found)}
        dump(document)
    else:
        for line in _lines(changes, job, after.id):
            click.echo(line)
    return ExitCode.DONE


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of a job: its schedule, as far as that is known, and what reads its package."""

    id: str
    schedule: str
    succeeded: Callable[[], bool]
    side: Callable[[], Side]


def _chosen(
    job: str, newest_first: Sequence[_Run], runs: tuple[str, ...]
) -> tuple[_Run | None, _Run]:
    """Return which runs are compared, the earlier first; None for a first run of its schedule, which is a baseline.

    No more packages are read than that takes: there may be thousands, of megabytes each.
    """

    def meant(run: str) -> _Run:
        good = (one for one in newest_first if run in {LATEST, one.id} and one.succeeded())
        found = {one.id: one for one in islice(good, 1)}
        return found[run_named(run, dict.fromkeys(found, False), f"the successes of {job}")]

    *first, after = map(meant, runs or (LATEST,))
    if first:
        return first[0], after
    earlier = newest_first[newest_first.index(after) + 1 :]
    good = (one for one in earlier if one.schedule == after.schedule and one.succeeded())
    return next(good, None), after


def _at_home(dest: Path, job: str) -> list[_Run]:
    folders = sorted((one for one in (dest / job).glob("*") if is_run_id(one.name)), reverse=True)
    known = schedules(dest, job)
    return [
        _Run(
            folder.name,
            known.get(folder.name, ""),
            functools.partial(_succeeded, folder),
            functools.partial(Side.of_folder, folder),
        )
        for folder in folders
    ]


def _succeeded(folder: Path) -> bool:
    try:
        return package_in(folder).job.status is JobStatus.SUCCEEDED
    except (OSError, ValueError):
        return False


def _in_bucket(known: Known, job: str, stack: ExitStack) -> list[_Run]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-diff.")))
    return [
        _Run(
            one.run, one.batch.schedule, lambda: True, functools.partial(_side, known, one, folder)
        )
        for one in reversed(wanted(known.history.batches, Wish(frozenset({job}))))
    ]


def _side(known: Known, one: Result, folder: Path) -> Side:
    key = JobKey(one.run, one.job.name)
    text = asyncio.run(known.bucket.get(key.text, limit=one.committed.bytes))
    package = read_package(key, one.committed, text) if text is not None else None
    if package is None or isinstance(package, Invalid):
        why = package.reason if package else "it is no longer in the bucket"
        raise StoreError(f"the package of {one.job.name} in {one.run} cannot be used: {why}")
    files = {resource.path: file_of(key, resource).object for resource in package.resources}

    async def download(path: str) -> IO[bytes]:
        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- its reader closes it
        async for piece in known.objects.pieces(files[path]):
            stream.write(piece)
        stream.seek(0)
        return stream

    return Side(package.resources, lambda path: asyncio.run(download(path)))


def _lines(found: Changes | None, job: str, after: str) -> Iterator[str]:
    if found is None:
        yield f"{job}: {after} is the first success, a baseline"
        return
    yield f"{job}: {found.before} -> {found.run}"
    for one in found.sections:
        what = f"{one.path}: records" if one.path else "files:"
        odd = f"; {one.odd} without a key of their own" if one.odd else ""
        yield (
            f"{one.path}: cannot be compared: {one.problem}"
            if one.problem
            else f"{what} {one.sum}{odd}"
        )
        yield from (f"  {line}" for line in one.lines)
