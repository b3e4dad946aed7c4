"""Parts that the tests of the agent's small edges share."""

from typing import Any

import pytest

from agent.base.logs import Journalist
from tests.edges.patients import patient

__all__ = ["patient"]


class Events(list[dict[str, Any]]):
    """What was logged, in order."""

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the events of one name."""
        return [event for event in self if event["event"] == name]


@pytest.fixture
def events() -> Events:
    """Collects what `journalist` logs."""
    return Events()


@pytest.fixture
def journalist(events: Events) -> Journalist:
    """A journalist without secrets to hide, so that a leak is seen."""
    return Journalist(events.append)
