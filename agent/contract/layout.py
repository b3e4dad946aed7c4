"""Every key of the bucket, built and taken apart again. Decisions only.

Keys are relative to the bucket's prefix. `parse_key(key.text) == key` for every key, and `parse_key(text).text == text`
for every text that it accepts, so that nothing has two keys. No object is ever changed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote, unquote

from agent.contract.ids import (
    BATCH,
    JOB,
    NONCE,
    RUN,
    SCHEDULE,
    STAMP,
    Batch,
    is_run_id,
    parse_stamp,
    stamp,
)
from agent.contract.names import path_problem

BATCHES = "batches/"
INDEX = "index/"
RUNS = "runs/"
STATE = "state/"
RELEASES = "releases/"
DESCRIPTOR = "datapackage.json"
FILES = "files/"
LOGS = "logs/"
EVIDENCE = "evidence/"

KIND = r"[a-z][a-z_]{0,31}"
NUMBER = r"(?:0|[1-9][0-9]{0,8})"
CHANNEL = r"[A-Za-z0-9_.~%-]{1,200}"


@dataclass(frozen=True, slots=True)
class EntryKey:
    """An entry of a batch's log: the put number `number` (from 0) of one process of a run."""

    batch: Batch
    run: str
    nonce: str
    number: int

    @property
    def text(self) -> str:
        """The key."""
        return f"{batch_prefix(self.batch)}{self.run}-{self.nonce}.{self.number}.json"


@dataclass(frozen=True, slots=True)
class PointerKey:
    """An empty object that tells of an entry.

    Attributes:
        time: When it was put, by the writer's clock, in whole milliseconds.
        kind: What the entry is mainly about; a reader skips none that it does not know.
    """

    time: datetime
    kind: str
    entry: EntryKey

    @property
    def text(self) -> str:
        """The key; its parts hold no dot but the batch's, which stands between parts of a fixed form."""
        entry = self.entry
        batch = f"{entry.batch.schedule}.{entry.batch.name}"
        last = f"{entry.run}-{entry.nonce}.{entry.number}"
        return f"{INDEX}{stamp(self.time)}.{self.kind}.{batch}.{last}"


@dataclass(frozen=True, slots=True)
class ManifestKey:
    """A run's manifest."""

    run: str

    @property
    def text(self) -> str:
        """The key."""
        return f"{run_prefix(self.run)}{DESCRIPTOR}"


@dataclass(frozen=True, slots=True)
class LogKey:
    """A part of a run's log."""

    run: str
    number: int

    @property
    def text(self) -> str:
        """The key."""
        return f"{log_prefix(self.run)}{self.number}.jsonl"


@dataclass(frozen=True, slots=True)
class JobKey:
    """An object of a job; `path` is relative to the job's package, and `datapackage.json` is the package itself."""

    run: str
    job: str
    path: str = DESCRIPTOR

    @property
    def text(self) -> str:
        """The key."""
        return f"{job_prefix(self.run, self.job)}{self.path}"


@dataclass(frozen=True, slots=True)
class StateKey:
    """A job's state, as its success in a run left it, or a checkpoint of an attempt that did not succeed."""

    job: str
    run: str
    checkpoint: bool = False

    @property
    def text(self) -> str:
        """The key."""
        middle = ".checkpoint" if self.checkpoint else ""
        return f"{STATE}{self.job}/{self.run}{middle}.tar.gz"


@dataclass(frozen=True, slots=True)
class ReleaseKey:
    """What one process, of a run or of an operator, learnt of the releases of a channel.

    The key marks a snapshot, so that one listing tells what has to be read.
    """

    channel: str
    run: str
    nonce: str
    number: int
    snapshot: bool = False

    @property
    def name(self) -> str:
        """What tells it from the channel's other entries."""
        return f"{self.run}-{self.nonce}.{self.number}{'.snapshot' if self.snapshot else ''}"

    @property
    def text(self) -> str:
        """The key."""
        return f"{channel_prefix(self.channel)}{self.name}.json"


Key = EntryKey | PointerKey | ManifestKey | LogKey | JobKey | StateKey | ReleaseKey


