"""The crash points are places of the agent: one that moved or was renamed would be waited for in vain."""

import importlib
from functools import reduce

import pytest

from tests.delivery.points import IN_RECOVERY
from tests.delivery.points import POINTS as OF_DELIVERIES
from tests.faults.points import POINTS, SHARD_POINTS

OF_RUNS = {point.where for point in (*POINTS, *SHARD_POINTS)}
ALL = OF_RUNS | {point.rpartition(":")[0] for point in (*OF_DELIVERIES, *IN_RECOVERY)}


@pytest.mark.parametrize("where", sorted(ALL))
def test_every_crash_point_is_a_function_of_the_agent(where: str) -> None:
    """By module and name; and its edge is one that the tracer tells of."""
    module, name, edge = where.split(":")
    assert callable(reduce(getattr, name.split("."), importlib.import_module(module)))
    assert edge in {"enter", "leave", "yield"}
