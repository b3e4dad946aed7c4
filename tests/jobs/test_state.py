"""A job's memory on the disk: packed and unpacked within its limits, in bytes and in files, and never for long."""

import gzip
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import pytest

from agent.jobs.state import MAX_ENTRIES, pack, unpack
from tests.parts.deep_folders import nested

LIMIT = 1024**2


def never() -> bool:
    """The run goes on."""
    return False


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A job's state folder, with two files."""
    folder = tmp_path / "state"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "cookies").write_text("yes")
    (folder / "empty").touch()
    return folder


def test_what_was_packed_comes_out_again(state: Path, tmp_path: Path) -> None:
    """Files with their content, at their paths; nothing of the machine's users is in the archive."""
    archive = tmp_path / "state.tar.gz"
    assert pack(state, archive, LIMIT, never) == ""
    with tarfile.open(archive) as tar:
        assert {(member.name, member.uname) for member in tar} == {
            ("deep/cookies", ""),
            ("empty", ""),
        }
    again = tmp_path / "again"
    again.mkdir()
    assert unpack(archive, again, LIMIT, never) == ""
    assert (again / "deep" / "cookies").read_text() == "yes"
    assert (again / "empty").exists()


def test_nothing_is_packed_only_where_it_supersedes_something(tmp_path: Path) -> None:
    """An empty archive is a state as well: its job begins with an empty folder."""
    state, archive = tmp_path / "state", tmp_path / "state.tar.gz"
    state.mkdir()
    assert pack(state, archive, LIMIT, never) == ""
    assert not archive.exists()
    assert pack(state, archive, LIMIT, never, supersedes=True) == ""
    assert unpack(archive, state, LIMIT, never) == ""
    assert list(state.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_more_files_than_a_state_may_have_are_not_packed(
    state: Path, tmp_path: Path, kind: str
) -> None:
    """However small they are: each would cost every later run something. Nothing is begun, and it is told."""
    for number in range(MAX_ENTRIES):
        path = state / str(number)
        path.touch() if kind == "file" else path.mkdir()
    archive = tmp_path / "state.tar.gz"
    told = pack(state, archive, LIMIT, never)
    assert told == f"its state was not kept: it has more than {MAX_ENTRIES} files and folders"
    assert not archive.exists()


def test_an_archive_beyond_the_limits_is_not_unpacked(state: Path, tmp_path: Path) -> None:
    """Whoever put it into the bucket, bytes counted as they are on the disk: half a state is none."""
    archive, again = tmp_path / "state.tar.gz", tmp_path / "again"
    again.mkdir()
    (state / "large").write_bytes(bytes(LIMIT))
    assert "more than 1.0 MB" in pack(state, archive, LIMIT, never)
    assert not archive.exists()
    assert pack(state, archive, 2 * LIMIT, never) == ""
    assert "more than 1.0 MB" in unpack(archive, again, LIMIT, never)
    with tarfile.open(archive, "w:gz") as tar:
        for number in range(MAX_ENTRIES + 1):
            tar.addfile(tarfile.TarInfo(str(number)))
    assert f"more than {MAX_ENTRIES} files" in unpack(archive, again, LIMIT, never)
    assert list(again.iterdir()) == []


def test_a_state_that_is_damaged_or_too_deep_costs_no_job(state: Path, tmp_path: Path) -> None:
    """The job begins without it: one that could not start would leave none in its place, night after night."""
    archive, again = tmp_path / "state.tar.gz", tmp_path / "again"
    again.mkdir()
    (state / "text").write_bytes(bytes(100_000))
    assert pack(state, archive, LIMIT, never) == ""
    begins = zlib.compressobj(wbits=31)
    start = begins.compress(gzip.decompress(archive.read_bytes())[:50_000])
    archive.write_bytes(start + begins.flush(zlib.Z_FULL_FLUSH) + b"\xff" * 100)
    assert "could not be restored: Error -3" in unpack(archive, again, LIMIT, never)
    with nested(state, 1500):
        assert pack(state, archive, LIMIT, never) == ""
    assert "could not be restored: maximum recursion depth" in unpack(archive, again, LIMIT, never)
    assert list(again.iterdir()) == []


def test_a_header_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    """Zeros shrink a thousandfold, and tarfile reads a header whole, before anybody sees the file that it is of."""
    archive, again = tmp_path / "state.tar.gz", tmp_path / "again"
    again.mkdir()
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 256 * 1024**2
    with gzip.open(archive, "wb") as stream:
        stream.write(header.tobuf())
        for _ in range(256):
            stream.write(bytes(1024**2))
    tracemalloc.start()
    told = unpack(archive, again, LIMIT, never)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told == "its state could not be restored: one of its headers is too large"
    assert peak < 8 * 1024**2
    assert list(again.iterdir()) == []


def test_both_are_given_up_when_the_run_is_told_to_stop(state: Path, tmp_path: Path) -> None:
    """Between two files; what was there before stays, and what was begun goes."""
    archive = tmp_path / "state.tar.gz"
    assert pack(state, archive, LIMIT, never) == ""
    before = archive.read_bytes()
    answers = iter([False, False, True])
    assert "told to stop" in pack(state, archive, LIMIT, lambda: next(answers, True))
    assert archive.read_bytes() == before
    again = tmp_path / "again"
    again.mkdir()
    answers = iter([False, True])
    assert "told to stop" in unpack(archive, again, LIMIT, lambda: next(answers, True))
    assert list(again.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"state", "state.tar.gz", "again"}


def test_an_archive_that_cannot_be_put_in_place_costs_the_state_and_not_the_job(
    state: Path, tmp_path: Path
) -> None:
    """The job has succeeded: that its state is lost is a note."""
    archive = tmp_path / "state.tar.gz"
    archive.mkdir()
    assert pack(state, archive, LIMIT, never).startswith("its state was not kept: ")
    assert {path.name for path in tmp_path.iterdir()} == {"state", "state.tar.gz"}
