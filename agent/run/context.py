"""What the parts of one run share."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Self

from agent import __version__
from agent.base.logs import Log
from agent.base.redact import Redactor
from agent.base.stop import Stop
from agent.config.settings import Settings
from agent.contract.entries import LONGEST_RUN, Began
from agent.contract.facts import Schedule
from agent.contract.ids import run_id
from agent.delivery.spool import Spool, SpooledRun
from agent.machine.host import host_record
from agent.release.repository import channel_of
from agent.run.call import Call


@dataclass(frozen=True, slots=True)
class RunContext:
    """What the parts of one run share.

    Attributes:
        call: What the run is asked to do, and with what.
        spool: The runs that are not closed yet.
        waiting: Those of them that an earlier process left.
        run: This one.
        began: How it began, as far as that is known at once.
        clock: When it began, on the clock that nobody sets: the machine's other one may be, once its network is up.
    """

    call: Call
    spool: Spool
    waiting: Sequence[SpooledRun]
    run: SpooledRun
    began: Began
    clock: float

    @classmethod
    def begin(cls, call: Call, spool: Spool, waiting: Sequence[SpooledRun]) -> Self:
        """Begin a run in the spool: from here on a later run can finish it."""
        clock, began = monotonic(), _beginning(call)
        run = spool.begin(run_id(began.started, os.urandom(3)))
        return cls(call, spool, waiting, run, began, clock)

    @property
    def settings(self) -> Settings:
        """The configuration."""
        return self.call.settings

    @property
    def stop(self) -> Stop:
        """A request to end early."""
        return self.call.stop

    @property
    def log(self) -> Log:
        """The run's log."""
        return self.call.run_logger.log

    @property
    def redactor(self) -> Redactor:
        """Hides the secrets that are known by now."""
        return self.call.run_logger.redactor

    def seconds_left(self) -> float:
        """Return the seconds until every job must have ended."""
        return self.clock + self.settings.job_seconds - monotonic()


def _beginning(call: Call) -> Began:
    schedule, started = call.settings.schedule, datetime.now(UTC)
    due = None
    if schedule.expression:
        due = Schedule(
            expression=schedule.expression,
            timezone=schedule.timezone,
            grace_seconds=schedule.grace,
        )
    return Began(
        started=started,
        deadline=started + min(timedelta(seconds=call.settings.limits.run), LONGEST_RUN),
        host=host_record(state=call.places.state),
        agent=__version__,
        channel=channel_of(call.settings.release),
        schedule=due,
    )
