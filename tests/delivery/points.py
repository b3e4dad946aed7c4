"""Where a delivery is killed: `module:function:edge:occurrence`, as tests/faults/crash.py has it."""

from collections.abc import Sequence


def _at(module: str, function: str, *edges: str, times: Sequence[int] = (1, 2)) -> list[str]:
    return [f"agent.{module}:{function}:{edge}:{time}" for edge in edges for time in times]


BOTH = ("enter", "leave")
POINTS = [
    *_at("delivery.spool", "Spool.begin", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.begin", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.plan", *BOTH, times=[1]),
    *_at("delivery.uploader", "Uploader._put", *BOTH, times=[1, 3, 5]),
    *_at("delivery.sent", "SentFiles.note", *BOTH),
    *_at("delivery.spool", "SpooledRun.end", *BOTH, times=[1, 2, 3]),
    *_at("delivery.sent", "SentFiles.expect", "leave"),
    *_at("delivery.sent", "SentFiles.hold", *BOTH),
    *_at("delivery.database", "Database.keep", *BOTH, times=[1, 2, 3, 4]),
    *_at("delivery.spool", "SpooledRun.seal", *BOTH, times=[1, 2, 3]),
    *_at("delivery.prepare", "put_document", *BOTH, times=[1, 2, 3, 4]),
    *_at("delivery.prepare", "Preparer._put_state", *BOTH, times=[1]),
    *_at("delivery.committer", "Committer._append", *BOTH, times=[1, 2, 3]),
    *_at("batch.log", "LogWriter._put", *BOTH, times=[1, 2, 3, 4]),
    *_at("batch.log", "LogWriter._point", *BOTH, times=[1, 2, 3]),
    *_at("batch.log", "LogWriter.prove", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.commit", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.cut_part", *BOTH, times=[1, 2, 3]),
    *_at("delivery.delivery", "Delivery._seal_manifest", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.seal_end", *BOTH),
    *_at("delivery.spool", "SpooledRun.discard", *BOTH, times=[1]),
    *_at("base.durable", "sync_file_system", *BOTH, times=[1, 2, 3, 4]),
]
IN_RECOVERY = [
    *_at("delivery.spool", "SpooledRun.end", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.seal", *BOTH),
    *_at("delivery.prepare", "put_document", *BOTH),
    *_at("delivery.committer", "Committer._append", *BOTH),
    *_at("batch.log", "LogWriter._put", *BOTH),
    *_at("batch.log", "LogWriter.prove", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.commit", *BOTH, times=[1]),
    *_at("delivery.delivery", "Delivery._seal_manifest", *BOTH, times=[1]),
    *_at("delivery.spool", "SpooledRun.seal_end", *BOTH),
    *_at("delivery.spool", "SpooledRun.discard", *BOTH, times=[1]),
]
DIES = "agent.delivery.spool:SpooledRun.end:leave:3"
"""Where the run is killed whose recovery is killed: a and b are committed, c has ended, d runs."""
NEVER = "agent.delivery.spool:SpooledRun.commit:leave:0"
