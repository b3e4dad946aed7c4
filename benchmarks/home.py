"""The service at home after ten years of daily runs with five jobs, and after a year with five hundred.

First start, increment, scrape, pages, memory.
"""

import asyncio
import http.client
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import obstore
from obstore.store import S3Store

from agent.config.settings import Store
from agent.contract.entries import MOST_JOBS, Ended, Object, Planned
from agent.contract.facts import Cost, Schedule
from agent.contract.layout import JobKey
from agent.contract.results import JobCause, JobStatus, RunStatus
from benchmarks.loops import loop_figures, stall_target, watching
from benchmarks.results import Case, Findings, Sample, Target
from tests.bucket.entries import RELEASE, RunWriter
from tests.bucket.objects import Objects
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.seaweed import S3Server

FAILING = 0.03
"""Share of jobs that fail."""
LOST = 100
"""One run of so many is lost."""
SCRAPES = 51
PAGES = 21
START_SECONDS = 300.0
SCRAPE_LIMIT, PAGE_LIMIT = 0.3, 0.3
PEAK_LIMIT = 150.0
LOOP = "loop"


Put = Callable[[Mapping[str, bytes]], None]
"""Stores objects in a bucket."""


@dataclass(frozen=True)
class Past:
    """A history: daily runs of so many jobs."""

    name: str
    days: int
    jobs: int


YEARS = Past("ten years, 5 jobs", 3652, 5)
MANY = Past("a year, 500 jobs", 366, 500)


@dataclass(frozen=True)
class Figures:
    """What was measured; times in seconds, memory in units of 2**20 bytes.

    Attributes:
        bucket: What kind of bucket it was.
        first: From the start of the process to the end of the first poll, with an empty history.
        again: The same with the history of before.
        increment: From the commit of a run to its appearance in the metrics, with an interval of one second.
        scrapes, pages, jobs: Of `/metrics`, of `/`, and of the page of a job.
        first_peak, peak, steady: Resident memory: the most of the first start, of the second, and after all scrapes.
        database: Size of the history.
        stall: The longest stall of the event loop after the first start.
    """

    past: Past
    bucket: str
    first: float
    again: float
    increment: float
    scrapes: tuple[float, ...]
    pages: tuple[float, ...]
    jobs: tuple[float, ...]
    first_peak: float
    peak: float
    steady: float
    database: float
    stall: float


def measure(past: Past, store: str, put: Put, environ: Mapping[str, str]) -> Figures:
    """Fill a bucket with a history, and serve it."""
    today = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=4)
    put(
        {k: text for day in range(past.days, 0, -1) for k, text in run_of(past, today, day).items()}
    )
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
        folder = Path(name)
        with serving(store, folder, environ) as (_, first, pid):
            first_peak = memory(pid)[1]
        with serving(store, folder, environ) as (port, again, pid):
            scrapes = [timed(port, "/metrics") for _ in range(SCRAPES)]
            pages = [timed(port, "/") for _ in range(PAGES)]
            jobs = [timed(port, "/jobs/main/shop-001") for _ in range(PAGES)]
            began = time.monotonic()
            put(run_of(past, today, 0))
            wait_run(port, today)
            increment = time.monotonic() - began
            steady, peak = memory(pid)
        stall = loop_figures(folder / LOOP)["stall"]
        size = sum(path.stat().st_size for path in folder.glob("home.history*")) / 2**20
    return Figures(
        past=past,
        bucket=store.partition(":")[0],
        first=first,
        again=again,
        increment=increment,
        scrapes=tuple(scrapes),
        pages=tuple(pages),
        jobs=tuple(jobs),
        first_peak=first_peak,
        peak=peak,
        steady=steady,
        database=size,
        stall=stall,
    )


