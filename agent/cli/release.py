"""`mayfly release`: what an operator sees of releases and does about them."""

import asyncio
import json
import os
import platform
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from agent import __version__
from agent.base import threads
from agent.base.console import aligned, printable
from agent.base.errors import ExitCode, UsageError
from agent.base.logs import RunLogger
from agent.bucket.address import bucket_at
from agent.bucket.store import Bucket
from agent.cli.surroundings import configuration_options, load_or_fail, surroundings
from agent.config.locate import Locations
from agent.config.settings import Store
from agent.contract.ids import run_id
from agent.contract.releases import Fact
from agent.contract.results import Record
from agent.release.memory import Memory, Writer
from agent.release.operate import Row, find, overview, pin, rollback, unpin
from agent.release.publish import Plan, Published, publish
from agent.release.repository import TRACK, channel_of
from agent.release.store import ReleaseStore
from agent.secrets.sources import store_credentials

T = TypeVar("T")
Pairs = tuple[str, ...]
Name = click.argument("name", metavar="TAG|COMMIT")
Reason = click.option("--reason", metavar="TEXT", default="", help="Kept with the decision.")
AsJson = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def release() -> None:
    """See what the bucket knows of releases, pin one, go back to one, and make a new one."""


@release.command("list")
@configuration_options
@AsJson
def list_(config: Path | None, pairs: Pairs, store: str | None, *, as_json: bool) -> None:
    """Show the releases that are known, and what is known of them: good, bad and why, pinned, cut off."""
    desk = _Desk.read(config, pairs, store)
    if as_json:
        click.echo(json.dumps(_data(desk), indent=1))
    else:
        for line in (*_table(desk.rows), *_notes(desk)):
            click.echo(line)
    sys.exit(ExitCode.DONE)


@release.command()
@configuration_options
@Name
@AsJson
def show(config: Path | None, pairs: Pairs, store: str | None, name: str, *, as_json: bool) -> None:
    """Show all that is known of one release."""
    desk = _Desk.read(config, pairs, store)
    row = find(desk.rows, name)
    if row is None:
        raise UsageError(f'no release "{name}" is known', remedy="mayfly release list")
    data = _row_data(row)
    if as_json:
        click.echo(json.dumps(data, indent=1))
    else:
        for key, value in data.items():
            if value not in (None, False, [], {}, 0):
                click.echo(f"{key:12} {printable(str(value))}")
    sys.exit(ExitCode.DONE)


@release.command("pin")
@configuration_options
@Name
@Reason
@AsJson
def pin_(
    config: Path | None,
    pairs: Pairs,
    store: str | None,
    name: str,
    *,
    reason: str,
    as_json: bool,
) -> None:
    """Have the next runs take this release and no other, until it is unpinned.

    It is verified like any other. It may be older than what ran before, but not older than the image's.
    """
    desk = _Desk.read(config, pairs, store)
    pinned = desk.run(pin(desk.memory, desk.rows, name, reason))
    where = pinned.commit[:12] if pinned.commit else "not known yet: the next run looks for it"
    _say(
        as_json,
        {"pinned": pinned.ref, "commit": pinned.commit},
        f"pinned {pinned.ref} ({where}); undo it with: mayfly release unpin",
    )


@release.command("unpin")
@configuration_options
@Reason
@AsJson
def unpin_(
    config: Path | None, pairs: Pairs, store: str | None, *, reason: str, as_json: bool
) -> None:
    """Have the next runs take the newest release again."""
    desk = _Desk.read(config, pairs, store)
    was = desk.run(unpin(desk.memory, reason))
    text = f"unpinned {was.ref}" if was else "nothing was pinned"
    _say(as_json, {"unpinned": was and was.ref}, text)


