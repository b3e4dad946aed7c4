"""Mornings at home, as values: half a year of nights, and what the last one came to."""

import random
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from types import MappingProxyType

from agent.batch.fold import Arrived
from agent.contract.descriptor import PROFILE, Resource, Role
from agent.contract.entries import Began, Closed, Ended, Invalid, Object, Planned
from agent.contract.facts import Cost, Host, Phase, Release, Schedule, Signer
from agent.contract.ids import Batch as Id
from agent.contract.ids import run_id
from agent.contract.layout import JobKey
from agent.contract.package import Attempt, JobRecord, Package, RefusedFile
from agent.contract.results import JobCause, JobStatus, RunStatus
from consumer.diff import Changes, Section, Sum
from consumer.judge import Judged, Rules, judge
from consumer.model import History
from consumer.page.front import job_page, overview
from consumer.page.given import Health, Problem, Pull, Text, Visit
from consumer.page.run import run_page
from consumer.page.words import language
from consumer.spending import MonthCosts, month_costs, month_of
from tests.consumer.nights import TOKYO, history, log_of

NOW = datetime(2026, 11, 26, 7, 12, 30, tzinfo=TOKYO)
SCHEDULE = Schedule(expression="cron(0 3 * * ? *)", timezone="Asia/Tokyo", grace_seconds=3600)
JOBS = {"books": 90, "flights": 45, "news": 160, "prices": 70, "weather": 20}
"""Jobs, and seconds that they take at first."""
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
"""What a scraped page may put into a message."""
CHANGED = "no element matches 'table.prices > tbody > tr'"
TROUBLES = (
    (JobStatus.FAILED, JobCause.PAGE_CHANGED, CHANGED),
    (JobStatus.FAILED, JobCause.BLOCKED, "the site answered 403 to the third page"),
    (JobStatus.FAILED, JobCause.SITE_UNREACHABLE, "connect to shop.example port 443: timed out"),
    (JobStatus.TIMED_OUT, JobCause.TIMEOUT, "stopped after 20m 00s"),
    (JobStatus.EMPTY, JobCause.EXPECTATION, "3 files, expected 10 at least"),
)
RELEASE = Release(
    repository="git@github.example:me/scrapers.git",
    ref="v1.27",
    commit=sha256(b"v1.27").hexdigest()[:40],
    fetched=NOW,
    trust="signed",
    verified_by=Signer(principal="me@example.com", key="SHA256:x"),
)
Troubles = Mapping[str, tuple[JobStatus, JobCause | None, str]]


@dataclass(frozen=True)
class Scene:
    """A morning.

    Attributes:
        judged, costs, health: What the pages are given.
        packages: Of failed jobs.
        run: The last run.
    """

    judged: Judged
    costs: MonthCosts
    health: Health
    run: str
    packages: Mapping[tuple[str, str], Package] = field(default_factory=dict)

    def front(self, tag: str = "en", **query: str) -> str:
        """Return the first page."""
        here = visit("/", tag, **query)
        return overview(here, self.judged, self.costs, self.health, self.packages)

    def job(self, changed: Changes | Invalid | None = None, tag: str = "en", **query: str) -> str:
        """Return the page of the job `prices`."""
        here = visit("/jobs/nightly/prices", tag, **query)
        return job_page(here, self.judged, "nightly", "prices", changed) or ""

    def last(self, log: Text | None = None, tag: str = "en", **query: str) -> str:
        """Return the page of the last run."""
        here = visit(f"/runs/{self.run}", tag, **query)
        return run_page(here, self.judged, self.costs, self.run, log or LOG) or ""


