"""`mayfly maintain`."""

import json
from datetime import UTC, datetime, timedelta

import click

from agent.base import threads
from agent.base.errors import UsageError
from agent.base.units import parse_duration, show_duration
from agent.cli.surroundings import surroundings
from agent.machine.power import Lease, look_whether_idle


@click.command()
@click.option("--for", "span", metavar="DURATION", help='Stay on from now for "2h" or "1h30m".')
@click.option(
    "--end", is_flag=True, help="Give the lease back: the machine goes off once no run is active."
)
@click.option("--show", is_flag=True, help="Only say whether a lease is held [default].")
@click.option("--json", "as_json", is_flag=True, help="Print the lease as JSON.")
def maintain(span: str | None, *, end: bool, show: bool, as_json: bool) -> None:
    """Keep the machine on for a person, for a bounded time.

    A lease holds the power-off after a run and moves the dead-man's deadline, up to 24 h after power-on. It ends with
    the boot. Without a login: start the machine with `mayfly.maintain=2h` on the kernel's command line, or with an
    instance tag `mayfly-maintain` of that value.
    """
    around = surroundings()
    if not around.machine:
        raise UsageError(
            "this computer does not switch itself off", remedy="run it on the machine itself"
        )
    if (span is not None) + end + show > 1:
        raise click.UsageError("--for, --end and --show exclude each other")
    lease = Lease()
    if span is not None:
        lease.grant(_seconds(span))
    ended = end and lease.end()
    left = lease.left()
    if as_json:
        until = (datetime.now(UTC) + timedelta(seconds=left)).isoformat() if left else None
        click.echo(json.dumps({"seconds": round(left), "until": until}))
    else:
        click.echo(_words(left, ended=ended))
    if end:
        threads.run(look_whether_idle(around.environ))


def _seconds(span: str) -> float:
    try:
        return parse_duration(span)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--for") from error


def _words(left: float, *, ended: bool) -> str:
    if left:
        until = datetime.now(UTC) + timedelta(seconds=left)
        return f"the machine stays on for {show_duration(left)}, until {until:%H:%M:%S} UTC"
    if ended:
        return "the lease is given back; the machine goes off once no run is active"
    return "no lease is held; the machine goes off after its run"
