"""`mayfly release`: what an operator sees of releases and does about them."""

import asyncio
import json
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from agent import __version__
from agent.base import threads
from agent.base.console import aligned, printable
from agent.base.errors import UsageError
from agent.base.logs import RunLogger
from agent.cli.surroundings import Options, configuration_options, surroundings
from agent.contract.releases import Fact
from agent.contract.results import Record
from agent.release.memory import Memory
from agent.release.operate import Row, find, operators_memory, overview, pin, rollback, unpin
from agent.release.publish import Plan, publish
from agent.release.repository import TRACK
from agent.release.store import ReleaseStore
from agent.secrets.sources import open_bucket

Name = click.argument("name", metavar="TAG|COMMIT")
Reason = click.option("--reason", metavar="TEXT", default="", help="Kept with the decision.")
AsJson = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def release() -> None:
    """See what the bucket knows of releases, pin one, go back to one, and make a new one."""


@release.command("list")
@configuration_options
@AsJson
def list_(options: Options, *, as_json: bool) -> None:
    """Show the releases that are known, and what is known of them: good, bad and why, pinned, cut off."""
    releases = _Releases.read(options)
    if as_json:
        click.echo(json.dumps(_data(releases), indent=1))
    else:
        for line in (*_table(releases.rows), *_notes(releases)):
            click.echo(line)


@release.command()
@configuration_options
@Name
@AsJson
def show(options: Options, name: str, *, as_json: bool) -> None:
    """Show all that is known of one release."""
    releases = _Releases.read(options)
    row = find(releases.rows, name)
    if row is None:
        raise UsageError(f'no release "{name}" is known', remedy="mayfly release list")
    data = _row_data(row)
    if as_json:
        click.echo(json.dumps(data, indent=1))
    else:
        for key, value in data.items():
            if value not in (None, False, [], {}, 0):
                click.echo(f"{key:12} {printable(str(value))}")


@release.command("pin")
@configuration_options
@Name
@Reason
@AsJson
def pin_(options: Options, name: str, *, reason: str, as_json: bool) -> None:
    """Have the next runs take this release and no other, until it is unpinned.

    It is verified like any other. It may be older than what ran before, but not older than the image's.
    """
    releases = _Releases.read(options)
    pinned = releases.runner.run(pin(releases.memory, releases.rows, name, reason))
    where = pinned.commit[:12] if pinned.commit else "not known yet: the next run looks for it"
    _print(
        as_json,
        {"pinned": pinned.ref, "commit": pinned.commit},
        f"pinned {pinned.ref} ({where}); undo it with: mayfly release unpin",
    )


@release.command("unpin")
@configuration_options
@Reason
@AsJson
def unpin_(options: Options, *, reason: str, as_json: bool) -> None:
    """Have the next runs take the newest release again."""
    releases = _Releases.read(options)
    was = releases.runner.run(unpin(releases.memory, reason))
    text = f"unpinned {was.ref}" if was else "nothing was pinned"
    _print(as_json, {"unpinned": was and was.ref}, text)


@release.command("rollback")
@configuration_options
@click.option("--to", metavar="TAG|COMMIT", help="Go back to this one [default: the one before].")
@Reason
@AsJson
def rollback_(options: Options, *, to: str | None, reason: str, as_json: bool) -> None:
    """Go back to an earlier good release, and stay there until a newer one is published."""
    releases = _Releases.read(options)
    left, target = releases.runner.run(
        rollback(releases.memory, releases.rows, to, version=__version__, reason=reason)
    )
    _print(
        as_json,
        {"left": left.ref, "runs": target.ref, "commit": target.commit},
        f"{target.ref} ({target.commit[:12]}) runs from now on\n"
        f"{left.ref} ({left.commit[:12]}) will not run again; a newer release will",
    )


def _print(as_json: bool, data: dict[str, object], text: str) -> None:
    click.echo(json.dumps(data) if as_json else "\n".join(map(printable, text.splitlines())))


@dataclass(frozen=True)
class _Releases:
    """What is known of releases, and the event loop in which it was read.

    Attributes:
        memory: What the bucket knows.
        rows: The same by release, with what this computer has.
        runner: The loop.
    """

    memory: Memory
    rows: list[Row]
    runner: asyncio.Runner

    @classmethod
    def read(cls, options: Options) -> "_Releases":
        """Read what is known of the releases that the configuration follows."""
        around = surroundings()
        loaded, places = options.load_or_fail(around)
        who = around.environ.get("USER") or around.environ.get("LOGNAME") or "operator"
        memory = operators_memory(loaded.settings, f"{who}@{platform.node()}", RunLogger().log)
        runner = asyncio.Runner()
        runner.run(
            memory.connect(open_bucket(loaded.settings.store, places.bucket, around.environ))
        )
        release_store = ReleaseStore.at(places.state, places.cache)
        rows = overview(memory.known, release_store, __version__, datetime.now(UTC))
        return cls(memory, rows, runner)


