"""Which batch a run is for, and what it says of that when it begins. Decisions only."""

from dataclasses import dataclass
from datetime import datetime

from agent.contract.entries import Began
from agent.contract.ids import Batch, Shard


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a run was started for.

    Attributes:
        schedule: The name of the schedule, below which its batches are.
        slot: The scheduled time; None for a run that no scheduler started.
        shard: The part that it does; None for a run that does the whole.
        retried: Whether an engine, or a person who does its work, named the group: it starts what is lost again, and a
            claim would be in its way. The machines of a fleet, whose group is the slot, claim their shard.
        by_name: Whether a person named the jobs: then each is done, also what was done before.
    """

    schedule: str = "main"
    slot: datetime | None = None
    shard: Shard | None = None
    retried: bool = False
    by_name: bool = False

    @property
    def unscheduled(self) -> bool:
        """Whether it is a batch by itself, unless it goes on with one that was cut off."""
        return self.slot is None and self.shard is None

    def batch(self, run: str) -> Batch:
        """Return the batch of a run with this purpose.

        Raises:
            ValueError: The schedule or the group has a name that cannot be in a key.
        """
        batch = Batch.of_run(self.schedule, run)
        if self.shard is not None:
            batch = Batch.of_shard(self.schedule, *self.shard)
        elif self.slot is not None:
            batch = Batch.of_slot(self.schedule, self.slot)
        if not batch.valid:
            raise ValueError(f"{batch.schedule}/{batch.name} cannot be a batch")
        return batch

    def in_batch(self, began: Began, batch: Batch) -> Began:
        """Return a run's beginning with slot and shard; a run that goes on with a slot's batch is for that slot."""
        group, shard, shards = batch.shard or (None, None, None)
        where = {
            "slot": self.slot or batch.slot,
            "group": group,
            "shard": shard,
            "shards": shards,
        }
        return began.model_copy(update=where)
