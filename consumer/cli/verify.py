"""`mayfly verify`."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import click

from agent.base.errors import ExitCode, UsageError
from consumer.cli.command import bucket_command, dump, open_bucket, paint

if TYPE_CHECKING:
    from consumer.bucket import ReadOnlyBucket
    from consumer.verify import Report

SHOWN_PROBLEMS = 50
"""Problems that `verify` shows to a person; `--json` has all."""


@click.command()
@click.argument("run", metavar="RUN")
@bucket_command
def verify(
    run: str, store: str | None, config: Path | None, pairs: tuple[str, ...], as_json: bool
) -> ExitCode:
    """Check a run against its manifest: nothing missing, nothing extra, every byte as listed.

    RUN is a run id, `latest`, or a folder that holds a run (or the datapackage.json in it).
    """
    folder = _folder_of(run)
    if folder is not None:
        from agent.bucket.address import LocalBucket  # noqa: PLC0415
        from consumer.bucket import ReadOnlyBucket  # noqa: PLC0415

        bucket = ReadOnlyBucket.open(LocalBucket(folder), None)
    else:
        bucket = open_bucket(store, config, pairs)
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
        key = await latest(bucket, datetime.now(UTC))
        if key is None:
            raise UsageError(f"no run was ever committed to {bucket.name}")
        run = key.run
    return await verify_run(bucket, run)


def _show_report(report: "Report", bucket: str, *, as_json: bool) -> None:
    from agent.base.console import aligned, printable  # noqa: PLC0415
    from agent.base.units import show_size  # noqa: PLC0415

    if as_json:
        problems = [
            {"kind": problem.kind.value, "path": problem.path, "detail": problem.detail}
            for problem in report.problems
        ]
        dump(
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
        verdict = paint(f"{count} problem{'s' if count > 1 else ''}", "red")
    else:
        verdict = paint("fine", "green")
    click.echo(f"{report.name}: {verdict}; {fine}", color=True)
