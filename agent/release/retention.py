"""Which releases are removed when the disk is short of space. Decisions only."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

NEWEST_KEPT = 2
"""Former good releases that stay while there is room, for a rollback."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A release on disk, with its size in bytes; a higher `age` is newer."""

    commit: str
    bytes: int
    age: float


def to_remove(
    stored: Collection[Stored], *, needed: Collection[str], good: Sequence[str], budget: int
) -> list[str]:
    """Return the commits of the releases to remove, in this order.

    `needed` commits stay, however large they are: the good one, the image's, the pinned one, the one that ran. Then
    former good ones (`good`, the last one last) stay, the newest first, up to `NEWEST_KEPT` and within `budget` bytes.
    The rest goes.
    """
    left = budget - sum(each.bytes for each in stored if each.commit in needed)
    rank = {commit: number for number, commit in enumerate(good)}
    others = sorted(
        (each for each in stored if each.commit not in needed),
        key=lambda each: (rank.get(each.commit, -1), each.age),
        reverse=True,
    )
    removed, kept = [], 0
    for each in others:
        if each.commit in rank and kept < NEWEST_KEPT and each.bytes <= left:
            kept, left = kept + 1, left - each.bytes
        else:
            removed.append(each.commit)
    return removed[::-1]
