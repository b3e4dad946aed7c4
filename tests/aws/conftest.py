"""Stacks, as many as a test wants."""

import functools
from collections.abc import Callable

import pytest

from tests.aws.stack import Stack
from tests.doctor.conftest import events, installation, run_logger
from tests.parts.aws import Aws

__all__ = ["events", "installation", "run_logger"]

Make = Callable[..., Stack]


@pytest.fixture
def make(aws_stand_in: Aws) -> Make:
    """Makes stacks, each with a name of its own; they end with the stand-in."""
    return functools.partial(Stack, aws_stand_in)
