"""Which files the bucket has is a table; what it does not know costs an upload, and never a file."""

import errno
import sqlite3
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.descriptor import Role, Sealed
from agent.delivery.database import Database
from agent.delivery.scan import Found, Signature
from agent.delivery.sent import OutboxFile, SentFiles, result_file
from tests.parts.small_disk import SmallDisk

EARLIER = Signature(1, 10, 100, 100)
LATER = Signature(1, 20, 200, 200)
JOB = "one"


def database(folder: Path) -> Database:
    """Return an empty database."""
    made = Database(folder / "run.sqlite")
    made.create()
    return made


@pytest.fixture
def sent(tmp_path: Path) -> SentFiles:
    """An empty table."""
    return SentFiles(database(tmp_path))


def result(name: str, signature: Signature = EARLIER, job: str = JOB) -> OutboxFile:
    """Return a result of a job."""
    return result_file(job, Path("/nowhere"), Found(name, signature))


def sealed(name: str, size: int = 10) -> Sealed:
    """Return the same as it was sent."""
    return Sealed(f"files/{name}", size, "0" * 64, Role.RESULT)


def note(sent: SentFiles, *names: str, signature: Signature = EARLIER, job: str = JOB) -> None:
    """Note that files were sent."""
    size = signature.size
    sent.note([(result(name, signature, job), sealed(name, size), signature) for name in names])


def test_what_was_sent_is_not_lacking_until_it_changes(sent: SentFiles) -> None:
    """A file is sent again when it is another one; another job's is another."""
    note(sent, "a")
    assert sent.lacking([result("a"), result("b"), result("a", LATER)]) == [
        result("b"),
        result("a", LATER),
    ]
    assert sent.lacking([result("a", job="two")]) == [result("a", job="two")]


def test_a_package_names_what_is_expected_and_sent(sent: SentFiles) -> None:
    """Not what was sent and is gone since, nor what could not be sent; in the order of the paths."""
    note(sent, "c", "gone", "a")
    note(sent, "a", job="two")
    assert sent.expect([result("a"), result("b"), result("c")]) == [result("b")]
    assert [file.path for file in sent.sealed(JOB)] == ["files/a", "files/c"]
    assert (sent.unsent(JOB), sent.count(JOB)) == (1, (2, 20))
    assert sent.one(JOB, "files/a") == sealed("a")
    sent.drop(JOB, ["files/b"])
    assert sent.unsent(JOB) == 0
    sent.expect_nothing(JOB)
    assert list(sent.sealed(JOB)) == []


def test_a_listing_is_compared(sent: SentFiles) -> None:
    """What it shows otherwise, or not, is missing; what nobody expects is surplus."""
    names = ("held", "shorter", "vanished")
    note(sent, *names)
    sent.expect([result(name) for name in names])
    for _ in ("first", "again"):
        sent.hold_nothing(JOB)
        listed = [("files/held", 10), ("files/shorter", 9), ("files/stranger", 1)]
        assert sent.hold(JOB, listed) == ["files/stranger"]
        assert sent.missing(JOB) == ["files/shorter", "files/vanished"]
    sent.forget(JOB, ["files/shorter"])
    assert sent.missing(JOB) == ["files/vanished"]
    assert sent.lacking([result("shorter")]) == [result("shorter")]


def test_more_than_a_page(sent: SentFiles) -> None:
    """Every row comes once, whatever their number."""
    names = [f"{number:05}" for number in range(2001)]
    note(sent, *reversed(names))
    sent.expect([result(name) for name in names])
    assert [file.path for file in sent.sealed(JOB)] == [f"files/{name}" for name in names]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["send", "change", "expect", "begin", "lose"]),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=20,
)


@given(operations=OPERATIONS)
def test_a_package_never_names_what_is_not_there(
    operations: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is sent, changed, lost and expected, in any order: it names what the bucket has of what is there now."""
    sent = SentFiles(database(tmp_path_factory.mktemp("spool")))
    disk = dict.fromkeys("abc", 1)
    bucket: dict[str, int] = {}
    due: dict[str, int] = {}

    def signature(name: str) -> Signature:
        return Signature(1, 10, disk[name], disk[name])

    for operation, name in operations:
        if operation == "change":
            disk[name] += 1
        elif operation == "send":
            note(sent, name, signature=signature(name))
            bucket[name] = disk[name]
        elif operation == "expect":
            sent.expect([result(name, signature(name))])
            due[name] = disk[name]
            if bucket.get(name) != disk[name]:
                bucket.pop(name, None)
        elif operation == "begin":
            sent.expect_nothing(JOB)
            due = {}
        else:
            sent.forget(JOB, [f"files/{name}"])
            bucket.pop(name, None)
    assert {file.path[-1] for file in sent.sealed(JOB)} == due.keys() & bucket.keys()
    lacking = sent.lacking([result(name, signature(name)) for name in "abc"])
    assert {file.name for file in lacking} == {
        name for name in "abc" if bucket.get(name) != disk[name]
    }


@pytest.mark.parametrize("damage", ["a text", "cut", "torn", "empty"])
def test_a_damaged_database_is_known_as_such(tmp_path: Path, damage: str) -> None:
    """Nothing that it says is believed."""
    made = database(tmp_path)
    note(SentFiles(made), *(f"{number:05}" for number in range(2000)))
    made.close()
    path = tmp_path / "run.sqlite"
    data = path.read_bytes()
    path.write_bytes(
        {
            "a text": b"no table\n" * 5000,
            "cut": data[: len(data) // 2],
            "torn": data[:8192] + bytes(8192) + data[16384:],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(OSError):
        Database(path).check()


def test_a_full_disk_is_told_as_full_wherever_it_fills(tmp_path: Path) -> None:
    """Also where SQLite only speaks of an I/O error: while it lengthens the file that it maps."""
    said: list[OSError] = []
    with SmallDisk(tmp_path / "disk") as disk:
        for pages in count(1):
            disk.leave_pages(pages)
            try:
                note(SentFiles(database(disk.path)), *(f"{number:0200}" for number in range(100)))
                break
            except OSError as error:
                said.append(error)
            disk.give_back()
            for path in disk.path.iterdir():
                path.unlink()
    assert {error.errno for error in said} == {errno.ENOSPC}
    assert {type(error.__cause__) for error in said} <= {
        sqlite3.OperationalError,
        type(None),
    }
