"""Releases: the newest is fetched, installed and checked; the last good one stands in for it."""

from agent.steps.release.obtain import Obtained, obtain
from agent.steps.release.shelf import Installed, Shelf, good_commit, last_good, promote

__all__ = ["Installed", "Obtained", "Shelf", "good_commit", "last_good", "obtain", "promote"]
