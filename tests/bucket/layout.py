"""Where things are in a bucket, spelled out once more, so that a test cannot agree with the agent on a wrong key."""

from datetime import UTC, datetime

ENTRIES = "index/"
BEGUN = "started/"
RUNS = "runs/"
STATES = "state/"
CLAIMS = "slots/"
MANIFEST = "datapackage.json"
LOG = "_run/log.jsonl"


def entry_key(run: str, moment: datetime) -> str:
    """Return the key of the entry that commits a run at a moment."""
    utc = moment.astimezone(UTC)
    return f"{ENTRIES}{utc:%Y%m%dT%H%M%S}.{utc.microsecond // 1000:03d}Z-{run}.json"


def begun_key(run: str) -> str:
    """Return the key of what a run writes first."""
    return f"{BEGUN}{run}.json"


def begun_run(key: str) -> str:
    """Return the run that wrote such a key."""
    return key.removeprefix(BEGUN).removesuffix(".json")


def file_key(run: str, path: str) -> str:
    """Return the key of a file of a run."""
    return f"{RUNS}{run}/{path}"


def manifest_key(run: str) -> str:
    """Return the key of a run's manifest."""
    return file_key(run, MANIFEST)


def state_key(job: str, run: str) -> str:
    """Return the key of the state that a job left in a run."""
    return f"{STATES}{job}/{run}.tar.gz"


def evidence_path(job: str, name: str) -> str:
    """Return the path of a piece of evidence, or of a job's output, among the files of a run."""
    return f"_run/evidence/{job}/{name}"
