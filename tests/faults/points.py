"""The crash points: every step of a run that makes something durable, here or in the bucket, by name."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a run.

    Attributes:
        name: What the tables call it.
        where: `module:function:edge` as tests/faults/crash.py understands it.
    """

    name: str
    where: str

    @property
    def place(self) -> str:
        """The function."""
        return self.where.rpartition(":")[0]


def _at(name: str, module: str, function: str, *edges: str) -> tuple[Point, ...]:
    return tuple(
        Point(f"{name}: {_EDGES[edge]}", f"agent.{module}:{function}:{edge}") for edge in edges
    )


_EDGES = {"enter": "before", "leave": "after", "yield": "held"}

POINTS: tuple[Point, ...] = (
    *_at("lock of the state directory", "base.durable", "only_one", "yield"),
    *_at("run entered in the spool", "steps.spool", "Spool.begin", "enter", "leave"),
    *_at("journal saved", "steps.spool", "SpooledRun.save", "enter", "leave"),
    *_at("file replaced: its draft", "base.durable", "_draft_of", "leave"),
    *_at("file replaced: the directory's fsync", "base.durable", "sync_directory", "enter"),
    *_at("file replaced", "base.durable", "write_atomic", "leave"),
    *_at("release fetched", "release.mirror", "Mirror.fetch", "enter", "leave"),
    *_at("release's marker", "release.store", "write_marker", "enter", "leave"),
    *_at("release's facts noted", "release.memory", "Memory.learn", "enter", "leave"),
    *_at("release's facts put", "release.memory", "Memory._put", "enter", "leave"),
    *_at("link replaced", "base.durable", "point_to", "enter", "leave"),
    *_at("old release removed", "release.store", "_remove", "enter", "leave"),
    *_at("memory restored", "jobs.context", "JobContext._fetch_state", "leave"),
    *_at("memory packed", "jobs.state", "pack", "enter", "leave"),
    *_at("job's files on the disk", "base.durable", "sync_file_system", "enter", "leave"),
    *_at("file sent", "steps.courier", "Courier._put", "enter", "leave"),
    *_at("upload noted", "steps.receipts", "Receipts.note", "enter", "leave"),
    *_at("files to be named", "steps.receipts", "Receipts.expect", "enter", "leave"),
    *_at("object put", "bucket.store", "Bucket.put", "enter", "leave"),
    *_at("large object put", "bucket.store", "Bucket.put_stream", "enter", "leave"),
    *_at("object created", "bucket.store", "Bucket._put_new", "enter", "leave"),
    *_at("objects deleted", "bucket.store", "Bucket.delete", "enter", "leave"),
    *_at("results sent", "steps.packing", "send_results", "leave"),
    *_at("memories saved", "steps.packing", "save_states", "enter", "leave"),
    *_at("listing compared", "steps.receipts", "Receipts.hold", "enter", "leave"),
    *_at("bucket reconciled", "steps.commit", "reconcile", "enter", "leave"),
    *_at("manifest sealed", "steps.commit", "seal_manifest", "enter", "leave"),
    *_at("commit", "steps.commit", "commit", "enter", "leave"),
    *_at("manifest or index entry put", "steps.once", "put_once", "enter", "leave"),
    *_at("no second index entry", "steps.once", "leave_one", "enter", "leave"),
    *_at("run discarded", "steps.spool", "SpooledRun.discard", "enter", "leave"),
    *_at("run cleared away", "steps.spool", "_clear_away", "enter"),
    *_at("earlier run delivered", "steps.recovery", "_deliver", "enter", "leave"),
)

SHARD_POINTS: tuple[Point, ...] = (
    *_at("shard's earlier commits read", "steps.shards", "standing_of", "leave"),
    *_at("shard's place taken", "steps.shards", "take_place", "enter", "leave"),
    *_at("commit of a shard", "steps.commit", "commit", "enter", "leave"),
    *_at("shard's run discarded", "steps.spool", "SpooledRun.discard", "enter", "leave"),
)
"""What a run that is a shard does besides, and the steps around it."""