def at_home(_rounds: int) -> Findings:
    """Measure the service against both kinds of bucket, once: it is asked often enough in one go."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAYFLY_")}
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
        years, many = Path(name) / "years", Path(name) / "many"
        with S3Server(Path(name)) as server:
            bucket = server.make_bucket()
            keys = {
                **server.environ,
                "MAYFLY_STORE_ENDPOINT": server.url,
            }
            put = into_s3(_store(server, bucket))
            found = (
                measure(YEARS, years.as_uri(), into_folder(years), environ),
                measure(YEARS, f"s3://{bucket}/bench", put, {**environ, **keys}),
                measure(MANY, many.as_uri(), into_folder(many), environ),
            )
    notes = ("Daily runs. A new run is looked for every second.",)
    targets = tuple(target for figures in found for target in _targets(figures))
    return Findings(tuple(_case(figures) for figures in found), targets, {}, notes)


def _store(server: S3Server, bucket: str) -> S3Store:
    return S3Store(
        bucket,
        prefix="bench",
        endpoint=server.url,
        region="us-east-1",
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        client_options={"allow_http": True},
    )


def _targets(figures: Figures) -> Iterator[Target]:
    where = f"{figures.bucket}://, {figures.past.name}"
    yield Target(f"home: scrape ({where})", SCRAPE_LIMIT, "s", figures.scrapes)
    yield Target(f"home: page ({where})", PAGE_LIMIT, "s", figures.pages)
    yield Target(f"home: page of a job ({where})", PAGE_LIMIT, "s", figures.jobs)
    peak = max(figures.first_peak, figures.peak)
    yield Target(f"home: peak memory ({where})", PEAK_LIMIT, "MB", (peak,))
    yield stall_target(f"home ({where})", [figures.stall])


def _case(figures: Figures) -> Case:
    samples = [
        Sample(
            "first start, empty history", {"seconds": figures.first, "peak": figures.first_peak}
        ),
        Sample("start with its history", {"seconds": figures.again, "peak": figures.peak}),
        Sample("a new run in the metrics", {"seconds": figures.increment}),
    ]
    for who, values in (
        ("scrape", figures.scrapes),
        ("page", figures.pages),
        ("page of a job", figures.jobs),
    ):
        samples += [Sample(who, {"seconds": seconds}) for seconds in values]
    rest = f"history of {figures.database:.1f} MB, {figures.steady:.0f} MB of memory at rest"
    return Case(f"{figures.past.name}: {rest}", f"{figures.bucket}://", tuple(samples))


class Gathered(Objects):
    """Objects in memory, until all of them are put at once."""

    def __init__(self) -> None:
        super().__init__(Store(), {})
        self.contents: dict[str, bytes] = {}

    def stamps(self, prefix: str = "") -> dict[str, object]:
        """Return the keys."""
        return {key: None for key in self.contents if key.startswith(prefix)}

    def get(self, key: str) -> bytes:
        """Return an object's content."""
        return self.contents[key]

    def put(self, key: str, content: bytes) -> None:
        """Keep an object."""
        self.contents[key] = content

    def delete(self, key: str) -> None:
        """Forget an object."""
        del self.contents[key]


SCHEDULE = Schedule(expression="rate(1 day)", timezone="UTC", grace_seconds=3600)


def run_of(past: Past, today: datetime, day: int) -> dict[str, bytes]:
    """Return the entries of a run of so many days ago, and no packages or files: nobody asks for those."""
    dice = random.Random(day)  # noqa: S311 -- the same history each time
    gathered = Gathered()
    run = RunWriter(gathered, today - timedelta(days=day))
    names = tuple(f"shop-{number:03d}" for number in range(past.jobs))
    run.append(began=run.began(schedule=SCHEDULE, slot=run.started))
    plan = Planned(release=RELEASE, count=len(names), jobs=names)
    run.after = timedelta(minutes=6)
    results = [_result(run.run, name, dice) for name in names]
    for start in range(0, len(results), MOST_JOBS):
        jobs = tuple(results[start : start + MOST_JOBS])
        run.append(jobs=jobs, planned=None if start else plan)
    if day % LOST != LOST // 2:
        status = (
            RunStatus.PARTIAL if any(not job.succeeded for job in results) else RunStatus.SUCCEEDED
        )
        run.append(closed={"status": status, "finished": run.now, "cost": COST})
    return gathered.contents


