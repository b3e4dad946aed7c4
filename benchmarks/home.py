"""The service at home after ten years of daily runs with five jobs: first start, increment, scrape, page, memory."""

import asyncio
import http.client
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import obstore
from agent.core.datapackage import Sealed, index_entry, render, with_contents
from agent.core.ids import run_id, run_started
from agent.core.layout import LOG, index_key, manifest_key, started_key
from agent.core.manifest import HostRecord, ManifestRef, ReleaseRecord, RunRecord, StartedMarker
from agent.core.outcome import run_status
from agent.core.results import CostRecord, JobCause, JobResult, JobStatus
from obstore.store import S3Store

from benchmarks.results import Case, Findings, Sample, Target
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.seaweed import S3Server

YEARS = 10
JOBS = ("quotes", "timeline", "reports", "notes", "backup")
FILES = 8
"""Of each job of each run."""
FAILING = 0.03
"""Share of jobs that fail."""
VANISHING = 100
"""One run of so many vanishes."""
SCRAPES = 101
PAGES = 51
START_SECONDS = 300.0
SCRAPE_LIMIT, PAGE_LIMIT = 0.05, 0.15
PEAK_LIMIT = 120.0


Put = Callable[[Mapping[str, bytes]], None]
"""Stores objects in a bucket."""


@dataclass(frozen=True)
class Figures:
    """What was measured; times in seconds, memory in units of 2**20 bytes.

    Attributes:
        bucket: What kind of bucket it was.
        first: From the start of the process to the end of the first look, with an empty history.
        again: The same with the history of before.
        increment: From the commit of a run to its appearance in the metrics, with an interval of one second.
        scrapes, pages, years: Of `/metrics`, of `/`, and of `/?days=365`.
        first_peak, peak, steady: Resident memory: the most of the first start, of the second, and after all scrapes.
        database: Size of the history.
    """

    bucket: str
    runs: int
    first: float
    again: float
    increment: float
    scrapes: tuple[float, ...]
    pages: tuple[float, ...]
    years: tuple[float, ...]
    first_peak: float
    peak: float
    steady: float
    database: float


def measure(mayfly: Path, store: str, put: Put, environ: Mapping[str, str]) -> Figures:
    """Fill a bucket with ten years of runs, and serve it."""
    today = datetime.now(UTC) - timedelta(hours=4)
    days = round(YEARS * 365.25)
    put({key: text for day in range(days, 0, -1) for key, text in run_of(today, day)[1].items()})
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
        folder = Path(name)
        with serving(mayfly, store, folder, environ) as (_, first, pid):
            first_peak = memory(pid)[1]
        with serving(mayfly, store, folder, environ) as (port, again, pid):
            scrapes = [timed(port, "/metrics") for _ in range(SCRAPES)]
            pages = [timed(port, "/") for _ in range(PAGES)]
            years = [timed(port, "/?days=365") for _ in range(PAGES)]
            newest, objects = run_of(today, 0)
            began = time.monotonic()
            put(objects)
            wait_run(port, newest)
            increment = time.monotonic() - began
            steady, peak = memory(pid)
        size = sum(path.stat().st_size for path in folder.glob("history.sqlite*")) / 2**20
    return Figures(
        bucket=store.partition(":")[0],
        runs=days,
        first=first,
        again=again,
        increment=increment,
        scrapes=tuple(scrapes),
        pages=tuple(pages),
        years=tuple(years),
        first_peak=first_peak,
        peak=peak,
        steady=steady,
        database=size,
    )


def at_home(_rounds: int) -> Findings:
    """Measure the service against both kinds of bucket, once: it is asked often enough in one go."""
    # The one of this environment: it has the extra `home`.
    mayfly = Path(sys.executable).with_name("mayfly")
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAYFLY_")}
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
        folder, bucket = Path(name) / "folder", ""
        with S3Server(Path(name)) as server:
            bucket = server.make_bucket()
            keys = {
                **server.environ,
                "MAYFLY_STORE_ENDPOINT": server.url,
            }
            put = into_s3(_store(server, bucket))
            found = (
                measure(mayfly, folder.as_uri(), into_folder(folder), environ),
                measure(mayfly, f"s3://{bucket}/bench", put, {**environ, **keys}),
            )
    notes = (f"{found[0].runs} runs of {len(JOBS)} jobs. A new run is looked for every second.",)
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
    where = f"{figures.bucket}://, ten years"
    yield Target(f"home: scrape ({where})", SCRAPE_LIMIT, "s", figures.scrapes)
    yield Target(f"home: page ({where})", PAGE_LIMIT, "s", figures.pages)
    yield Target(f"home: page of a year ({where})", PAGE_LIMIT, "s", figures.years)
    peak = max(figures.first_peak, figures.peak)
    yield Target(f"home: peak memory ({where})", PEAK_LIMIT, "MB", (peak,))


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
        ("page of a year", figures.years),
    ):
        samples += [Sample(who, {"seconds": seconds}) for seconds in values]
    name = f"history of {figures.database:.1f} MB, {figures.steady:.0f} MB of memory at rest"
    return Case(name, f"{figures.bucket}://", tuple(samples))


