"""What is kept of an index entry, a started marker and a manifest: bounded, printable, possible. No effects."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from agent.core.ids import commit_stamp, run_started
from agent.core.layout import IndexKey
from agent.core.manifest import IndexEntry, StartedMarker
from agent.core.shards import Shard

from agent.base.console import printable
from agent.config.jobsfile import is_job_name
from agent.contract.names import path_problem
from consumer.facts.groups import shard_of
from consumer.facts.rows import BegunRow, EvidenceRow, JobRow, RunRow
from consumer.pull.plan import stamp_time

MAX_JOBS = 10_000
"""Jobs that one run may list: a shard has a thousand, where a thousand shards share a million."""
MAX_TEXT = 300
"""Characters of a text that others choose: what an agent keeps of a message."""
MAX_REF = 100
"""Characters of a release's ref."""
MAX_EVIDENCE = 12
"""Files that are remembered of each failed job: the newest attempts' pictures are among the first."""
MAX_DETAIL_BYTES = 8 * 1024**2
"""Of a manifest that is read for its details: 27,000 files at the 300 bytes that one takes."""
MAX_VALUES = 400_000
"""Separators in such a manifest; values cost far more memory than text."""
CLOCKS = timedelta(days=1)
"""How far the clocks of a run may have moved while it went on, and how far ahead of ours they may be."""
LONGEST_RUN = 31 * 86400.0
"""Seconds from a start to its deadline: a run that may take longer is no batch."""
MAX_COST = 1e6
"""US dollars: no run costs more."""

EVIDENCE = re.compile(r"_run/evidence/([^/]+)/[^/].*")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


class IncredibleError(Exception):
    """Something in the bucket cannot be what an agent wrote; the message says why."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What is kept of an index entry.

    Attributes:
        manifest_bytes, manifest_sha256: Of the manifest that it commits.
    """

    key: IndexKey
    run: RunRow
    jobs: tuple[JobRow, ...]
    manifest_bytes: int
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Details:
    """What is kept of a manifest, beyond its index entry."""

    cost: float | None = None
    standing: float | None = None
    stale_reason: str = ""
    evidence: tuple[EvidenceRow, ...] = ()


def text_of(text: str, most: int = MAX_TEXT) -> str:
    """Return a stranger's text without control characters, and not longer than `most`."""
    # Cut before as well: what is made printable first may be megabytes.
    return printable(text[: most * 4].encode("utf-8", "replace").decode("utf-8"))[:most]


def is_ahead(key: IndexKey, now: datetime) -> bool:
    """Tell whether an index key claims a time that has not come: it is left alone until then."""
    return key.stamp > commit_stamp(now + CLOCKS)


def take_entry(key: IndexKey, entry: IndexEntry) -> Taken:
    """Return what is kept of an index entry that `consumer.history` has found credible so far.

    Raises:
        IncredibleError: It is not.
    """
    started, finished = entry.started.timestamp(), entry.finished.timestamp()
    _check_dates(key, started, finished)
    if len(entry.jobs) > MAX_JOBS:
        raise IncredibleError(f"it lists {len(entry.jobs)} jobs, more than {MAX_JOBS}")
    if any(
        not is_job_name(name) for job in entry.jobs for name in {job.name, job.family or job.name}
    ):
        raise IncredibleError("it lists a job with an impossible name")
    part = _part(entry)
    release = text_of(entry.release, MAX_REF) if entry.release is not None else None
    commit = entry.commit if entry.commit and _COMMIT.fullmatch(entry.commit) else None
    run = RunRow(
        run=key.run,
        started=started,
        finished=finished,
        status=entry.status,
        release=release,
        commit=commit,
        stale=entry.stale,
        files=entry.files,
        bytes=entry.bytes,
        cost=None if entry.cost is None else entry.cost.total_usd,
        standing=None if entry.cost is None else entry.cost.standing_usd_month,
        jobs=len(entry.jobs),
        part=part,
    )
    jobs = tuple(
        JobRow(
            run=key.run,
            name=job.name,
            started=started,
            finished=finished,
            status=job.status,
            cause=job.cause,
            message=text_of(job.message),
            files=job.files,
            bytes=job.bytes,
            items=job.items,
            seconds=job.seconds,
            family=job.family or None,
            refused_files=job.refused_files,
        )
        for job in entry.jobs
    )
    return Taken(key, run, jobs, entry.manifest.bytes, entry.manifest.sha256)


