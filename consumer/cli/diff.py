"""`mayfly diff`."""

import asyncio
import functools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

import click

from agent.base.errors import ExitCode, StoreError, UsageError
from agent.batch.named import LATEST, run_named
from agent.contract.entries import Invalid
from agent.contract.ids import is_run_id
from agent.contract.layout import DESCRIPTOR, JobKey
from agent.contract.package import Package
from agent.contract.results import JobStatus
from consumer.cli.command import Options, dump
from consumer.cli.known import Known, known_command, known_of
from consumer.diff import Changes, Side, changes_of, compare
from consumer.entries import read_own_package, read_package
from consumer.objects import file_of
from consumer.pull.folder import open_below
from consumer.pull.plan import Result, Wish, wanted


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

    Compared are the last two successes; with one RUN, that and the one before it; with two, these. RUN is a run's id,
    as `mayfly status` lists them, or `latest`: here the last success.
    """
    if len(runs) > 2:  # noqa: PLR2004
        raise UsageError("two runs are compared, not more")
    with ExitStack() as stack:
        sides = _at_home(dest, job) if dest else _in_bucket(known_of(options), job, stack)
        before, after = _chosen(job, list(sides), runs)
        found = compare(sides[before](), sides[after](), ignore) if before else None
    changes = changes_of(found, before, after) if found and before else None
    if options.as_json:
        document: dict[str, object] = {"job": job, "before": before, "after": after}
        if found and changes:
            document |= {"sum": str(changes.sum), "files": asdict(found.files), **asdict(found)}
        dump(document)
    else:
        for line in _lines(changes, job, after):
            click.echo(line)
    return ExitCode.DONE


def _chosen(job: str, known: list[str], runs: tuple[str, ...]) -> tuple[str | None, str]:
    """Return which runs are compared, the earlier first; None for a first run, which is a baseline."""
    where = f"the successes of {job}"
    meant = [run_named(run, dict.fromkeys(known, False), where) for run in runs or (LATEST,)]
    if len(meant) == 2:  # noqa: PLR2004
        return meant[0], meant[1]
    at = known.index(meant[0])
    return (known[at - 1] if at else None), known[at]


def _at_home(dest: Path, job: str) -> dict[str, functools.partial[Side]]:
    found = {}
    for folder in sorted((dest / job).glob("*")):
        if is_run_id(folder.name):
            with suppress(OSError), open_below(folder, DESCRIPTOR) as stream:
                package = read_own_package(stream.read())
                if isinstance(package, Package) and package.job.status is JobStatus.SUCCEEDED:
                    found[folder.name] = functools.partial(Side.of_folder, folder)
    return found


def _in_bucket(known: Known, job: str, stack: ExitStack) -> dict[str, functools.partial[Side]]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-diff.")))
    results = wanted(known.history.batches, Wish(frozenset({job})))
    return {one.run: functools.partial(_side, known, one, folder) for one in results}


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
