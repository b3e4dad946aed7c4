"""Where things are in the bucket, and which file names may be there.

Keys are relative to the bucket's prefix. A key belongs to one run and is never written after that run's commit.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.core.ids import RUN_ID, commit_stamp, is_run_id

INDEX = "index/"
STARTED = "started/"
RUNS = "runs/"
STATE = "state/"
SLOTS = "slots/"
SHARDS = "shards/"
MANIFEST = "datapackage.json"
LOG = "_run/log.jsonl"

INDEX_OVERLAP = timedelta(minutes=15)
"""How far before its cursor a reader lists again: a commit's key carries the time at which the writer began to put it,
so an entry may appear this much later than its name says. Writers take a new key rather than exceed it."""

MAX_FILE_BYTES = 48 * 1024**3
"""S3 takes 10,000 parts, and a writer has one size for all of them."""

_INDEX_KEY = re.compile(r"index/([0-9]{8}T[0-9]{6}\.[0-9]{3}Z)-(" + RUN_ID.pattern + r")\.json")


def run_prefix(run: str) -> str:
    """Return the prefix of everything that belongs to a run."""
    return f"{RUNS}{run}/"


def run_key(run: str, path: str) -> str:
    """Return the key of a resource of a run; `path` is the resource's path in the manifest."""
    return f"{RUNS}{run}/{path}"


def manifest_key(run: str) -> str:
    """Return the key of a run's manifest."""
    return run_key(run, MANIFEST)


def started_key(run: str) -> str:
    """Return the key of the marker that says a run began."""
    return f"{STARTED}{run}.json"


def index_key(run: str, committed: datetime) -> str:
    """Return the key of the index entry: the commit point of a run."""
    return f"{INDEX}{commit_stamp(committed)}-{run}.json"


def state_key(job: str, run: str) -> str:
    """Return the key of the memory a job left behind in a run."""
    return f"{STATE}{job}/{run}.tar.gz"


def slot_prefix(slot: str) -> str:
    """Return the prefix of all claims of a slot but the first conditional one."""
    return f"{SLOTS}{slot}/"


def slot_key(slot: str, number: int = 1) -> str:
    """Return the key of a slot's conditional claim: the first has the slot's own, later ones follow below it."""
    return f"{SLOTS}{slot}.json" if number == 1 else f"{slot_prefix(slot)}{number}.json"


def named_slot_key(slot: str, run: str) -> str:
    """Return the key of the claim of one run, where the store ignores conditions."""
    return f"{slot_prefix(slot)}{run}.json"


def shard_prefix(group: str, shard: int, shards: int) -> str:
    """Return the prefix of the commits of one shard (from 0) of a group."""
    return f"{SHARDS}{group}/{shard}-of-{shards}/"


def shard_key(group: str, shard: int, shards: int, place: int) -> str:
    """Return the key that the commit number `place` (from 0) of a shard must have for itself."""
    return f"{shard_prefix(group, shard, shards)}{place}.json"


def captured_path(job: str, attempt: int) -> str:
    """Return the resource path of what an attempt wrote to stdout and stderr; no file of a job has it."""
    return f"_run/evidence/{job}/attempt-{attempt}.log"


def evidence_path(job: str, path: str) -> str:
    """Return the resource path of what a job put aside itself to explain why it did not succeed."""
    return f"_run/evidence/{job}/files/{path}"


@dataclass(frozen=True, slots=True)
class IndexKey:
    """An index entry's key, taken apart."""

    key: str
    stamp: str
    run: str


def parse_index_key(key: str) -> IndexKey | None:
    """Return the parts of an index key, or None for a key that is not one."""
    match = _INDEX_KEY.fullmatch(key)
    return IndexKey(key, match.group(1), match.group(2)) if match else None


def parse_state_key(key: str) -> tuple[str, str] | None:
    """Return `(job, run)` of a state key, or None for a key that is not one."""
    parts = key.split("/")
    if len(parts) != 3 or f"{parts[0]}/" != STATE:  # noqa: PLR2004 -- state/<job>/<run>.tar.gz
        return None
    run = parts[2].removesuffix(".tar.gz")
    return (parts[1], run) if is_run_id(run) else None


def is_result(path: str) -> bool:
    """Tell whether a file is meant to be a result: not hidden, not still being written (`.part`, `.tmp`)."""
    parts = path.split("/")
    return not any(part.startswith(".") for part in parts) and not path.endswith((".part", ".tmp"))
