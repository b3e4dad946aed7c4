"""Which releases go when the disk is not for them alone: a decision over what there is. Decisions only."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

NEWEST_KEPT = 2
"""Former good releases that stay while there is room, for an operator who wants to go back."""


@dataclass(frozen=True, slots=True)
class Shelved:
    """A release on disk.

    Attributes:
        commit: Its commit.
        bytes: What it takes.
        age: Its place in time: higher is newer.
    """

    commit: str
    bytes: int
    age: float


def to_remove(
    shelved: Collection[Shelved],
    *,
    needed: Collection[str],
    good: Sequence[str],
    budget: int,
) -> list[str]:
    """Return the commits of the releases to remove, in this order.

    What a run may need stays, however large it is. Then former good ones stay, the newest first, up to
    `NEWEST_KEPT` and while there is room. The rest goes.

    Args:
        shelved: All releases on disk.
        needed: Commits that stay: the good one, the image's, the pinned one, the one that ran.
        good: Commits that were good, the last one last.
        budget: Bytes that all of them together may take.
    """
    left = budget - sum(each.bytes for each in shelved if each.commit in needed)
    rank = {commit: number for number, commit in enumerate(good)}
    others = sorted(
        (each for each in shelved if each.commit not in needed),
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
