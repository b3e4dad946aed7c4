"""Folders that somebody else fills, and goes on filling while they are given to a job."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.base.folders import give
from tests.parts.deep_folders import nested
from tests.parts.missing import MissingPartError

SOMEBODY = 61_234
NOBODY_NEW = -1
"""chown(2) checks that the file is there, and changes nothing."""


@pytest.fixture
def root() -> None:
    """Leave out a test that changes owners where this process may not."""
    if os.geteuid() != 0:
        raise MissingPartError("root", "only root gives folders away")


@pytest.mark.usefixtures("root")
def test_a_folder_is_given_with_all_below_it_and_no_link_is_followed(tmp_path: Path) -> None:
    """Neither below it nor in its place; a link itself is given."""
    (victim := tmp_path / "victim").mkdir()
    (victim / "key").touch()
    (folder := tmp_path / "folder").mkdir()
    (folder / "deep").mkdir()
    (folder / "deep" / "x\udce9").touch()
    (folder / "link").symlink_to(victim)
    give(folder, SOMEBODY)
    below = [folder, *folder.rglob("*")]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in below} == {(SOMEBODY,) * 2}
    assert len(below) == 4
    with pytest.raises(NotADirectoryError):
        give(folder / "link", SOMEBODY)
    assert {path.stat().st_uid for path in (victim, victim / "key")} == {0}


@contextmanager
def going_on(step: Callable[[], None]) -> Iterator[None]:
    """Take a step again and again, beside the block."""
    over = threading.Event()

    def steps() -> None:
        while not over.is_set():
            step()

    other = threading.Thread(target=steps)
    other.start()
    try:
        yield
    finally:
        over.set()
        other.join()


def test_what_vanishes_meanwhile_is_passed_over(tmp_path: Path) -> None:
    """As downloads under way do: each file has another name when it is whole."""

    def download() -> None:
        for number in range(50):
            (tmp_path / f"{number}.part").touch()
        for number in range(50):
            (tmp_path / f"{number}.part").unlink()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder").rmdir()

    with going_on(download):
        for _ in range(500):
            give(tmp_path, NOBODY_NEW)


@pytest.mark.usefixtures("root")
def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """The browser's side swaps it, in the hope that what the link leads to is given away."""
    (victim := tmp_path / "victim").mkdir()
    keys = [victim / f"{number}" for number in range(100)]
    for key in keys:
        key.touch()
    (folder := tmp_path / "folder").mkdir()
    (folder / "real").mkdir()
    (folder / "link").symlink_to(victim)

    def swap() -> None:
        for old, new in (("real", "aside"), ("link", "real"), ("real", "link"), ("aside", "real")):
            (folder / old).rename(folder / new)

    with going_on(swap):
        for _ in range(500):
            give(folder, SOMEBODY)
    assert {key.stat().st_uid for key in keys} == {0}


def test_what_is_nested_without_end_is_given_as_far_as_anybody_needs(tmp_path: Path) -> None:
    """Deeper than Python can call itself, than a path can be long, and than descriptors reach."""
    with nested(tmp_path, 3000):
        give(tmp_path, NOBODY_NEW)
