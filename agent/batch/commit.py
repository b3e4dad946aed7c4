"""When results are committed, and which go into one entry. Decisions only."""

from collections.abc import Iterable, Iterator

from agent.contract.entries import MOST_BYTES, MOST_JOBS, Ended

EVERY_SECONDS = 4.0
"""From the start of one commit to that of the next; what ends meanwhile goes with it."""


def next_commit(last_began: float | None, now: float) -> float:
    """Return in how many seconds the next commit may begin.

    Both times are of a clock that does not jump; `last_began` is None before the first commit.
    """
    return 0.0 if last_began is None else max(0.0, last_began + EVERY_SECONDS - now)


def in_entries(jobs: Iterable[Ended]) -> Iterator[tuple[Ended, ...]]:
    """Yield results in their order, in portions that fit one entry by number and size."""
    portion: list[Ended] = []
    size = 0
    for job in jobs:
        more = len(job.model_dump_json().encode())
        if portion and (len(portion) == MOST_JOBS or size + more > MOST_BYTES // 2):
            yield tuple(portion)
            portion, size = [], 0
        portion.append(job)
        size += more
    if portion:
        yield tuple(portion)
