"""`mayfly verify`."""

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from agent.base.console import aligned, printable
from agent.base.errors import ExitCode, UsageError
from agent.base.units import show_size
from agent.batch.named import LATEST
from agent.contract.ids import is_run_id
from consumer.cli.command import Options, bucket_command, dump, open_bucket, paint
from consumer.verify import Report, verify_folder, verify_run

SHOWN_PROBLEMS = 50
"""Problems that `verify` shows to a person; `--json` has all."""


@click.command()
@click.argument("what", metavar="RUN|FOLDER")
@click.argument("job", metavar="[JOB]", required=False)
@bucket_command
def verify(*, options: Options, what: str, job: str | None) -> ExitCode:
    """Check that all that a run (or one job of it) names is there, byte by byte.

    RUN is a run in the bucket, or `latest`. FOLDER is a package that was pulled, or a folder that is pulled into.
    """
    if what == LATEST or is_run_id(what):
        bucket = open_bucket(options)
        report = asyncio.run(verify_run(bucket, what, datetime.now(UTC), job))
    else:
        report = asyncio.run(verify_folder(_folder(what)))
    _show(report, as_json=options.as_json)
    return ExitCode.PARTIAL if report.problems else ExitCode.DONE


def _folder(what: str) -> Path:
    url = urlsplit(what)
    path = Path(unquote(url.path) if url.scheme == "file" else what)
    folder = path.parent if path.name == "datapackage.json" else path
    if not folder.is_dir():
        raise UsageError(
            f"{what} is neither a run nor a folder",
            remedy="a run is called like 20261122T064205Z-3f9a1c; `mayfly status` shows the last",
        )
    return folder.resolve()


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        dump({"ok": not report.problems, **asdict(report)})
        return
    shown = report.problems[:SHOWN_PROBLEMS]
    rows = [(one.kind.value, printable(one.path) or "-", printable(one.detail)) for one in shown]
    for line in aligned(rows):
        click.echo(line)
    if len(report.problems) > len(shown):
        click.echo(f"... and {len(report.problems) - len(shown)} more (--json lists all)")
    count = len(report.problems)
    verdict = paint(f"{count} problem{'s' if count > 1 else ''}", "red")
    fine = f"{report.files} files, {show_size(report.bytes)}, are as they should be"
    status = f" ({report.status})" if report.status else ""
    unnamed = f"; {report.unnamed} that nothing names" if report.unnamed else ""
    name = printable(report.name)
    verdict = verdict if count else paint("fine", "green")
    click.echo(f"{name}{status}: {verdict}; {fine}{unnamed}", color=True)
