"""`mayfly run`."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import click

from agent.base import threads
from agent.base.console import printable
from agent.base.errors import UsageError
from agent.base.logs import RunLogger
from agent.base.processes import adopt_orphans, kill_strays, orphans_collected, share_arenas
from agent.base.stop import Stop
from agent.base.units import show_duration
from agent.base.urlsecrets import environment_secrets
from agent.batch.shards import NO_HINTS, ShardHints, shard_hints
from agent.batch.slots import parse_slot
from agent.cli.as_machine import FLAG, differences, launched, overrides
from agent.cli.report import print_outcome
from agent.cli.surroundings import (
    Options,
    colors,
    configuration_options,
    log_option,
    log_sink,
    surroundings,
)
from agent.cli.watching import watching
from agent.config.faults import ConfigurationError, Fault
from agent.config.locate import Locations, Surroundings, locate
from agent.config.overrides import Loaded, Override
from agent.contract.results import RunStatus
from agent.jobs.isolation.unit import can_use_units
from agent.machine.gate import GATE_SECONDS, wait_at
from agent.machine.metadata import metadata_endpoint
from agent.machine.power import Lease, power_off
from agent.machine.supervision import Manager, StatusLine, supervised
from agent.notify.outcome import Outcome
from agent.run.call import Call, SlotWish
from agent.run.story import run_once


@click.command()
@configuration_options
@click.option(
    "--job", "only", multiple=True, metavar="NAME", help="Run only this job [repeatable]."
)
@click.option(
    "--slot",
    metavar="TIME",
    callback=lambda _context, _parameter, text: slot_wish(text),
    help="The scheduled time that this run is for, such as 2026-11-22T03:00:00+09:00: of all runs for it, one works."
    ' "tag": EC2\'s tag `mayfly-slot` of this machine has it.',
)
@click.option(
    "--shard", metavar="I/N", help='Do a part of the batch: "2/8" is the second of eight shards.'
)
@click.option(
    "--group", metavar="NAME", help="What the shards of one batch have in common [default: slot]."
)
@click.option(
    FLAG,
    "trial",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Run as the machine would, in a folder of its own; what differs is printed.",
)
@click.option(
    "--launch",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="With --as-machine: what the machine would be launched with (docs/launch.md).",
)
@click.option(
    "--gate",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Begin when this file is there (at most 150 s): the machine's network is up then.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@log_option
def run(
    only: tuple[str, ...],
    style: str,
    *,
    options: Options,
    slot: SlotWish,
    shard: str | None,
    group: str | None,
    trial: Path | None,
    launch: Path | None,
    gate: Path | None,
    as_json: bool,
) -> None:
    """Run the newest release's jobs once, here and now.

    Fetches the release, starts the browser, runs the jobs, hands their files over and commits the run to the bucket.
    On Ctrl-C the jobs are stopped and what they finished is handed over; a second Ctrl-C leaves it for the next run.
    """
    if gate is not None and not wait_at(gate):
        click.echo(f"no network after {GATE_SECONDS:g} s ({gate}): the run begins", err=True)
    around = surroundings()
    part = shard_hints(shard, group, around.environ)
    if trial is not None:
        around = launched(around, launch)
        machine = replace(options, store=None).load(around)
        _print_differences(machine, options.store, around)
    elif launch is not None:
        raise UsageError("--launch goes with --as-machine; a machine's own is asked of EC2")
    single = () if trial is None else overrides(trial, options.store, around)
    loaded, places, refused = _load(options, around, single)
    if loaded.settings.release.repository is None:
        raise ConfigurationError(
            [Fault(loaded.source, "release.repository", "is not set", "or try `mayfly demo`")]
        )
    outcome = threads.run(
        perform(
            loaded,
            places,
            around,
            style=style,
            only=frozenset(only),
            slot=slot,
            part=part,
            refused=refused,
        )
    )
    print_outcome(outcome, as_json=as_json, coloured=colors(sys.stdout, around))
    goes_off = loaded.settings.power.goes_off(machine=around.machine)
    if goes_off and outcome.interruption != signal.SIGINT.name:
        _leave_machine(around)
    sys.exit(outcome.exit_code)


def _print_differences(machine: Loaded, store: str | None, around: Surroundings) -> None:
    if machine.faults:
        return  # which the run itself reports
    for difference in differences(
        machine.settings,
        store=store,
        units=can_use_units(around.environ),
        metadata=metadata_endpoint(around.environ) is not None,
    ):
        click.echo(f"differs from the machine: {printable(difference)}", err=True)


def _load(
    options: Options, around: Surroundings, single: Sequence[Override]
) -> tuple[Loaded, Locations, tuple[Fault, ...]]:
    """Return the configuration, where things are, and the faults of the launch that a run reports instead of jobs."""
    loaded = options.load(around, single)
    if loaded.faults and loaded.without_launch is None:
        raise ConfigurationError(loaded.faults)
    settings = loaded.without_launch or loaded.settings
    return replace(loaded, settings=settings), locate(settings.paths, around), loaded.faults


def slot_wish(text: str | None) -> SlotWish:
    """Return what `--slot` asks for.

    Raises:
        click.BadParameter: It is no time.
    """
    if text is None or text == "tag":
        return cast('Literal["tag"] | None', text)
    slot = parse_slot(text)
    if slot is None:
        raise click.BadParameter(
            f'"{text}" is no time with a zone; write 2026-11-22T03:00:00+09:00, or "tag"'
        )
    return slot


async def perform(
    loaded: Loaded,
    places: Locations,
    around: Surroundings,
    *,
    style: str = "auto",
    only: frozenset[str] = frozenset(),
    slot: SlotWish = None,
    part: ShardHints = NO_HINTS,
    refused: tuple[Fault, ...] = (),
) -> Outcome:
    """Do one run with progress, log and signals of a foreground process, and leave no process of it."""
    share_arenas()
    adopt_orphans()
    stop, manager = Stop(), Manager.of(around.environ)
    with watching(style, around) as (progress, sink):
        run_logger = RunLogger(sink or log_sink(style, around))
        run_logger.add_secrets(loaded.settings.sensitive() | environment_secrets(around.environ))
        call = Call(
            settings=loaded.settings,
            places=places,
            environ=around.environ,
            stop=stop,
            run_logger=run_logger,
            progress=StatusLine(manager, progress) if manager.address else progress,
            only=only,
            machine=around.machine,
            slot=slot,
            shard=part,
            refused=refused,
        )
        async with supervised(manager, stop), orphans_collected():
            return await _perform(call)


async def _perform(call: Call) -> Outcome:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(run_once(call))
    signals: list[str] = []

    def on_signal(name: str) -> None:
        # Only a signal counts as the first: after a spot notice, the machine's shutdown sends one and no more.
        if signals:
            task.cancel()
        call.run_logger.log.warning("run.signal", signal=name, again=bool(signals))
        signals.append(name)
        call.stop.request(name)

    loop.add_signal_handler(signal.SIGTERM, on_signal, signal.SIGTERM.name)
    for number in (signal.SIGINT, signal.SIGHUP):
        # nohup, and a shell's `&`, have them ignored: the run is to outlive its terminal.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, on_signal, number.name)
    try:
        return await task
    except asyncio.CancelledError:
        return Outcome(
            RunStatus.INTERRUPTED,
            delivered=False,
            undelivered="told to stop twice; the next run hands over what was finished",
            interruption=call.stop.reason,
        )
    finally:
        await kill_strays()


def _leave_machine(around: Surroundings) -> None:
    held = Lease().left()
    if held:
        click.echo(f"the machine stays on for {show_duration(held)}: a lease is held", err=True)
    else:
        threads.run(power_off(around.environ))