def _result(run: str, name: str, dice: random.Random) -> Ended:
    bad = dice.random() < FAILING
    digest = sha256(f"{run}{name}".encode()).hexdigest()
    return Ended(
        name=name,
        status=JobStatus.FAILED if bad else JobStatus.SUCCEEDED,
        cause=JobCause.PAGE_CHANGED if bad else None,
        message="no element .quote within 20 s" if bad else "",
        files=0 if bad else dice.randrange(1, 50),
        bytes=dice.randrange(1000, 900_000),
        items=40,
        seconds=dice.uniform(20, 90),
        attempts=1,
        package=Object(key=JobKey(run, name).text, bytes=dice.randrange(900, 5000), sha256=digest),
    )


COST = Cost(
    total_usd=0.0123,
    billed_seconds=400.0,
    market="spot",
    rate_usd_hour=0.02,
    rate_source="configured",
    instance_usd=0.0123,
)


def into_folder(root: Path) -> Put:
    """Return what fills a bucket that is a folder."""

    def put(objects: Mapping[str, bytes]) -> None:
        for key, content in objects.items():
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    return put


def into_s3(store: S3Store) -> Put:
    """Return what fills a bucket of an S3 server."""

    async def all_of(objects: Mapping[str, bytes]) -> None:
        queue = iter(objects.items())

        async def work() -> None:
            for key, content in queue:
                await obstore.put_async(store, key, content)

        await asyncio.gather(*(work() for _ in range(16)))

    return lambda objects: asyncio.run(all_of(objects))


@contextmanager
def serving(
    store: str, folder: Path, environ: Mapping[str, str]
) -> Iterator[tuple[int, float, int]]:
    """Serve a bucket; yield the port, the seconds until it was read, and the process id."""
    port = free_port()
    # The Python of this environment: it has the extra `home`.
    command = [*watching(folder / LOOP), "serve", "--listen", f"{LOOPBACK}:{port}"]
    command += ["--store", store]
    command += ["--history", str(folder / "home.history"), "--interval", "1s"]
    with (folder / "log").open("a") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env={**environ, "MAYFLY_CONFIG": os.devnull}, stdout=log, stderr=log
        )
        try:
            wait(port, re.compile(r"^mayfly_bucket_up\S* 1", re.MULTILINE))
            yield port, time.monotonic() - began, process.pid
        finally:
            process.terminate()
            process.wait(20)


def wait(port: int, pattern: re.Pattern[str]) -> None:
    """Wait until the metrics hold a text."""
    until = time.monotonic() + START_SECONDS
    while not pattern.search(fetched(port, "/metrics")):
        if time.monotonic() > until:
            raise TimeoutError(pattern.pattern)
        time.sleep(0.02)


def wait_run(port: int, began: datetime) -> None:
    """Wait until the run that began then is the last in the metrics."""
    until = time.monotonic() + START_SECONDS
    while True:
        found = re.search(
            r"^mayfly_run_last_timestamp_seconds\S* (\S+)$", fetched(port, "/metrics"), re.MULTILINE
        )
        if found and abs(float(found.group(1)) - began.timestamp()) < 1:
            return
        if time.monotonic() > until:
            raise TimeoutError(began)
        time.sleep(0.02)


def fetched(port: int, path: str) -> str:
    """Return what a path answers; nothing when nobody does."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def timed(port: int, path: str) -> float:
    """Return the seconds that an answer takes, with a connection of its own as Prometheus may have."""
    began = time.monotonic()
    text = fetched(port, path)
    seconds = time.monotonic() - began
    if not text:
        raise RuntimeError(f"nothing at {path}")
    return seconds


def memory(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process now, and at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    return int(now.group(1)) / 1024 if now else 0.0, int(most.group(1)) / 1024 if most else 0.0
