"""What a run's manifest will say, as far as it is known by now."""

from typing import Any

from agent.contract.ids import Batch
from agent.contract.manifest import RunRecord
from agent.machine.host import refused_boots
from agent.run.context import RunContext

MOST_WARNINGS = 100
MOST_TEXT = 2000


class Draft:
    """The record of a run, without secrets.

    Attributes:
        record: The record. Until the end of the run it names the run as a batch of its own.
    """

    def __init__(self, context: RunContext) -> None:
        run = context.run.run
        self._context = context
        batch = Batch.of_run(context.settings.schedule.name, run)
        self.record = RunRecord.begun(run, batch, context.began)
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
