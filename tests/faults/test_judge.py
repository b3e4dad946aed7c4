"""The judge of the other suites sees what it is there for."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from tests.bucket.entries import RunWriter, leave_run
from tests.bucket.objects import FolderObjects
from tests.faults.judge import Broken, Looker, examine
from tests.faults.ledger import File, ended, finished

STARTED = datetime(2026, 11, 22, 6, tzinfo=UTC)
FILES = {"a": b"one"}
DIGEST = sha256(b"one").hexdigest()


def left(folder: Path, until: str = "closed") -> RunWriter:
    """Return the writer of a run of one job, which left one file."""
    return leave_run(FolderObjects(folder), STARTED, files=FILES, until=until)


def broken(writer: RunWriter, *more: File, gone: bool = False) -> Broken:
    """Return what does not hold."""
    files = [File(writer.run, "quotes", "a", DIGEST), *more]
    runs = frozenset({writer.run}) if gone else frozenset()
    return examine(Looker(writer.objects).look(), files, gone=runs)


def key(writer: RunWriter, name: str) -> str:
    """Return the key of an object of the run's job."""
    return f"runs/{writer.run}/jobs/quotes/{name}"


def rewrite(
    writer: RunWriter, name: str, change: Callable[[dict[str, list[object]]], object]
) -> None:
    """Change a document in its place."""
    document = json.loads(writer.objects.get(name))
    change(document)
    writer.objects.put(name, json.dumps(document).encode())


def test_a_sound_bucket_is_all_zeros(tmp_path: Path) -> None:
    """Nothing is wrong where nothing is."""
    writer = left(tmp_path)
    assert broken(writer) == Broken()
    seen = Looker(writer.objects).look()
    assert seen.committed.keys() == {(writer.run, "quotes")}
    assert {job for _, _, job in seen.successes()} == {"quotes"}


def test_what_is_not_committed_is_lost(tmp_path: Path) -> None:
    """Its files alone count for nothing; a run that did not close has vanished, where somebody could close it."""
    writer = left(tmp_path, until="planned")
    writer.job("quotes", files=FILES)
    assert broken(writer) == Broken(lost=1, vanished=1)
    assert broken(writer, gone=True) == Broken(lost=1)


def test_a_file_that_no_package_has_is_lost(tmp_path: Path) -> None:
    """By another name, of another run, or with another content."""
    writer = left(tmp_path)
    more = [File(writer.run, "quotes", "b", "0"), File("other", "quotes", "a", DIGEST)]
    assert broken(writer, *more) == Broken(lost=2)


def test_an_object_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """A file of a package, a package, a manifest."""
    writer = left(tmp_path)
    writer.objects.delete(key(writer, "files/a"))
    assert broken(writer) == Broken(lost=1, missing=1)
    writer.objects.delete(key(writer, "datapackage.json"))
    # The entry names it, and so does the manifest.
    assert broken(writer) == Broken(lost=1, missing=2)


def test_another_content_is_different(tmp_path: Path) -> None:
    """Also of the same size."""
    writer = left(tmp_path)
    writer.objects.put(key(writer, "files/a"), b"two")
    assert broken(writer) == Broken(lost=1, different=1)


def test_two_packages_of_one_job_are_counted(tmp_path: Path) -> None:
    """And two ends of one run; the same again is what a repeated put leaves."""
    writer = left(tmp_path)
    writer.append(jobs=tuple(writer.results))
    assert broken(writer) == Broken()
    writer.append(jobs=(writer.job("quotes", files={"a": b"one", "b": b""}),))
    assert broken(writer).twice == 1
    # The second manifest names the job twice.
    writer.append(closed=writer.closed())
    assert broken(writer).twice == 3


def test_what_nothing_names_is_counted(tmp_path: Path) -> None:
    """Beneath a job, beneath a run; and a job that the manifest lacks."""
    writer = left(tmp_path)
    writer.objects.put(key(writer, "files/other"), b"")
    writer.objects.put(f"runs/{writer.run}/log/9.jsonl", b"")
    assert broken(writer) == Broken(unlisted=2)
    writer.append(jobs=(writer.job("late", files={}),))
    assert broken(writer) == Broken(unlisted=3)


def test_a_path_that_is_listed_twice_is_counted(tmp_path: Path) -> None:
    """Its package is another one than its entry says, too."""
    writer = left(tmp_path)
    rewrite(
        writer, key(writer, "datapackage.json"), lambda it: it["resources"].extend(it["resources"])
    )
    assert broken(writer).twice == 2


def test_a_run_that_no_pointer_tells_of_has_vanished(tmp_path: Path) -> None:
    """Home would never hear of it."""
    writer = left(tmp_path)
    for pointer in writer.objects.keys("index/"):
        writer.objects.delete(pointer)
    assert broken(writer) == Broken(vanished=1)


@pytest.mark.parametrize("torn", ["file R j x", "file R", "ended R j"])
def test_a_line_that_a_kill_has_torn_says_nothing(tmp_path: Path, torn: str) -> None:
    """The others do."""
    (tmp_path / "ledger").write_text(f"file R j a 00\nended R j 3.5\n{torn}")
    assert finished(tmp_path / "ledger") == [File("R", "j", "a", "00")]
    assert ended(tmp_path / "ledger") == {("R", "j"): 3.5}
