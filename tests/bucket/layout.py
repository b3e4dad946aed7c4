"""Where things are in a bucket, spelled out once more, so that a test cannot agree with the agent on a wrong key."""

import re

ENTRIES = "batches/"
POINTERS = "index/"
RUNS = "runs/"
STATES = "state/"
RELEASES = "releases/"
DESCRIPTOR = "datapackage.json"

_RUN = r"(?P<run>\d{8}T\d{6}Z-[0-9a-f]{6})"
ENTRY = re.compile(
    rf"batches/(?P<batch>[^/]+/[^/]+)/{_RUN}-(?P<nonce>[0-9a-f]{{8}})\.(?P<number>\d+)\.json"
)
POINTER = re.compile(
    rf"index/\d{{8}}T\d{{6}}\.\d{{3}}Z\.(?P<kind>[a-z_]+)\.(?P<batch>.+)\.{_RUN}-[0-9a-f]{{8}}\.\d+"
)


def run_key(run: str, path: str = "") -> str:
    """Return the key of an object of a run, or the prefix of all of them."""
    return f"{RUNS}{run}/{path}"


def manifest_key(run: str) -> str:
    """Return the key of a run's manifest."""
    return run_key(run, DESCRIPTOR)


def job_key(run: str, job: str, path: str = DESCRIPTOR) -> str:
    """Return the key of an object of a job: of its package, where nobody says another."""
    return run_key(run, f"jobs/{job}/{path}")


def file_key(run: str, job: str, path: str) -> str:
    """Return the key of a result."""
    return job_key(run, job, f"files/{path}")


def log_key(run: str, number: int) -> str:
    """Return the key of a part of a run's log."""
    return run_key(run, f"log/{number}.jsonl")


def state_key(job: str, run: str) -> str:
    """Return the key of the state that a job left in a run."""
    return f"{STATES}{job}/{run}.tar.gz"
