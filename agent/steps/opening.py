"""What a run begins with: what it is asked, its journal, the orders of its errands, its browser, its deadline."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent import __version__
from agent.base.logs import RunLogger
from agent.base.progress import Progress
from agent.base.stop import Stop
from agent.browser import Place, Prewarm, early
from agent.config.faults import Fault
from agent.config.locate import Locations
from agent.config.settings import Settings
from agent.core.ids import run_id
from agent.core.journal import Journal
from agent.core.manifest import RunRecord, StartedMarker
from agent.core.results import RunStatus
from agent.core.shards import NOTHING_ASKED, Asked
from agent.machine.host import host_record, refused_boots
from agent.release.repository import TRACK
from agent.secrets.keyring import Keyring
from agent.steps.errands import Orders, SlotWish
from agent.steps.spool import Spool, SpooledRun


@dataclass(frozen=True, slots=True)
class Call:
    """What a run is asked to do, and with what.

    Attributes:
        settings: The configuration.
        places: Where state, cache and the default bucket are.
        environ: The environment, of which programs get what they need.
        stop: The wish to end early.
        run_logger: Where the log goes.
        progress: Who watches.
        only: Names of the jobs to run; empty for all.
        machine: Whether this is a machine of its own, which nobody watches.
        slot: The scheduled time that the run is for; "tag" when EC2's tag of the machine tells it.
        asked: What is known of the shard that the run is.
        refused: Faults of the configuration that the machine was launched with: they are reported, and nothing runs.
    """

    settings: Settings
    places: Locations
    environ: Mapping[str, str]
    stop: Stop
    run_logger: RunLogger
    progress: Progress
    only: frozenset[str] = frozenset()
    machine: bool = False
    slot: SlotWish = None
    asked: Asked = NOTHING_ASKED
    refused: tuple[Fault, ...] = ()


def new_journal(state: Path, warnings: tuple[str, ...] = ()) -> Journal:
    """Return the journal of a run that begins now.

    Args:
        state: The machine's state directory.
        warnings: What was found wrong there.
    """
    started = datetime.now(UTC)
    refused = refused_boots(state)
    return Journal(
        run=RunRecord(
            run_id=run_id(started, os.urandom(3)),
            status=RunStatus.INTERRUPTED,  # until it is known better
            started=started,
            finished=started,
            agent=__version__,
            host=host_record(state=state),
            warnings=(*warnings, refused) if refused else warnings,
        )
    )


def orders_of(call: Call, spool: Spool, waiting: list[SpooledRun], spooled: SpooledRun) -> Orders:
    """Return what the run's errands need to know.

    Args:
        call: What the run is asked to do.
        spool: The spool.
        waiting: Runs in it that an earlier process left.
        spooled: This run.
    """
    record = spooled.journal.run
    release = call.settings.release
    marker = StartedMarker(
        run_id=record.run_id,
        started=record.started,
        deadline=deadline_of(spooled, call.settings),
        host=record.host.name,
        release_wanted=release.branch or release.track or TRACK,
    )
    return Orders(
        settings=call.settings,
        places=call.places,
        environ=call.environ,
        run_logger=call.run_logger,
        spool=spool,
        waiting=waiting,
        marker=marker,
        host=record.host,
        slot=call.slot,
        stop=call.stop,
        asked=call.asked,
        only=call.only,
    )


def browser_of(call: Call, spooled: SpooledRun, keyring: Keyring) -> Prewarm:
    """Return the run's browser, which nobody has asked for yet."""
    place = Place(spooled.run_id, spooled.browser, spooled.downloads)
    return early(
        place,
        settings=call.settings.browser,
        environ=call.environ,
        log=call.run_logger.log,
        login=keyring.docker,
    )


def deadline_of(spooled: SpooledRun, settings: Settings) -> datetime:
    """Return when the run must be over, its hand-off included."""
    return spooled.journal.run.started + timedelta(seconds=settings.limits.run)
