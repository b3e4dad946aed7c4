"""`mayfly release`: what an operator sees of releases and does about them."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from agent import __version__
from agent.base import threads
from agent.base.console import aligned, printable
from agent.base.durable import only_one
from agent.base.errors import ExitCode, UsageError
from agent.cli.surroundings import configuration_options, load_or_fail, surroundings
from agent.release.operate import Row, find, overview, pin, rollback, unpin
from agent.release.publish import Plan, Published, publish
from agent.release.repository import TRACK
from agent.release.shelf import Shelf
from agent.release.trial import Memory

T = TypeVar("T")
Pairs = tuple[str, ...]
Name = click.argument("name", metavar="TAG|COMMIT")
AsJson = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def release() -> None:
    """See which releases are here, pin one, go back to one, and make a new one."""


@release.command("list")
@configuration_options
@AsJson
def list_(config: Path | None, pairs: Pairs, store: str | None, *, as_json: bool) -> None:
    """Show the releases on this machine, the newest first, and what is known of them."""
    rows, memory = overview(_shelf(config, pairs, store))
    if as_json:
        click.echo(json.dumps(_data(rows, memory), indent=1))
    else:
        for line in _lines(rows, memory):
            click.echo(line)
    sys.exit(ExitCode.DONE)


@release.command()
@configuration_options
@Name
@AsJson
def show(config: Path | None, pairs: Pairs, store: str | None, name: str, *, as_json: bool) -> None:
    """Show all that is known of one release."""
    rows, memory = overview(_shelf(config, pairs, store))
    row = find(rows, name)
    if row is None:
        raise UsageError(f'no release "{name}" is known here', remedy="mayfly release list")
    data = _row_data(row, memory)
    if as_json:
        click.echo(json.dumps(data, indent=1))
    else:
        for key, value in data.items():
            if value not in (None, False, [], {}):
                click.echo(f"{key:12} {printable(str(value))}")
    sys.exit(ExitCode.DONE)


@release.command("pin")
@configuration_options
@Name
def pin_(config: Path | None, pairs: Pairs, store: str | None, name: str) -> None:
    """Run this release and no other, until it is unpinned.

    One that is not on disk is fetched by the next run. It is verified like any other.
    """
    pinned = _locked(config, pairs, store, lambda shelf: pin(shelf, name, datetime.now(UTC)))
    where = pinned.commit[:12] if pinned.commit else "not here yet: the next run fetches it"
    click.echo(f"pinned {pinned.ref} ({where}); undo it with: mayfly release unpin")
    sys.exit(ExitCode.DONE)


@release.command("unpin")
@configuration_options
def unpin_(config: Path | None, pairs: Pairs, store: str | None) -> None:
    """Run the newest release again."""
    was = _locked(config, pairs, store, unpin)
    click.echo(f"unpinned {was.ref}" if was else "nothing was pinned")
    sys.exit(ExitCode.DONE)


@release.command("rollback")
@configuration_options
@click.option("--to", metavar="TAG|COMMIT", help="Go back to this one [default: the one before].")
def rollback_(config: Path | None, pairs: Pairs, store: str | None, to: str | None) -> None:
    """Go back to an earlier good release, and stay there until a newer one is published."""
    left, target = _locked(
        config,
        pairs,
        store,
        lambda shelf: rollback(shelf, to, version=__version__, now=datetime.now(UTC)),
    )
    click.echo(f"{target.ref} ({target.commit[:12]}) runs from now on")
    click.echo(f"{left.ref} ({left.commit[:12]}) will not run again; a newer release will")
    sys.exit(ExitCode.DONE)


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


def _shelf(config: Path | None, pairs: Pairs, store: str | None) -> Shelf:
    _, places = load_or_fail(config, pairs, store, surroundings())
    return Shelf.at(places.state, places.cache)


def _locked(config: Path | None, pairs: Pairs, store: str | None, act: Callable[[Shelf], T]) -> T:
    """Do something to the releases while no run is under way."""
    _, places = load_or_fail(config, pairs, store, surroundings())
    with only_one(places.state / "lock"):
        return act(Shelf.at(places.state, places.cache))


def _lines(rows: list[Row], memory: Memory) -> list[str]:
    return [*_table(rows), *_notes(memory)]


def _table(rows: list[Row]) -> list[str]:
    if not rows:
        return ["no release is here yet"]
    table = [["release", "commit", "fetched", "", "signed by"]]
    for row in rows:
        signer = row.marker.verified_by if row.marker else None
        fetched = f"{row.marker.fetched:%Y-%m-%d %H:%M}" if row.marker else "-"
        words = ", ".join(_words(row))
        table.append(
            [
                row.ref,
                row.commit[:12],
                fetched,
                words,
                printable(signer.principal) if signer else "-",
            ]
        )
    return aligned(table)


def _notes(memory: Memory) -> list[str]:
    lines = []
    if memory.lost:
        lines.append(f"warning: {printable(memory.lost)}")
    if memory.pin and memory.pin.commit is None:
        lines.append(f"pinned: {memory.pin.ref}, which the next run fetches")
    if memory.unreachable_since:
        lines.append(
            f"git has not been reachable since {memory.unreachable_since:%Y-%m-%d %H:%M} UTC"
        )
    return lines


def _words(row: Row) -> list[str]:
    words = {
        "good": row.good,
        "image's": row.baked,
        "pinned": row.pinned,
        "on trial": row.on_trial,
        f"bad: {printable(row.bad.reason[:60])}" if row.bad else "": row.bad is not None,
    }
    return [word for word, holds in words.items() if holds]


def _data(rows: list[Row], memory: Memory) -> dict[str, object]:
    return {
        "releases": [_row_data(row, memory) for row in rows],
        "pin": memory.pin and memory.pin.model_dump(mode="json"),
        "floors": {line: floor.ref for line, floor in memory.floors.items()},
        "lost": memory.lost,
        "reached": memory.reached and memory.reached.isoformat(),
        "unreachable_since": memory.unreachable_since and memory.unreachable_since.isoformat(),
    }


def _row_data(row: Row, memory: Memory) -> dict[str, object]:
    marker = row.marker
    return {
        "ref": row.ref,
        "commit": row.commit,
        "repository": marker and marker.repository,
        "fetched": marker and marker.fetched.isoformat(),
        "verified_by": marker and marker.verified_by and marker.verified_by.model_dump(),
        "good": row.good,
        "baked": row.baked,
        "pinned": row.pinned,
        "trial": memory.trial.model_dump(mode="json") if row.on_trial and memory.trial else None,
        "bad": row.bad and row.bad.model_dump(mode="json"),
    }
