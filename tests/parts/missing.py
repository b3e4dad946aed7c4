"""What happens when a part is not installed: in CI the test fails, elsewhere it is left out; either says what to do."""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import NoReturn

import pytest

REMEDY = "run tests/parts/install.sh"


class MissingPartError(Exception):
    """A real part that a test needs is not on this machine."""

    def __init__(self, part: str, remedy: str = REMEDY) -> None:
        super().__init__(f"{part} is missing: {remedy}")


def do_without(error: MissingPartError) -> NoReturn:
    """End a test whose part is not there: a failure with `CI=true`, else it is named and left out."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


def program(name: str) -> str:
    """The path of an installed program, of this environment before the PATH's."""
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if own.exists() else shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise MissingPartError(name)
    return found