@release.command()
@configuration_options
@click.argument("version", metavar="VERSION")
@click.option(
    "--key", metavar="FILE", help="ssh key to sign with [default: git's user.signingKey]."
)
@click.option(
    "--allowed-signers",
    "signers",
    type=click.Path(path_type=Path, dir_okay=False, exists=True, resolve_path=True),
    help="Verify against this file [default: release.allowed_signers, else git's own].",
)
@click.option(
    "-m", "--message", default="", help='The tag\'s message [default: "Release VERSION"].'
)
@click.option(
    "--push",
    "remote",
    flag_value="origin",
    default=None,
    is_flag=False,
    metavar="REMOTE",
    help="Push the tag [REMOTE: origin].",
)
@AsJson
def new(
    options: Options,
    *,
    version: str,
    key: str | None,
    signers: Path | None,
    message: str,
    remote: str | None,
    as_json: bool,
) -> None:
    """Publish the working tree's commit: check its jobs, tag it, sign the tag, and verify the signature.

    VERSION is the tag, such as v1.4. With --push it is pushed as well, to origin or to the named remote.
    """
    around = surroundings()
    loaded, _ = options.load_or_fail(around)
    settings = loaded.settings.release
    plan = Plan(
        folder=around.cwd,
        version=version,
        jobs=settings.jobs,
        track=settings.track or TRACK,
        key=key,
        signers=signers or settings.allowed_signers,
        message=message,
        remote=remote,
    )
    made = threads.run(publish(plan, environ=around.environ, version=__version__))
    pushed = remote is not None
    if as_json:
        signer = made.signer and made.signer.model_dump()
        data = {"tag": version, "commit": made.commit, "signer": signer, "pushed": pushed}
        click.echo(json.dumps(data))
        return
    by = f" by {made.signer.principal} with {made.signer.key}" if made.signer else ""
    click.echo(f"{version} is commit {made.commit[:12]}, signed{by}")
    if made.signer is None:
        click.echo("the signature was not verified: give --allowed-signers", err=True)
        if made.line:
            click.echo(f"a machine trusts it with this line in its allowed_signers:\n{made.line}")
    click.echo("pushed" if pushed else f"publish it with: git push origin {version}")


def _table(rows: list[Row]) -> list[str]:
    if not rows:
        return ["no release is known yet"]
    table = [["release", "commit", "good since", "", "by"]]
    for row in rows:
        said = row.bad or row.proved
        since = f"{row.proved.at:%Y-%m-%d %H:%M}" if row.proved else "-"
        by = printable(said.by) if said and said.by else "-"
        table.append([printable(row.ref), row.commit[:12], since, ", ".join(_words(row)), by])
    return aligned(table)


def _words(row: Row) -> list[str]:
    bad = row.bad.bad if row.bad else None
    words = {
        "last good": row.good,
        "pinned": row.pinned,
        "this image's": row.image,
        f"cut off {row.died} times": row.died > 0,
        f"bad: {printable(bad.reason[:60])}" if bad else "": bad is not None,
    }
    return [word for word, holds in words.items() if holds]


def _notes(releases: _Releases) -> list[str]:
    known = releases.memory.known
    lines = [f"warning: {printable(problem)}" for problem in releases.memory.problems]
    if known.pin and known.pinned:
        why = f": {printable(known.pin.reason)}" if known.pin.reason else ""
        by = printable(known.pinned.by)
        lines.append(
            f"pinned: {printable(known.pin.ref or '')} by {by}, {known.pinned.at:%Y-%m-%d %H:%M} UTC{why}"
        )
    if known.contact.unreachable_since:
        lines.append(
            f"git has not been reachable since {known.contact.unreachable_since:%Y-%m-%d %H:%M} UTC"
        )
    return lines


def _data(releases: _Releases) -> dict[str, object]:
    known, contact = releases.memory.known, releases.memory.known.contact
    pinned = known.pinned
    return {
        "releases": [_row_data(row) for row in releases.rows],
        "pin": _with_origin(pinned, known.pin) if pinned and known.pin else None,
        "problems": releases.memory.problems,
        "reached": contact.reached and contact.reached.isoformat(),
        "unreachable_since": contact.unreachable_since and contact.unreachable_since.isoformat(),
    }


def _with_origin(fact: Fact, part: Record) -> dict[str, object]:
    """Return a part of what is known, with when and by whom it was written."""
    return {
        **part.model_dump(mode="json", exclude_none=True),
        "since": fact.at.isoformat(),
        "by": fact.by,
        "run": fact.run,
    }


def _row_data(row: Row) -> dict[str, object]:
    marker, proved = row.marker, row.proved
    good = proved.good if proved else None
    return {
        "ref": row.ref,
        "commit": row.commit,
        "repository": good.repository if good else marker and marker.repository,
        "good": row.good,
        "proved": _with_origin(proved, good) if proved and good else None,
        "bad": _with_origin(row.bad, row.bad.bad) if row.bad and row.bad.bad else None,
        "pinned": row.pinned,
        "cut_off": row.died,
        "image": row.image,
        "here": marker is not None,
        "verified_by": marker and marker.verified_by and marker.verified_by.model_dump(),
    }
