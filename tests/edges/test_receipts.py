"""What was sent is remembered in a table; what it does not know costs an upload, and never a file."""

import errno
import os
import sqlite3
from itertools import count
from pathlib import Path
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.datapackage import Sealed
from agent.steps.receipts import Parcel, Receipts
from agent.steps.seal import Seen, Signature, walk
from tests.parts.small_disk import SmallDisk

EARLIER = Signature(1, 10, 100, 100)
LATER = Signature(1, 20, 200, 200)


@pytest.fixture
def receipts(tmp_path: Path) -> Receipts:
    """A table that nobody has asked yet."""
    return Receipts(tmp_path / "sent.sqlite")


def parcel(name: str, mark: Signature | None = EARLIER) -> Parcel:
    """Return a result of the job `one`."""
    return Parcel(Path("/nowhere"), name, f"one/{name}", "one", mark)


def sealed(name: str, size: int = 10) -> Sealed:
    """Return the same as it was sent."""
    return Sealed(f"one/{name}", size, "0" * 64, "one")


def test_what_was_sent_is_not_lacking_until_it_changes(receipts: Receipts) -> None:
    """A file is sent again when it is another one, and in any case when nobody knows its signature."""
    receipts.note([(sealed("a"), EARLIER)])
    files = [parcel("a"), parcel("b"), parcel("a", LATER), parcel("a", None)]
    assert receipts.lacking(files) == files[1:]


def test_the_manifest_names_what_is_expected_and_sent(receipts: Receipts) -> None:
    """Not what was sent and is gone since, nor what could not be sent; in the order of the paths."""
    receipts.note([(sealed(name), EARLIER) for name in ("c", "gone", "a")])
    assert receipts.expect([parcel("a"), parcel("b"), parcel("c")]) == [parcel("b")]
    assert [file.path for file in receipts.sealed()] == ["one/a", "one/c"]
    assert receipts.unsent() == {"one/b"}
    receipts.drop("one/b")
    assert receipts.unsent() == set()
    receipts.expect_nothing()
    assert list(receipts.sealed()) == []


def test_an_earlier_content_is_not_named(receipts: Receipts) -> None:
    """A file that grew after it was sent is lacking; the manifest would otherwise name what the job no longer says."""
    receipts.note([(sealed("a"), EARLIER)])
    assert receipts.expect([parcel("a", LATER)]) == [parcel("a", LATER)]
    assert list(receipts.sealed()) == []
    receipts.note([(sealed("a", 20), LATER)])
    assert list(receipts.sealed()) == [sealed("a", 20)]


def test_a_listing_is_compared(receipts: Receipts) -> None:
    """What it shows otherwise, or not, is missing; what nobody expects is surplus."""
    names = ("held", "shorter", "vanished")
    receipts.note([(sealed(name), EARLIER) for name in names])
    receipts.expect([parcel(name) for name in names])
    for _ in ("first", "again"):
        receipts.hold_nothing()
        listed = [("one/held", 10), ("one/shorter", 9), ("one/stranger", 1)]
        assert receipts.hold(listed) == ["one/stranger"]
        assert receipts.missing() == ["one/shorter", "one/vanished"]
    receipts.forget(["one/shorter"])
    assert receipts.missing() == ["one/vanished"]
    assert receipts.lacking([parcel("shorter")]) == [parcel("shorter")]


def test_more_than_a_page(receipts: Receipts) -> None:
    """Every row comes once, whatever their number."""
    names = [f"{number:05}" for number in range(2001)]
    receipts.note([(sealed(name), EARLIER) for name in reversed(names)])
    receipts.expect([parcel(name) for name in names])
    assert [file.path for file in receipts.sealed()] == [f"one/{name}" for name in names]


def test_another_process_finds_it(receipts: Receipts, tmp_path: Path) -> None:
    """Also when the first was killed: its write-ahead log is still there."""
    receipts.note([(sealed("a"), EARLIER)])
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob("sent.sqlite*"):
        (copy / file.name).write_bytes(file.read_bytes())
    assert Receipts(copy / "sent.sqlite").lacking([parcel("a")]) == []
    receipts.close()
    assert receipts.lacking([parcel("a")]) == []
    receipts.remove()
    assert receipts.lacking([parcel("a")]) == [parcel("a")]


@pytest.mark.parametrize("damage", ["a text", "cut", "torn", "empty"])
def test_a_damaged_table_is_begun_anew(receipts: Receipts, tmp_path: Path, damage: str) -> None:
    """Everything is sent again; nothing that it says is believed."""
    receipts.note([(sealed(f"{number:05}"), EARLIER) for number in range(2000)])
    receipts.close()
    path = tmp_path / "sent.sqlite"
    data = path.read_bytes()
    path.write_bytes(
        {
            "a text": b"no table\n" * 5000,
            "cut": data[: len(data) // 2],
            "torn": data[:8192] + bytes(8192) + data[16384:],
            "empty": b"",
        }[damage]
    )
    files = [parcel(f"{number:05}") for number in range(2000)]
    assert receipts.lacking(files) == files
    receipts.note([(sealed("a"), EARLIER)])
    assert receipts.lacking([parcel("a")]) == []


def test_a_disk_that_refuses_is_the_operating_systems_complaint(tmp_path: Path) -> None:
    """With its number, from which the run's end knows the remedy."""
    nowhere = Receipts(tmp_path / "a file" / "sent.sqlite")
    (tmp_path / "a file").touch()
    with pytest.raises(OSError, match="Not a directory") as caught:
        nowhere.lacking([parcel("a")])
    assert caught.value.errno == errno.ENOTDIR
    assert isinstance(caught.value.__cause__, sqlite3.Error)


def test_a_full_disk_is_told_as_full_wherever_it_fills(tmp_path: Path) -> None:
    """Also where SQLite only speaks of an I/O error: while it lengthens the file that it maps."""
    said: list[OSError] = []
    with SmallDisk(tmp_path / "disk") as disk:
        for pages in count():
            disk.leave_pages(pages)
            receipts = Receipts(disk.path / "sent.sqlite")
            try:
                receipts.note([(sealed(f"{number:0200}"), EARLIER) for number in range(100)])
                break
            except OSError as error:
                said.append(error)
            disk.give_back()
            receipts.remove()
    assert {error.errno for error in said} == {errno.ENOSPC}
    reasons = {getattr(error.__cause__, "sqlite_errorname", None) for error in said}
    assert reasons == {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}


NAMES = st.text(alphabet=ascii_lowercase[:2] + ".-0 é", min_size=1, max_size=3).filter(
    lambda name: not name.startswith(".")
)


@given(paths=st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12))
def test_a_walk_has_the_order_of_the_paths(
    paths: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As the bucket's listing has it, so that a manifest has one order whatever the file system's is."""
    root = tmp_path_factory.mktemp("output")
    made = set()
    for path in paths:
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch(exist_ok=False)
        except OSError:
            continue  # a folder has this name, or a file that of its folder
        made.add(path)
    seen = Seen()
    found = [name for some in walk(root, seen) for name, _ in some]
    assert found == sorted(made, key=os.fsencode)
    assert seen.files == len(made)
