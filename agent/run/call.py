"""What a run is asked to do, and with what."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from agent.base.logs import RunLogger
from agent.base.progress import Progress
from agent.base.stop import Stop
from agent.batch.shards import NO_HINTS, ShardHints
from agent.config.faults import Fault
from agent.config.locate import Locations
from agent.config.settings import Settings

SlotWish = datetime | Literal["tag"] | None


@dataclass(frozen=True, slots=True)
class Call:
    """What a run is asked to do, and with what.

    Attributes:
        settings: The configuration.
        places: Where state, cache and the default bucket are.
        environ: The environment, of which programs get what they need.
        stop: A request to end early.
        run_logger: Where the log goes.
        progress: Who watches.
        only: Names of the jobs to run; empty for all.
        machine: Whether this is a machine of its own, which nobody watches.
        slot: The scheduled time that the run is for; "tag" when EC2's tag of the machine tells it.
        shard: What is known of the shard that the run is.
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
    shard: ShardHints = NO_HINTS
    refused: tuple[Fault, ...] = ()

    @property
    def keeps_disk(self) -> bool:
        """Whether a later run finds this one's spool."""
        return self.settings.power.has_disk(machine=self.machine)