def night(
    slot: datetime,
    troubles: Troubles = MappingProxyType({}),
    *,
    jobs: Mapping[str, float] = JOBS,
    done: int | None = None,
    seed: int = 0,
) -> list[Arrived]:
    """Return what a run says.

    Args:
        slot: The time that it is for.
        troubles: What became of jobs that did not just succeed.
        jobs: Its jobs, and how long they take.
        done: After how many jobs it was heard of last; None when it closed.
        seed: Of its numbers.
    """
    chance = random.Random(seed)
    started = slot + timedelta(seconds=chance.randrange(40, 90))
    run = run_id(started, sha256(slot.isoformat().encode()).digest())
    batch = Id.of_slot("nightly", slot)
    host = Host(
        name="ip-10-0-0-7",
        system="Amazon Linux 2023",
        instance_id="i-0abcdef1234567890",
        instance_type="t3.medium",
        zone="ap-northeast-3a",
        life_cycle="spot",
    )
    began = Began(
        started=started,
        deadline=started + timedelta(hours=2),
        host=host,
        agent="0.2.0",
        channel="v*",
        slot=slot,
        schedule=SCHEDULE,
    )
    plan = Planned(release=RELEASE, count=len(jobs), jobs=tuple(jobs))
    parts: list[tuple[float, dict[str, object]]] = [(0, {"began": began}), (30, {"planned": plan})]
    at, good = 40.0, []
    for name, usual in list(jobs.items())[:done]:
        seconds = usual * chance.uniform(0.9, 1.3)
        status, cause, message = troubles.get(name, (JobStatus.SUCCEEDED, None, ""))
        files = (
            1 + int(usual / 3 * chance.uniform(0.9, 1.1)) if status is JobStatus.SUCCEEDED else 0
        )
        ended = Ended(
            name=name,
            status=status,
            cause=cause,
            message=message,
            files=files,
            bytes=files * chance.randrange(9000, 24000),
            items=files * 11,
            seconds=seconds,
            attempts=1,
            package=Object(key=JobKey(run, name).text, bytes=1, sha256="0" * 64),
        )
        at += seconds
        good.append(status is JobStatus.SUCCEEDED)
        parts.append((at, {"jobs": (ended,)}))
    if done is None:
        how = RunStatus("succeeded" if all(good) else "partial" if any(good) else "failed")
        closed = Closed(
            status=how,
            finished=started + timedelta(seconds=at + 15),
            cost=_cost(at + 75),
            phases=(
                Phase(name="release", started=started, seconds=7.2),
                Phase(name="jobs", started=started, seconds=at),
            ),
        )
        parts.append((at + 15, {"closed": closed}))
    return log_of(batch, run, [(started + timedelta(seconds=at), said) for at, said in parts])


def nights(
    last: datetime, days: int, jobs: Mapping[str, float] = JOBS, seed: int = 7
) -> Iterator[list[Arrived]]:
    """Yield a run for most nights before the last; now and then a job fails, and a machine does not come."""
    chance = random.Random(seed)
    for back in range(days, 0, -1):
        if chance.random() > 0.985 and back > 3:
            continue
        troubles = {
            name: chance.choice(TROUBLES) for name in jobs if chance.random() < 0.03 and back > 2
        }
        growth = 1 + 0.6 * (days - back) / days
        grown = {name: seconds * growth for name, seconds in jobs.items()}
        yield night(last - timedelta(days=back), troubles, jobs=grown, seed=seed * 1000 + back)


def scene(
    *said: list[Arrived],
    now: datetime = NOW,
    health: Health | None = None,
    packages: Mapping[tuple[str, str], Package] = {},
) -> Scene:
    """Return what follows from what runs said."""
    known: History = history(now, *said)
    costs = month_costs(known, month_of(now, TOKYO), now)
    at_home = Pull(ended=now - timedelta(seconds=40))
    health = health or Health("s3://scraped/prod", now - timedelta(seconds=20), pull=at_home)
    run = known.runs[-1][1].id if known.runs else ""
    return Scene(judge(known, Rules(now)), costs, health, run, packages)


@cache
def before(days: int = 180) -> list[list[Arrived]]:
    """Return the nights before the last."""
    return [*nights(SLOT, days)]


SLOT = NOW.replace(hour=3, minute=0, second=0)
GROWN = {name: seconds * 1.6 for name, seconds in JOBS.items()}


@cache
def good(days: int = 180) -> Scene:
    """Return the morning after a night in which all went well."""
    return scene(*before(days), night(SLOT, jobs=GROWN))


@cache
def failed(days: int = 180, message: str = CHANGED) -> Scene:
    """Return the fourth morning after which a job fails; another one lost files on the way."""
    trouble = {"prices": (JobStatus.FAILED, JobCause.PAGE_CHANGED, message)}
    said = before(days)[:-3]
    said += [
        night(SLOT - timedelta(days=back), trouble, jobs=GROWN, seed=back) for back in (3, 2, 1, 0)
    ]
    one = scene(*said)
    return scene(*said, packages={(one.run, "prices"): package(one.run, "prices", message)})


@cache
def no_run() -> Scene:
    """Return a morning after which no machine came, for the second time."""
    return scene(*before()[:-1])


@cache
def lost() -> Scene:
    """Return a morning after a machine that was gone in the midst of it."""
    return scene(*before(), night(SLOT, done=3, jobs=GROWN))


@cache
def running() -> Scene:
    """Return a night in which the run is under way."""
    now = SLOT + timedelta(minutes=8)
    return scene(*before(), night(SLOT, done=3, jobs=GROWN), now=now)