def _part(said: IndexEntry | StartedMarker) -> Shard | None:
    try:
        return shard_of(said)
    except ValueError as error:
        raise IncredibleError(str(error)) from error


def _check_dates(key: IndexKey, started: float, finished: float) -> None:
    clocks = CLOCKS.total_seconds()
    try:
        committed = stamp_time(key.stamp).timestamp()
    except (ValueError, OverflowError):
        raise IncredibleError("its dates are impossible") from None
    _check_start(key.run, started)
    if started > committed + clocks or not started - clocks < finished < committed + clocks:
        raise IncredibleError("it was committed before it began or ended")


def _check_start(run: str, started: float) -> None:
    try:
        named = run_started(run).timestamp()
    except (ValueError, OverflowError):
        raise IncredibleError("its dates are impossible") from None
    if abs(named - started) > CLOCKS.total_seconds():
        raise IncredibleError("it began at another time than its id says")


def take_marker(marker: StartedMarker, now: datetime) -> BegunRow:
    """Return what is kept of a started marker that `consumer.history` has found credible so far.

    Raises:
        IncredibleError: It is not.
    """
    started, deadline = marker.started.timestamp(), marker.deadline.timestamp()
    _check_start(marker.run_id, started)
    if started > (now + CLOCKS).timestamp():
        raise IncredibleError("it begins at a time to come")
    if not started - CLOCKS.total_seconds() < deadline < started + LONGEST_RUN:
        raise IncredibleError("its deadline is impossible")
    return BegunRow(
        run=marker.run_id,
        started=started,
        deadline=deadline,
        host=text_of(marker.host, MAX_REF),
        release_wanted=text_of(marker.release_wanted, MAX_REF),
        part=_part(marker),
    )


def cost_of(record: dict[str, Any], part: str = "total_usd") -> float | None:
    """Return what the run in a manifest says it cost in US dollars, or a part of that."""
    table = record.get("cost")
    cost = table.get(part) if isinstance(table, dict) else None
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        return None
    if not 0 <= cost < MAX_COST or not math.isfinite(cost):
        return None
    return float(cost)


def take_manifest(taken: Taken, text: bytes) -> Details:
    """Return what is kept of a manifest. Nothing is taken from one that is not what the entry committed.

    Raises:
        IncredibleError: It is not, or cannot be read.
    """
    document = verified_document(text, taken.manifest_bytes, taken.manifest_sha256)
    about = document.get("mayfly:run")
    if not isinstance(about, dict) or about.get("run_id") != taken.run.run:
        raise IncredibleError("its manifest is about another run")
    release = about.get("release")
    stale = release.get("stale") if isinstance(release, dict) else None
    reason = stale.get("reason") if isinstance(stale, dict) else None
    return Details(
        cost=cost_of(about),
        standing=cost_of(about, "standing_usd_month"),
        stale_reason=text_of(reason) if isinstance(reason, str) else "",
        evidence=tuple(_evidence(taken, document.get("resources"))),
    )


def verified_document(text: bytes, size: int, digest: str) -> dict[str, Any]:
    """Return a manifest as JSON, when it is the one that was committed.

    Raises:
        IncredibleError: It is not, or is no JSON object of a reasonable size.
    """
    if len(text) != size or sha256(text).hexdigest() != digest:
        raise IncredibleError("its manifest is not what the index entry committed")
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise IncredibleError("its manifest has more values than are read here")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise IncredibleError("its manifest is no JSON") from None
    if not isinstance(document, dict):
        raise IncredibleError("its manifest is no JSON object")
    return document


def _evidence(taken: Taken, resources: object) -> Iterator[EvidenceRow]:
    failed = {job.name for job in taken.jobs if job.failed}
    count = dict.fromkeys(failed, 0)
    for one in resources if isinstance(resources, list) else []:
        if not isinstance(one, dict):
            continue
        path, size, kind = one.get("path"), one.get("bytes"), one.get("mediatype")
        match = EVIDENCE.fullmatch(path) if isinstance(path, str) else None
        if match is None or match.group(1) not in failed or path_problem(match.string):
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
            continue
        count[match.group(1)] += 1
        if count[match.group(1)] <= MAX_EVIDENCE:
            name = text_of(kind, MAX_REF) if isinstance(kind, str) else ""
            yield EvidenceRow(taken.run.run, match.group(1), match.string, size, name)
