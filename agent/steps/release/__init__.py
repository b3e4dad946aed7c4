"""Releases: the newest is fetched, verified, installed and checked; the last good one stands in for it."""

from agent.steps.release.images import Images
from agent.steps.release.obtain import Obtained, obtain, stand_in_for
from agent.steps.release.selfcheck import SelfCheck
from agent.steps.release.shelf import (
    Installed,
    Shelf,
    bake,
    good_commit,
    last_good,
    linked_commit,
    promote,
)
from agent.steps.release.tidy import Broom

__all__ = [
    "Broom",
    "Images",
    "Installed",
    "Obtained",
    "SelfCheck",
    "Shelf",
    "bake",
    "good_commit",
    "last_good",
    "linked_commit",
    "obtain",
    "promote",
    "stand_in_for",
]