@cache
def full_disk() -> Scene:
    """Return a morning on which the files are in the bucket, and home has no room for them."""
    room = "no space left on device: 1.2 MB free, 48.1 MB needed"
    remedy = "make room there; the next pull goes on by itself"
    known = scene(*before(), night(SLOT, jobs=GROWN))
    problems = [
        Problem("disk", f"{known.run} {job}", room, remedy, SLOT + timedelta(minutes=2))
        for job in ("news", "prices", "weather")
    ]
    problems.append(Problem("hook", f"{known.run} books", "exit code 1: database is locked"))
    pull = Pull(NOW - timedelta(seconds=30), 4, tuple(problems))
    rejected = {
        "batches/nightly/20261120T180000Z/20261120T180100Z-abcdef-00000000.7.json": "document: it is not JSON"
    }
    health = Health("s3://scraped/prod", NOW - timedelta(seconds=20), rejected=rejected, pull=pull)
    return scene(*before(), night(SLOT, jobs=GROWN), health=health)


SCENES = {
    "good": good,
    "failed": failed,
    "no-run": no_run,
    "lost": lost,
    "running": running,
    "full-disk": full_disk,
}


def package(run: str, job: str, message: str = CHANGED) -> Package:
    """Return the package of a job that failed, with evidence and two results."""
    paths = {
        "files/2026-11-26/prices.csv": Role.RESULT,
        "files/2026-11-26/page 1.json": Role.RESULT,
        "evidence/attempt-1/screenshot.png": Role.EVIDENCE,
        "evidence/attempt-1/page.html": Role.EVIDENCE,
        "logs/attempt-1.log": Role.LOG,
    }
    kinds = {
        "csv": "text/csv",
        "json": "application/json",
        "png": "image/png",
        "html": "text/html",
        "log": "text/plain",
    }
    record = JobRecord(
        run=run,
        name=job,
        status=JobStatus.FAILED,
        cause=JobCause.PAGE_CHANGED,
        message=message,
        started=SLOT + timedelta(minutes=4),
        finished=SLOT + timedelta(minutes=5),
        seconds=60,
        attempts=(
            Attempt(
                number=1,
                started=SLOT + timedelta(minutes=4),
                finished=SLOT + timedelta(minutes=5),
                status=JobStatus.FAILED,
                exit_code=1,
            ),
        ),
        refused=(RefusedFile(path="latest", reason="it is a link"),),
        release=RELEASE.ref,
        commit=RELEASE.commit,
    )
    resources = tuple(
        Resource(
            name=f"r{number}",
            path=path,
            bytes=4711 + number,
            hash=f"sha256:{'0' * 64}",
            mediatype=kinds[path.rpartition(".")[2]],
            **{"mayfly:role": role},
        )
        for number, (path, role) in enumerate(paths.items())
    )
    return Package(
        **{"$schema": PROFILE, "mayfly:job": record},
        id="x",
        name="x",
        created=NOW.isoformat(),
        version="v1.27",
        resources=resources,
    )


def changes(run: str, title: str = "Sapporo") -> Changes:
    """Return what a job changed whose shops have keys."""
    lines = (
        f'+ {{"shop": "{title}", "price": "1280"}}',
        '- {"shop": "Otaru", "price": "990"}',
        '~ Asahikawa: price "1180" -> "1240"',
        '~ Hakodate: price "1020" -> "980", stock "3" -> null',
    )
    files = Section("", Sum(1, 0, 1), ("+ files/prices-late.csv", "~ files/prices.csv"))
    records = Section("files/prices.csv", Sum(12, 3, 1205), lines, odd=2)
    broken = Section("files/stock.json", Sum(), problem="it is no JSON array")
    return Changes("20261121T180113Z-0a0a0a", run, (files, records, broken))


def visit(path: str = "/", tag: str = "en", **query: str) -> Visit:
    """Return who asks."""
    return Visit(language(tag), path, query)


LOG = Text(
    "".join(
        f'{{"timestamp":"2026-11-25T18:{minute:02d}:10Z","level":"{level}","event":"{event}","run_id":"r"{rest}}}\n'
        for minute, level, event, rest in (
            (1, "info", "run.began", ',"slot":"2026-11-26T03:00:00+09:00"'),
            (1, "info", "release.chosen", ',"ref":"v1.27","commit":"c0ffee"'),
            (2, "info", "job.started", ',"job":"books"'),
            (4, "info", "job.ended", ',"job":"books","status":"succeeded","files":48'),
            (5, "warning", "job.retried", ',"job":"prices","attempt":2'),
            (6, "error", "job.ended", ',"job":"prices","status":"failed","cause":"page_changed"'),
        )
    ).encode()
)


def _cost(seconds: float) -> Cost:
    instance, address = 0.0182 * seconds / 3600, 0.005 * seconds / 3600
    return Cost(
        total_usd=instance + address,
        billed_seconds=seconds,
        market="spot",
        rate_usd_hour=0.0182,
        rate_source="spot-history",
        instance_usd=instance,
        address_usd=address,
        standing_usd_month=0.32,
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