@release.command("rollback")
@configuration_options
@click.option("--to", metavar="TAG|COMMIT", help="Go back to this one [default: the one before].")
@Reason
@AsJson
def rollback_(
    config: Path | None,
    pairs: Pairs,
    store: str | None,
    *,
    to: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Go back to an earlier good release, and stay there until a newer one is published."""
    desk = _Desk.read(config, pairs, store)
    left, target = desk.run(
        rollback(desk.memory, desk.rows, to, version=__version__, reason=reason)
    )
    _say(
        as_json,
        {"left": left.ref, "runs": target.ref, "commit": target.commit},
        f"{target.ref} ({target.commit[:12]}) runs from now on\n"
        f"{left.ref} ({left.commit[:12]}) will not run again; a newer release will",
    )


def _say(as_json: bool, data: dict[str, object], text: str) -> None:
    click.echo(json.dumps(data) if as_json else text)
    sys.exit(ExitCode.DONE)


@dataclass(frozen=True)
class _Desk:
    """What an operator looks at, and the loop in which it was read.

    Attributes:
        memory: What the bucket knows.
        rows: The same by release, with what this computer has.
        runner: The loop.
    """

    memory: Memory
    rows: list[Row]
    runner: asyncio.Runner

    @classmethod
    def read(cls, config: Path | None, pairs: Pairs, store: str | None) -> "_Desk":
        """Read what is known of the releases that the configuration follows."""
        around = surroundings()
        loaded, places = load_or_fail(config, pairs, store, around)
        settings, now = loaded.settings, datetime.now(UTC)
        who = around.environ.get("USER") or around.environ.get("LOGNAME") or "operator"
        memory = Memory(
            channel_of(settings.release),
            Writer(run_id(now, os.urandom(3)), f"{who}@{platform.node()}"[:300], now),
            copy=None,
            now=lambda: datetime.now(UTC),
            log=RunLogger().log,
        )
        runner = asyncio.Runner()
        runner.run(memory.connect(_opened(settings.store, places, around.environ)))
        release_store = ReleaseStore.at(places.state, places.cache)
        return cls(memory, overview(memory.known, release_store, __version__, now), runner)

    def run(self, deciding: Coroutine[Any, Any, T]) -> T:
        """Carry out a decision."""
        return self.runner.run(deciding)


async def _opened(store: Store, places: Locations, environ: Mapping[str, str]) -> Bucket:
    credentials = await store_credentials(store, environ)
    return await asyncio.to_thread(
        Bucket.open, bucket_at(store, places.bucket), credentials, environ
    )


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
    "--push", "remote", flag_value="origin", default=None, is_flag=False, metavar="REMOTE"
)
@AsJson
def new(
    config: Path | None,
    pairs: Pairs,
    store: str | None,
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
    loaded, _ = load_or_fail(config, pairs, store, around)
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
    if as_json:
        signer = made.signer and made.signer.model_dump()
        click.echo(
            json.dumps(
                {"tag": version, "commit": made.commit, "signer": signer, "pushed": made.pushed}
            )
        )
    else:
        _tell(version, made)
    sys.exit(ExitCode.DONE)


def _tell(version: str, made: Published) -> None:
    by = (
        f", signed by {made.signer.principal} with {made.signer.key}" if made.signer else ", signed"
    )
    click.echo(f"{version} is commit {made.commit[:12]}{by}")
    if made.signer is None:
        click.echo("nobody looked at the signature: give --allowed-signers", err=True)
        if made.line:
            click.echo(f"a machine trusts it with this line in its allowed_signers:\n{made.line}")
    click.echo("pushed" if made.pushed else f"publish it with: git push origin {version}")


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


def _notes(desk: _Desk) -> list[str]:
    known = desk.memory.known
    lines = [f"warning: {printable(problem)}" for problem in desk.memory.problems]
    if known.pin and known.pinned:
        why = f": {printable(known.pin.reason)}" if known.pin.reason else ""
        by = printable(known.pinned.by)
        lines.append(f"pinned: {known.pin.ref} by {by}, {known.pinned.at:%Y-%m-%d %H:%M} UTC{why}")
    if known.contact.unreachable_since:
        lines.append(
            f"git has not been reachable since {known.contact.unreachable_since:%Y-%m-%d %H:%M} UTC"
        )
    return lines


def _data(desk: _Desk) -> dict[str, object]:
    known, contact = desk.memory.known, desk.memory.known.contact
    pinned = known.pinned
    return {
        "releases": [_row_data(row) for row in desk.rows],
        "pin": _told(pinned, known.pin) if pinned and known.pin else None,
        "problems": desk.memory.problems,
        "reached": contact.reached and contact.reached.isoformat(),
        "unreachable_since": contact.unreachable_since and contact.unreachable_since.isoformat(),
    }


def _told(fact: Fact, part: Record) -> dict[str, object]:
    """Return a part of what is known, with when and by whom it was told."""
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
        "proved": _told(proved, good) if proved and good else None,
        "bad": _told(row.bad, row.bad.bad) if row.bad and row.bad.bad else None,
        "pinned": row.pinned,
        "cut_off": row.died,
        "image": row.image,
        "here": marker is not None,
        "verified_by": marker and marker.verified_by and marker.verified_by.model_dump(),
    }
