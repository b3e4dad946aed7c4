"""Which run a person means, for each command that takes one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.base.errors import UsageError
from agent.batch.named import Search, run_named
from agent.contract.ids import Batch
from agent.contract.layout import PointerKey
from tests.bucket.entries import RunWriter
from tests.bucket.objects import FolderObjects

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Index:
    """An index with these pointers, which counts what is taken of it."""

    name = "the bucket"

    def __init__(self, *pointers: PointerKey) -> None:
        self.taken = 0
        self._keys = sorted(one.text for one in pointers)

    def find(self, name: str) -> tuple[Batch, str]:
        """Look for the run that a person means."""
        search = Search(name, NOW)
        for key in self._keys if search.possible else ():
            if key > (search.after or ""):
                self.taken += 1
                if search.add(key):
                    break
        return search.found(self.name)


def pointer(tmp_path: Path, started: datetime, kind: str = "began") -> PointerKey:
    """Return the first pointer of a run."""
    return PointerKey(started, kind, RunWriter(FolderObjects(tmp_path), started).key)


def test_the_latest_is_the_last_that_did_something(tmp_path: Path) -> None:
    """Neither one that stood back, nor one that a wrong clock dated to come; each has its id all the same."""
    first, last, twin, forged = (
        pointer(tmp_path, NOW + timedelta(days=days)) for days in (-9, -2, -1, 900)
    )
    stood_back = pointer(tmp_path, twin.time, "stood_back")
    index = Index(first, last, twin, stood_back, forged)
    for name, found in (("latest", last), (first.entry.run, first), (twin.entry.run, twin)):
        assert index.find(name) == (found.entry.batch, found.entry.run)
    index.taken = 0
    index.find(first.entry.run)
    assert index.taken == 1, "it looks no further"


def test_what_is_no_run_is_told_in_the_same_words(tmp_path: Path) -> None:
    """With what lists the runs; nothing is asked for what cannot be a run."""
    index = Index(pointer(tmp_path, NOW))
    for name in ("yesterday", "20200101T000000Z-000000"):
        with pytest.raises(UsageError, match=f"no run '{name}' is known in the bucket") as error:
            index.find(name)
        assert "mayfly status" in error.value.remedy
    assert index.taken == 1
    with pytest.raises(UsageError, match="'latest'"):
        Index().find("latest")
    with pytest.raises(UsageError, match="'latest'"):
        run_named("latest", {"20200101T000000Z-000000": True}, "here")
