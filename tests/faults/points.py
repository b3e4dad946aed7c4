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
    *_at("run entered in the spool", "delivery.spool", "Spool.begin", "enter", "leave"),
    *_at("beginning noted", "delivery.spool", "SpooledRun.begin", "enter", "leave"),
    *_at("entry put", "batch.log", "LogWriter._put", "enter", "leave"),
    *_at("pointer put", "batch.log", "LogWriter._point", "enter", "leave"),
    *_at("plan noted", "delivery.spool", "SpooledRun.plan", "enter", "leave"),
    *_at("record noted", "delivery.spool", "SpooledRun.save", "enter", "leave"),
    *_at("file replaced: its draft", "base.durable", "_draft_of", "leave"),
    *_at("file replaced: the directory's fsync", "base.durable", "sync_directory", "enter"),
    *_at("file replaced", "base.durable", "write_atomic", "leave"),
    *_at("release fetched", "release.mirror", "Mirror.fetch", "enter", "leave"),
    *_at("release's marker", "release.store", "write_marker", "enter", "leave"),
    *_at("release's facts noted", "release.memory", "Memory.learn", "enter", "leave"),
    *_at("release's facts put", "release.memory", "Memory._put", "enter", "leave"),
    *_at("old release removed", "release.store", "_remove", "enter", "leave"),
    *_at("state restored", "jobs.context", "JobContext._fetch_state", "leave"),
    *_at("state packed", "jobs.state", "pack", "enter", "leave"),
    *_at("job's end noted", "delivery.spool", "SpooledRun.end", "enter", "leave"),
    *_at("job's files on the disk", "base.durable", "sync_file_system", "enter", "leave"),
    *_at("file sent", "delivery.uploader", "Uploader._put", "enter", "leave"),
    *_at("upload noted", "delivery.sent", "SentFiles.note", "enter", "leave"),
    *_at("files to be named", "delivery.sent", "SentFiles.expect", "enter", "leave"),
    *_at("listing compared", "delivery.sent", "SentFiles.hold", "enter", "leave"),
    *_at("package or manifest kept", "delivery.database", "Database.keep", "enter", "leave"),
    *_at("package sealed", "delivery.spool", "SpooledRun.seal", "enter", "leave"),
    *_at("package or manifest put", "delivery.prepare", "put_document", "enter", "leave"),
    *_at("state put", "delivery.prepare", "Preparer._put_state", "enter", "leave"),
    *_at("object put", "bucket.store", "Bucket.put", "enter", "leave"),
    *_at("object of a log put", "bucket.store", "Bucket.put_once", "enter", "leave"),
    *_at("large object put", "bucket.store", "Bucket.put_stream", "enter", "leave"),
    *_at("jobs appended", "delivery.committer", "Committer._append", "enter", "leave"),
    *_at("jobs noted as committed", "delivery.spool", "SpooledRun.commit", "enter", "leave"),
    *_at("entries found in a listing", "batch.log", "LogWriter.prove", "enter", "leave"),
    *_at("part of the log cut", "delivery.spool", "SpooledRun.cut_part", "enter", "leave"),
    *_at("manifest sealed", "delivery.delivery", "Delivery._seal_manifest", "enter", "leave"),
    *_at("end noted", "delivery.spool", "SpooledRun.seal_end", "enter", "leave"),
    *_at("run discarded", "delivery.spool", "SpooledRun.discard", "enter", "leave"),
    *_at("run cleared away", "delivery.spool", "_clear_away", "enter"),
    *_at("earlier run finished", "delivery.recovery", "_finish", "enter", "leave"),
)

SHARD_POINTS: tuple[Point, ...] = (
    *_at("batch looked at", "batch.log", "LogReader.look", "enter", "leave"),
    *_at("batch begun", "batch.session", "BatchSession.begin", "enter", "leave"),
    *_at("batch settled", "batch.session", "BatchSession.settle", "enter", "leave"),
    *_at("jobs of a shard appended", "delivery.committer", "Committer._append", "enter", "leave"),
    *_at(
        "shard's manifest sealed", "delivery.delivery", "Delivery._seal_manifest", "enter", "leave"
    ),
    *_at("shard's run discarded", "delivery.spool", "SpooledRun.discard", "enter", "leave"),
)
"""What a run that is a shard does besides, and the steps around it."""

RECOVERY = "agent.delivery.recovery"
"""Where a run that died is finished: there is one only after a kill."""
ON_THE_KEPT_DISK = (RECOVERY, "agent.release.store:_remove")
"""What happens only where an earlier run has left something."""
