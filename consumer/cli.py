"""`mayfly status`, `mayfly verify` and `mayfly pull`: what home does with the bucket.

Exit codes are those of `agent.core.outcome`: 0 fine, 2 usage, 3 `verify` found problems or `pull` could not take
everything, 4 configuration, 6 the bucket cannot be read, 7 a pull was stopped. What takes long to import is imported
by the command that needs it.
"""

import asyncio
import functools
import json
import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import click

from agent.core.errors import UsageError
from agent.core.outcome import ExitCode
from consumer.options import Since, Units

if TYPE_CHECKING:
    from consumer.bucket import ReadOnlyBucket
    from consumer.pull.hooks import Hook
    from consumer.pull.place import Destination
    from consumer.pull.plan import Wishes
    from consumer.pull.report import Report as PullReport
    from consumer.verify import Report

SHOWN_PROBLEMS = 50
"""Problems that `verify` shows to a person; `--json` has all."""
SHORTEST_WATCH = 1.0
"""Seconds between two looks into the bucket, at least: each is a request that somebody pays for."""
PIPE_WIDTH = 10_000
"""Columns where nobody's terminal limits them."""

Function = TypeVar("Function", bound=Callable[..., Any])


def _command(function: Function) -> Function:
    """Give a command the options that say which bucket, and have it exit with the code that it returns."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        sys.exit(int(function(*args, **kwargs)))

    options = (
        click.option("--store", metavar="URL", help="Bucket: s3://..., file:///... or a folder."),
        click.option(
            "--config", type=click.Path(path_type=Path), help="Configuration file (agent.toml)."
        ),
        click.option("--set", "pairs", metavar="KEY=VALUE", multiple=True, help="Override a key."),
        click.option("--json", "as_json", is_flag=True, help="JSON on stdout."),
    )
    for option in reversed(options):
        guarded = option(guarded)
    return guarded  # type: ignore[return-value]  # click adds its options to the function it is given


def _open(store: str | None, config: Path | None, pairs: tuple[str, ...]) -> "ReadOnlyBucket":
    """Return the bucket that flags, environment and configuration file name.

    Raises:
        ConfigurationError: They have faults.
        StoreError: There is no such bucket, or there are no credentials for it.
    """
    from agent.core.faults import ConfigurationError, Fault  # noqa: PLC0415
    from agent.core.locate import (  # noqa: PLC0415
        MACHINE,
        Surroundings,
        bucket_override,
        load_settings,
        locate,
    )
    from agent.core.storage import LocalBucket, bucket_at, static_credentials  # noqa: PLC0415
    from consumer.bucket import ReadOnlyBucket  # noqa: PLC0415

    around = Surroundings(os.environ, MACHINE.exists(), Path.cwd(), Path.read_text)
    overrides = [bucket_override(store, around.cwd)] if store else []
    loaded = load_settings(config, around, pairs, overrides)
    faults = list(loaded.faults)
    settings = loaded.settings
    address = bucket_at(settings.store, locate(settings.paths, around).bucket)
    if not isinstance(address, LocalBucket) and settings.store.credentials != "default":
        faults.append(
            Fault(
                loaded.source,
                "store.credentials",
                "keys in SSM are the machine's, and are not used at home",
                "set MAYFLY_STORE_CREDENTIALS=default, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        )
    if faults:
        raise ConfigurationError(faults)
    return ReadOnlyBucket.open(address, static_credentials(os.environ))


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _paint(text: str, colour: str) -> str:
    return click.style(text, fg=colour) if _colours() else text


def _dump(value: object) -> None:
    # ASCII only: no byte of it means anything to a terminal.
    click.echo(json.dumps(value, indent=1))


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True)
@_command
def status(
    limit: int, store: str | None, config: Path | None, pairs: tuple[str, ...], as_json: bool
) -> ExitCode:
    """Show recent runs, from the bucket alone."""
    from consumer.history import recent  # noqa: PLC0415
    from consumer.status import status_json, status_lines  # noqa: PLC0415

    bucket = _open(store, config, pairs)
    rows = asyncio.run(recent(bucket, now=datetime.now(UTC), limit=limit))
    if as_json:
        _dump(status_json(rows, bucket.name))
        return ExitCode.DONE
    click.echo(f"{bucket.name} (times in {datetime.now(UTC).astimezone():%Z})")
    if not rows:
        click.echo("no runs yet")
        return ExitCode.DONE
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH
    for line in status_lines(rows, paint=_paint, zone=None, width=width):
        click.echo(line, color=True)
    return ExitCode.DONE


@click.command()
@click.argument("run", metavar="RUN")
@_command
def verify(
    run: str, store: str | None, config: Path | None, pairs: tuple[str, ...], as_json: bool
) -> ExitCode:
    """Check a run against its manifest: nothing missing, nothing extra, every byte as listed.

    RUN is a run id, `latest`, or a folder that holds a run (or the datapackage.json in it).
    """
    folder = _folder_of(run)
    if folder is not None:
        from agent.core.storage import LocalBucket  # noqa: PLC0415
        from consumer.bucket import ReadOnlyBucket  # noqa: PLC0415

        bucket = ReadOnlyBucket.open(LocalBucket(folder), None)
    else:
        bucket = _open(store, config, pairs)
    report = asyncio.run(_verified(bucket, None if folder else run))
    _show_report(report, bucket.name, as_json=as_json)
    return ExitCode.PARTIAL if report.problems else ExitCode.DONE


def _folder_of(run: str) -> Path | None:
    """Return the folder that RUN names; None when it names a run of the bucket.

    Raises:
        UsageError: It is neither.
    """
    from agent.core.ids import is_run_id  # noqa: PLC0415
    from agent.core.layout import MANIFEST  # noqa: PLC0415

    if run == "latest" or is_run_id(run):
        return None
    url = urlsplit(run)
    path = Path(unquote(url.path) if url.scheme == "file" else run)
    folder = path.parent if path.name == MANIFEST else path
    if not folder.is_dir():
        raise UsageError(
            f"{run} is no run",
            remedy="RUN is an id such as 20261122T064205Z-3f9a1c, `latest`, or a folder",
        )
    return folder.absolute()


async def _verified(bucket: "ReadOnlyBucket", run: str | None) -> "Report":
    from consumer.history import latest  # noqa: PLC0415
    from consumer.verify import verify_folder, verify_run  # noqa: PLC0415

    if run is None:
        return await verify_folder(bucket)
    if run == "latest":
        key = await latest(bucket)
        if key is None:
            raise UsageError(f"no run was ever committed to {bucket.name}")
        run = key.run
    return await verify_run(bucket, run)


def _show_report(report: "Report", bucket: str, *, as_json: bool) -> None:
    from agent.core.console import aligned, printable  # noqa: PLC0415
    from agent.core.units import show_size  # noqa: PLC0415

    if as_json:
        problems = [
            {"kind": problem.kind.value, "path": problem.path, "detail": problem.detail}
            for problem in report.problems
        ]
        _dump(
            {
                "bucket": bucket,
                "run": report.name,
                "ok": not report.problems,
                "files": report.files,
                "bytes": report.bytes,
                "problems": problems,
            }
        )
        return
    shown = report.problems[:SHOWN_PROBLEMS]
    rows = [(one.kind.value, printable(one.path) or "-", printable(one.detail)) for one in shown]
    for line in aligned(rows):
        click.echo(line)
    if len(report.problems) > len(shown):
        click.echo(f"... and {len(report.problems) - len(shown)} more (--json lists all)")
    fine = f"{report.files} files, {show_size(report.bytes)}, as the manifest says"
    if report.problems:
        count = len(report.problems)
        verdict = _paint(f"{count} problem{'s' if count > 1 else ''}", "red")
    else:
        verdict = _paint("fine", "green")
    click.echo(f"{report.name}: {verdict}; {fine}", color=True)


@click.command()
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path, file_okay=False))
@click.option("--job", "jobs", metavar="NAME", multiple=True, help="Only this job; repeatable.")
@click.option(
    "--since",
    type=Since(),
    metavar="WHEN",
    help="Only runs that began since a date, or a duration ago.",
)
@click.option("--partial", is_flag=True, help="Also what jobs left that did not succeed.")
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(1),
    help="Remove all but the N newest runs of each job.",
)
@click.option(
    "--exec",
    "command",
    metavar="CMD",
    help="Run CMD (by sh) once for each run and job; MAYFLY_PATH, ...",
)
@click.option(
    "--exec-timeout",
    type=Units("duration"),
    default="10m",
    show_default=True,
    help="Limit of CMD.",
)
@click.option(
    "--max-bytes",
    type=Units("size"),
    default="10GiB",
    show_default=True,
    help="Most that a run may hold.",
)
@click.option("--again", is_flag=True, help="Try runs once more that were refused.")
@click.option(
    "--lock-timeout",
    type=Units("duration"),
    default="5m",
    show_default=True,
    help="How long to wait for another pull into DEST.",
)
@click.option(
    "--watch",
    is_flag=False,
    flag_value="60",
    type=Units("duration"),
    metavar="[SECONDS]",
    help="Pull again and again; every 60 s by default.",
)
@_command
def pull(
    *,
    dest: Path,
    jobs: tuple[str, ...],
    since: datetime | None,
    partial: bool,
    keep: int | None,
    command: str | None,
    exec_timeout: float,
    max_bytes: int,
    again: bool,
    lock_timeout: float,
    watch: float | None,
    store: str | None,
    config: Path | None,
    pairs: tuple[str, ...],
    as_json: bool,
) -> ExitCode:
    """Fetch new runs into DEST: verified, each job of a run at once, as DEST/JOB/RUN, with a link DEST/JOB/latest."""
    from agent.core.faults import ConfigurationError, Fault  # noqa: PLC0415
    from agent.core.jobsfile import is_job_name  # noqa: PLC0415
    from consumer.pull.hooks import Hook  # noqa: PLC0415
    from consumer.pull.place import Destination, PlaceError  # noqa: PLC0415
    from consumer.pull.plan import Wishes  # noqa: PLC0415

    for job in jobs:
        if not is_job_name(job):
            raise UsageError(f"{job!r} cannot be the name of a job")
    if watch is not None and watch < SHORTEST_WATCH:
        raise UsageError(f"--watch takes {SHORTEST_WATCH:g} seconds or more")
    if watch is not None and again:
        raise UsageError("--again is for one pull, not for a watch")
    wishes = Wishes(frozenset(jobs), partial, since, keep, max_bytes, again)
    hook = Hook(command, dict(os.environ), exec_timeout) if command else None
    bucket = _open(store, config, pairs)
    try:
        with Destination.open(dest) as place:
            return _pull(
                bucket=bucket,
                place=place,
                wishes=wishes,
                hook=hook,
                lock_timeout=lock_timeout,
                watch=watch,
                as_json=as_json,
            )
    except PlaceError as error:
        raise ConfigurationError([Fault("DEST", str(dest), str(error), error.remedy)]) from error


def _pull(
    *,
    bucket: "ReadOnlyBucket",
    place: "Destination",
    wishes: "Wishes",
    hook: "Hook | None",
    lock_timeout: float,
    watch: float | None,
    as_json: bool,
) -> ExitCode:
    from consumer.pull.progress import watching  # noqa: PLC0415
    from consumer.pull.session import pull_once  # noqa: PLC0415
    from consumer.pull.watch import for_ever, once, until_stopped  # noqa: PLC0415

    def say(line: str, problem: bool) -> None:
        click.echo(line, err=problem or as_json)

    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    with watching(say, terminal=terminal, colours=not os.environ.get("NO_COLOR")) as watcher:
        pull = functools.partial(
            pull_once, bucket, place, wishes, watcher, hook=hook, lock_seconds=lock_timeout
        )
        done = functools.partial(
            _show_pull, bucket.name, str(place.path), as_json=as_json, watching=watch is not None
        )
        if watch is None:
            work, stopped = once(pull, done), ExitCode.INTERRUPTED
        else:
            work, stopped = for_ever(pull, done, watch), ExitCode.DONE
        return asyncio.run(until_stopped(work, stopped=stopped))


def _show_pull(
    bucket: str, dest: str, report: "PullReport", *, as_json: bool, watching: bool
) -> None:
    from consumer.pull.report import report_json, summary_line  # noqa: PLC0415

    if watching and not report.events and not report.unreachable:
        return
    if as_json:
        # A document for one pull, a line for each of many.
        document = report_json(report, bucket, dest)
        click.echo(json.dumps(document, indent=None if watching else 1))
    else:
        click.echo(summary_line(report), err=bool(report.unreachable))
