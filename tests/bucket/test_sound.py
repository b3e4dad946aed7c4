"""The inspection of the other suites sees what it is there for."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.leaving import RUN, leave_begun, leave_run
from tests.bucket.objects import FolderObjects
from tests.bucket.sound import Broken, Looker, all_sound, examine, sound

OTHER = "20261122T064206Z-000000"
DONE = (RUN, "quotes/a", sha256(b"one").hexdigest())
"""What the job of the one run had finished."""


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A bucket with one run of one file."""
    bucket = Bucket.in_folder(tmp_path)
    leave_run(bucket, files={"quotes/a": b"one"})
    return bucket


def broken(bucket: Bucket, *finished: tuple[str, str, str]) -> Broken:
    """Return what does not hold; no reader of a single run may call it sound then."""
    found = examine(Looker(bucket.objects).look(), [DONE, *finished])
    if found.twice or found.missing or found.different or found.unlisted:
        with pytest.raises(AssertionError):
            sound(bucket, RUN)
        with pytest.raises(AssertionError):
            all_sound(bucket)
    return found


def test_a_sound_bucket_is_all_zeros(bucket: Bucket) -> None:
    """Nothing is wrong where nothing is."""
    assert broken(bucket) == Broken()
    assert all_sound(bucket) == [RUN]
    assert sound(bucket, RUN).results == {"quotes/a": False}


def test_a_run_that_is_not_committed_is_not_sound(bucket: Bucket) -> None:
    """Its files alone count for nothing."""
    bucket.remove_entry(RUN)
    with pytest.raises(AssertionError):
        sound(bucket, RUN)
    assert broken(bucket) == Broken(lost=1, vanished=1)


def test_a_finished_file_that_no_manifest_has_is_lost(bucket: Bucket) -> None:
    """Also when its run is not there at all."""
    assert broken(bucket, (RUN, "a/other", "0"), (OTHER, "quotes/a", "0")) == Broken(lost=2)


def test_a_second_entry_is_counted(bucket: Bucket) -> None:
    """Whatever it says."""
    bucket.put_entry(RUN, bucket.entry(RUN), at=datetime(2026, 11, 23, tzinfo=UTC))
    assert broken(bucket) == Broken(twice=1)


def test_a_path_that_is_listed_twice_is_counted(bucket: Bucket) -> None:
    """Though each row fits what is there."""
    bucket.rewrite(RUN, lambda manifest: manifest["resources"].append(manifest["resources"][0]))
    assert broken(bucket) == Broken(twice=1)


def test_an_object_that_is_not_there_is_missing_and_lost(bucket: Bucket) -> None:
    """The manifest names it, and its job had finished it."""
    bucket.remove_file(RUN, "quotes/a")
    assert broken(bucket) == Broken(lost=1, missing=1)


def test_another_content_is_different(bucket: Bucket) -> None:
    """Of a file, even of the same size, and of a manifest."""
    bucket.put_file(RUN, "quotes/a", b"two")
    assert broken(bucket) == Broken(lost=1, different=1)
    bucket.put_file(RUN, "quotes/a", b"one")
    bucket.put_manifest(RUN, bucket.manifest_text(RUN) + b" ")
    assert broken(bucket) == Broken(different=1)


def test_orphans_of_a_committed_run_and_runs_that_vanished_are_counted(bucket: Bucket) -> None:
    """An object that the manifest does not name; a run that began and has no entry."""
    bucket.put_file(RUN, "quotes/orphan", b"")
    leave_begun(bucket, OTHER)
    assert broken(bucket) == Broken(unlisted=1, vanished=1)


def test_a_file_that_was_not_sent_may_be_there(bucket: Bucket) -> None:
    """A request that was given up still arrived."""
    bucket.put_file(RUN, "quotes/late", b"")
    unsent = [{"path": "quotes/late"}]
    bucket.rewrite(RUN, lambda manifest: manifest["mayfly:run"].update(unsent=unsent))
    assert broken(bucket) == Broken()


def test_a_second_look_reads_what_has_changed(tmp_path: Path) -> None:
    """Also a content of the same size; what is gone is gone."""
    read: list[str] = []

    class Counting(FolderObjects):
        def get(self, key: str) -> bytes:
            read.append(key)
            return super().get(key)

    for name in ("stays", "changes", "goes"):
        (tmp_path / name).write_bytes(b"one")
    looker = Looker(Counting(tmp_path))
    looker.look()
    read.clear()
    (tmp_path / "draft").write_bytes(b"two")
    (tmp_path / "draft").rename(tmp_path / "changes")
    (tmp_path / "goes").unlink()
    seen = looker.look()
    assert read == ["changes"]
    assert {key: held.sha256 for key, held in seen.items()} == {
        "stays": sha256(b"one").hexdigest(),
        "changes": sha256(b"two").hexdigest(),
    }
