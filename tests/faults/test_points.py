"""The crash points are places of the agent: one that moved or was renamed would be waited for in vain."""

import importlib
from functools import reduce

import pytest

from tests.faults.points import POINTS, SHARD_POINTS


@pytest.mark.parametrize("place", sorted({point.place for point in (*POINTS, *SHARD_POINTS)}))
def test_every_crash_point_is_a_function_of_the_agent(place: str) -> None:
    """By module and name."""
    module, _, name = place.partition(":")
    assert callable(reduce(getattr, name.split("."), importlib.import_module(module)))
