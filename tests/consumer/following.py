"""A history that follows a bucket, for tests."""

from datetime import UTC, datetime
from pathlib import Path

from agent.core.ids import run_id
from agent.core.results import JobCause, JobResult, JobStatus
from consumer.archive.follow import Look, look
from consumer.archive.reader import Reader
from consumer.archive.writer import Writer
from tests.bucket.bucket import Bucket

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SHOT = "_run/evidence/quotes/shot.png"


def run_at(hour: int, day: int = 22) -> str:
    """A run of that day."""
    return run_id(datetime(2026, 11, day, hour, tzinfo=UTC), bytes([hour, day, 1]))


class Home:
    """A history in a folder, and the bucket it follows."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.path = folder / "history.sqlite"
        self.reader = Reader(self.path)
        self._bucket = bucket

    async def looks(self, now: datetime = NOW) -> Look:
        """Look once, with a process of its own, so to say."""
        bucket = self._bucket.reader()
        writer = Writer(self.path, bucket.name)
        try:
            return await look(bucket, writer, now)
        finally:
            writer.close()

    def refused(self) -> list[str]:
        """The problems of what was refused."""
        return [row.problem for row in self.reader.refused(100)]


def failed(message: str = "no .quote") -> JobResult:
    """A job that failed."""
    return JobResult(
        name="quotes", status=JobStatus.FAILED, cause=JobCause.PAGE_CHANGED, message=message
    )
