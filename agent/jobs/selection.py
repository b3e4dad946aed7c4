"""Which of a release's jobs a run does: all, those that were asked for, or a shard's. Decisions only.

Why a stable hash, and what `needs` mean across shards: docs/decisions/0100.
"""

import hashlib

from agent.base.errors import ShardError, UsageError
from agent.config.faults import suggest
from agent.config.jobsfile import Job
from agent.contract.ids import Shard
from agent.jobs.plan import chosen


def requested(
    jobs: tuple[Job, ...], only: frozenset[str], shard: Shard | None, release: str
) -> tuple[Job, ...]:
    """Return the jobs that a run is asked for: all, or those named in `only`, and of these a shard's.

    `release` is what messages call the release.

    Raises:
        UsageError: The release has no job of a name, or the jobs cannot be divided between shards.
    """
    known = [job.name for job in jobs]
    unknown = sorted(only.difference(known))
    if unknown:
        raise UsageError(f'{release} has no job "{unknown[0]}"', remedy=suggest(unknown[0], known))
    return assigned(chosen(jobs, only), shard)


def home_of(job: str, shards: int) -> int:
    """Return a job's shard, from 0: by its name alone, so that another job does not move it."""
    digest = hashlib.sha256(job.encode()).digest()
    return int.from_bytes(digest[:8]) % shards


def assigned(jobs: tuple[Job, ...], shard: Shard | None) -> tuple[Job, ...]:
    """Return a shard's jobs, in the order of the file: its own, and what these need.

    Raises:
        ShardError: A job needs one that has a matrix, whose values are on several shards.
    """
    if shard is None or shard.shards == 1:
        return jobs
    known = {job.name: job for job in jobs}
    for job in jobs:
        split = [need for need in job.needs if known[need].matrix]
        if split:
            raise ShardError(
                f'"{job.name}" needs "{split[0]}", a value of a matrix, which may be on another shard',
                remedy="do it in the same job, or at home when the group is complete",
            )
    wanted: set[str] = set()
    rest = [job.name for job in jobs if home_of(job.name, shard.shards) == shard.shard]
    while rest:
        name = rest.pop()
        if name not in wanted:
            wanted.add(name)
            rest += known[name].needs
    return tuple(job for job in jobs if job.name in wanted)
