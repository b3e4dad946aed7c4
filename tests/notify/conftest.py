"""What is logged while others are told."""

from typing import Any

import pytest

from agent.base.logs import RunLogger


class Events(list[dict[str, Any]]):
    """What was logged, in order."""

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the events of one name."""
        return [event for event in self if event["event"] == name]


@pytest.fixture
def events() -> Events:
    """Collects what `run_logger` logs."""
    return Events()


@pytest.fixture
def run_logger(events: Events) -> RunLogger:
    """A run_logger without secrets to hide, so that a leak is seen."""
    return RunLogger(events.append)
