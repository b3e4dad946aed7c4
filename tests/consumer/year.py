"""A year of nightly runs, as a home would have it: some nights fail, some never come. The same each time it is made."""

import random
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from agent.core.ids import run_id
from agent.core.manifest import (
    HostRecord,
    ReleaseRecord,
    RunRecord,
    Stale,
)
from agent.core.outcome import run_status
from agent.core.results import CostRecord, JobCause, JobResult, JobStatus
from tests.bucket.bucket import Bucket
from tests.bucket.layout import evidence_path
from tests.bucket.leaving import leave_begun, leave_record

NIGHT = timedelta(hours=19, minutes=10)
"""Of the day in UTC: ten past four in the morning in Tokyo."""
JOBS = {"books": 90, "flights": 45, "news": 160, "prices": 70, "weather": 20}
"""Jobs, and seconds that they take at the beginning of the year."""
TROUBLES = (
    (JobStatus.FAILED, JobCause.PAGE_CHANGED, "no element matches 'table.prices > tbody > tr'"),
    (JobStatus.FAILED, JobCause.BLOCKED, "the site answered 403 to the third page"),
    (JobStatus.FAILED, JobCause.SITE_UNREACHABLE, "connect to shop.example port 443: timed out"),
    (JobStatus.TIMED_OUT, JobCause.TIMEOUT, "stopped after 20m 00s"),
    (JobStatus.EMPTY, JobCause.EXPECTATION, "3 files, expected 10 at least"),
    (JobStatus.FAILED, JobCause.BROWSER, "the browser died twice"),
)
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
"""What a scraped page may put into a message."""


def leave_year(bucket: Bucket, now: datetime, days: int = 365, *, seed: int = 7) -> list[str]:
    """Leave a run for most nights before `now`, and return their ids.

    The last four nights `prices` fails because of a changed page; its message tries to be markup.
    """
    chance = random.Random(seed)
    runs = []
    for back in range(days, 0, -1):
        began = datetime.combine((now - timedelta(days=back)).date(), datetime.min.time(), UTC)
        began += NIGHT + timedelta(seconds=chance.randrange(90))
        if began > now or chance.random() < 0.012:
            continue
        run = run_id(began, chance.randbytes(3))
        leave_begun(bucket, run)
        if chance.random() < 0.008:
            continue
        _leave(bucket, run, began, list(_results(chance, began, back, days)), stale=9 < back < 15)
        runs.append(run)
    return runs


def _results(chance: random.Random, began: datetime, back: int, days: int) -> Iterator[JobResult]:
    growth = 1 + 0.6 * (days - back) / days
    for name, usual in JOBS.items():
        seconds = usual * chance.uniform(0.9, 1.3) * growth
        trouble = chance.choice(TROUBLES) if chance.random() < 0.035 else None
        if name == "flights" and 120 < back < 131:
            trouble = TROUBLES[2]
        if name == "prices" and back <= 4:
            trouble = (JobStatus.FAILED, JobCause.PAGE_CHANGED, f"{TROUBLES[0][2]}\n{HOSTILE}")
        status, cause, message = trouble or (JobStatus.SUCCEEDED, None, "")
        yield JobResult(
            name=name,
            status=status,
            cause=cause,
            message=message,
            started=began + timedelta(seconds=20),
            finished=began + timedelta(seconds=20 + seconds),
            **(_produced(chance, usual * growth) if trouble is None else {}),
        )


def _produced(chance: random.Random, size: float) -> dict[str, int]:
    files = 1 + int(size / 40)
    return {"files": files, "bytes": files * chance.randrange(900, 2400), "items": files * 11}


def _leave(
    bucket: Bucket, run: str, began: datetime, jobs: list[JobResult], *, stale: bool
) -> None:
    finished = max(job.finished or began for job in jobs) + timedelta(seconds=15)
    record = RunRecord(
        run_id=run,
        status=run_status(tuple(jobs), interrupted=False),
        started=began,
        finished=finished,
        agent="0.1.0",
        host=HostRecord(name="ip-10-0-0-7", system="Amazon Linux 2023"),
        release=ReleaseRecord(
            repository="https://git.example/scrapers.git",
            ref=f"v1.{began.timetuple().tm_yday // 12}",
            commit=sha256(str(began.timetuple().tm_yday // 12).encode()).hexdigest()[:40],
            fetched=began,
            stale=Stale(wanted="v1.99", reason="the repository did not answer", age_seconds=9e5)
            if stale
            else None,
        ),
        jobs=tuple(jobs),
        cost=_cost((finished - began).total_seconds() + 60),
    )
    contents = {}
    for job in jobs:
        if job.status is not JobStatus.SUCCEEDED:
            contents[evidence_path(job.name, "screenshot.png")] = picture(320, 180)
            contents[evidence_path(job.name, "page.html")] = HOSTILE.encode()
        for number in range(job.files):
            path = f"{job.name}/{began:%Y-%m-%d}/page-{number + 1}.json"
            contents[path] = bytes(job.bytes // job.files)
    leave_record(bucket, record, contents)


def _cost(seconds: float) -> CostRecord:
    instance, address = 0.0182 * seconds / 3600, 0.005 * seconds / 3600
    return CostRecord(
        total_usd=instance + address,
        billed_seconds=seconds,
        market="spot",
        rate_usd_hour=0.0182,
        rate_source="spot-history",
        instance_usd=instance,
        address_usd=address,
    )


def picture(width: int, height: int) -> bytes:
    """Return a PNG with something to see: a grey page with a red bar (RFC 2083, written out)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = bytearray()
    for y in range(height):
        colour = b"\xc8\x38\x2c" if y < height // 6 else b"\xee\xee\xec"
        if height // 3 < y < height * 5 // 6 and y % 12 < 5:
            colour = b"\xb4\xb8\xb6"
        rows += b"\0" + colour * width
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(rows), 9))
        + chunk(b"IEND", b"")
    )
