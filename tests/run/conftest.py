"""Fixtures of whole runs."""

from pathlib import Path

import pytest

from tests.parts.repo import Repo
from tests.run.bench import Bench, Shelf


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A computer with an empty state directory and a bucket in a folder."""
    git = tmp_path / "git"
    git.mkdir()
    return Bench(tmp_path, Repo(git), (tmp_path / "bucket").as_uri())


@pytest.fixture
def shelf(bench: Bench) -> Shelf:
    """The workbench's bucket."""
    return Shelf(bench.folder / "bucket")