def run_of(today: datetime, day: int) -> tuple[str, dict[str, bytes]]:
    """Return the id of a run of so many days ago, and its objects but for the files: nobody asks for those."""
    dice = random.Random(day)  # noqa: S311 -- the same history each time
    began = today - timedelta(days=day)
    run = run_id(began, day.to_bytes(3))
    bad = {name for name in JOBS if dice.random() < FAILING}
    jobs = tuple(_result(name, began, name in bad) for name in JOBS)
    files = [_file(f"{job}/{n}.json", job) for job in JOBS if job not in bad for n in range(FILES)]
    files += [_file(f"_run/evidence/{job}/shot.png") for job in bad]
    files.append(_file(LOG))
    record = with_contents(_record(run, began, jobs), files)
    manifest = b"".join(render(record, files))
    digest = sha256(manifest).hexdigest()
    ref = ManifestRef(key=manifest_key(run), bytes=len(manifest), sha256=digest)
    deadline = began + timedelta(hours=2)
    marker = StartedMarker(
        run_id=run, started=began, deadline=deadline, host="h", release_wanted="v*"
    )
    objects = {
        started_key(run): marker.model_dump_json().encode(),
        manifest_key(run): manifest,
    }
    if day % VANISHING != VANISHING // 2:
        entry = index_entry(record, files, ref)
        objects[index_key(run, record.finished)] = entry.model_dump_json().encode()
    return run, objects


def _file(path: str, job: str = "") -> Sealed:
    return Sealed(path, 4000, sha256(path.encode()).hexdigest(), job)


def _result(name: str, began: datetime, bad: bool) -> JobResult:
    return JobResult(
        name=name,
        status=JobStatus.FAILED if bad else JobStatus.SUCCEEDED,
        cause=JobCause.PAGE_CHANGED if bad else None,
        message="no element .quote within 20 s" if bad else "",
        started=began,
        finished=began + timedelta(seconds=90),
        items=40,
    )


def _record(run: str, began: datetime, jobs: tuple[JobResult, ...]) -> RunRecord:
    return RunRecord(
        run_id=run,
        status=run_status(jobs, interrupted=False),
        started=began,
        finished=began + timedelta(minutes=6),
        agent="0.1.0",
        host=HostRecord(name="host", system="Linux"),
        release=ReleaseRecord(
            repository="https://example.org/scrapers.git",
            ref="v1.2.3",
            commit="c" * 40,
            fetched=began - timedelta(days=3),
        ),
        jobs=jobs,
        cost=CostRecord(
            total_usd=0.0123,
            billed_seconds=400.0,
            market="spot",
            rate_usd_hour=0.02,
            rate_source="configured",
            instance_usd=0.0123,
        ),
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
    mayfly: Path, store: str, folder: Path, environ: Mapping[str, str]
) -> Iterator[tuple[int, float, int]]:
    """Serve a bucket; yield the port, the seconds until it was read, and the process id."""
    port = free_port()
    command = [str(mayfly), "serve", "--listen", f"{LOOPBACK}:{port}", "--store", store]
    command += [
        "--history",
        str(folder / "history.sqlite"),
        "--interval",
        "1s",
        "--timezone",
        "UTC",
    ]
    with (folder / "log").open("a") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env={**environ, "MAYFLY_CONFIG": os.devnull}, stdout=log, stderr=log
        )
        try:
            wait(port, "mayfly_bucket_up 1")
            yield port, time.monotonic() - began, process.pid
        finally:
            process.terminate()
            process.wait(20)


def wait(port: int, text: str) -> None:
    """Wait until the metrics hold a text."""
    until = time.monotonic() + START_SECONDS
    while text not in fetched(port, "/metrics"):
        if time.monotonic() > until:
            raise TimeoutError(text)
        time.sleep(0.02)


def wait_run(port: int, run: str) -> None:
    """Wait until a run is the last in the metrics."""
    wanted = run_started(run).timestamp()
    until = time.monotonic() + START_SECONDS
    while True:
        found = re.search(
            r"^mayfly_run_last_timestamp_seconds (\S+)$", fetched(port, "/metrics"), re.MULTILINE
        )
        if found and abs(float(found.group(1)) - wanted) < 1:
            return
        if time.monotonic() > until:
            raise TimeoutError(run)
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