def batch_prefix(batch: Batch) -> str:
    """Return the prefix of a batch's log."""
    return f"{BATCHES}{batch.schedule}/{batch.name}/"


def run_prefix(run: str) -> str:
    """Return the prefix of everything that belongs to a run."""
    return f"{RUNS}{run}/"


def log_prefix(run: str) -> str:
    """Return the prefix of the parts of a run's log."""
    return f"{RUNS}{run}/log/"


def job_prefix(run: str, job: str) -> str:
    """Return the prefix of a job's package and of all that it names."""
    return f"{RUNS}{run}/jobs/{job}/"


def channel_prefix(channel: str) -> str:
    """Return the prefix of what is known of the releases of a channel, such as `main` or `v*`."""
    name = quote(channel, safe="")
    # quote() keeps dots, and a folder cannot be called "." or "..".
    return f"{RELEASES}{name if name.strip('.') else name.replace('.', '%2E')}/"


def index_start(moment: datetime) -> str:
    """Return a key that sorts before every pointer of `moment` or later, and after all earlier ones."""
    return f"{INDEX}{stamp(moment)}"


@lru_cache(maxsize=4096)
def parse_key(text: str) -> Key | None:
    """Return a key's parts; None for a text that is not a key of ours.

    Results are cached, because a reader lists the same thousand pointers every minute.
    """
    for pattern, build in _FORMS:
        match = pattern.fullmatch(text)
        if match is not None:
            key = build(match) if is_run_id(match["run"]) else None
            return key if key is not None and key.text == text else None
    return None


def _entry(match: re.Match[str]) -> EntryKey | None:
    batch = Batch(match["schedule"], match["batch"])
    key = EntryKey(batch, match["run"], match["nonce"], int(match["n"]))
    return key if batch.valid else None


def _pointer(match: re.Match[str]) -> PointerKey | None:
    entry, time = _entry(match), parse_stamp(match["time"])
    return PointerKey(time, match["kind"], entry) if entry and time else None


def _job(match: re.Match[str]) -> JobKey | None:
    path = match["path"]
    known = path == DESCRIPTOR or path.startswith((FILES, LOGS, EVIDENCE))
    sound = known and path_problem(path) is None
    return JobKey(match["run"], match["job"], path) if sound else None


def _state(match: re.Match[str]) -> StateKey:
    return StateKey(match["job"], match["run"], match["checkpoint"] is not None)


def _release(match: re.Match[str]) -> ReleaseKey:
    # Bytes that are not UTF-8 come out as another text, which `parse_key` refuses.
    channel, snapshot = unquote(match["channel"]), match["snapshot"] is not None
    return ReleaseKey(channel, match["run"], match["nonce"], int(match["n"]), snapshot)


_WRITER = rf"(?P<run>{RUN})-(?P<nonce>{NONCE})\.(?P<n>{NUMBER})"
_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Key | None]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), build)
    for pattern, build in (
        (rf"batches/(?P<schedule>{SCHEDULE})/(?P<batch>{BATCH})/{_WRITER}\.json", _entry),
        (
            rf"index/(?P<time>{STAMP})\.(?P<kind>{KIND})\.(?P<schedule>{SCHEDULE})\.(?P<batch>{BATCH})\.{_WRITER}",
            _pointer,
        ),
        (r"runs/(?P<run>[^/]+)/datapackage\.json", lambda match: ManifestKey(match["run"])),
        (
            rf"runs/(?P<run>[^/]+)/log/(?P<n>{NUMBER})\.jsonl",
            lambda match: LogKey(match["run"], int(match["n"])),
        ),
        (rf"runs/(?P<run>[^/]+)/jobs/(?P<job>{JOB})/(?P<path>.+)", _job),
        (rf"state/(?P<job>{JOB})/(?P<run>{RUN})(?P<checkpoint>\.checkpoint)?\.tar\.gz", _state),
        (rf"releases/(?P<channel>{CHANNEL})/{_WRITER}(?P<snapshot>\.snapshot)?\.json", _release),
    )
)
