"""What a run's manifest will say, as far as it is known by now."""

from typing import Any

from agent.contract.manifest import RunRecord
from agent.contract.results import RunStatus
from agent.machine.host import refused_boots
from agent.run.context import RunContext

MOST_WARNINGS = 100
MOST_TEXT = 2000


class Draft:
    """The record of a run, without secrets.

    Attributes:
        record: It; a run that dies is interrupted.
    """

    def __init__(self, context: RunContext) -> None:
        began, schedule = context.began, context.settings.schedule
        self._context = context
        self.record = RunRecord(
            run=context.run.run,
            schedule=schedule.name,
            batch=context.run.run,
            status=RunStatus.INTERRUPTED,
            started=began.started,
            finished=began.started,
            agent=began.agent,
            host=began.host,
            scheduled=began.schedule,
            channel=began.channel,
        )
        self.warn(*context.spool.warnings, refused_boots(context.call.places.state))

    def note(self, **changes: Any) -> None:
        """Change fields of the record."""
        redactor = self._context.redactor
        clean = {name: redactor.field(name, value) for name, value in changes.items()}
        self.record = self.record.model_copy(update=clean)

    def warn(self, *texts: str) -> None:
        """Add what a person should look at, once."""
        texts = tuple(text[:MOST_TEXT] for text in texts if text)
        warnings = tuple(dict.fromkeys((*self.record.warnings, *texts)))
        self.note(warnings=warnings[:MOST_WARNINGS])
