"""The inspection of the other suites sees what it is there for."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter, leave_run
from tests.bucket.layout import file_key, job_key, log_key, manifest_key, run_key, state_key
from tests.bucket.objects import FolderObjects
from tests.bucket.sound import Broken, File, Looker, all_sound, examine, sound

STARTED = datetime(2026, 11, 22, 6, 42, 5, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 6, 42, 5, tzinfo=UTC)
FILES = {"a": b"one"}


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A bucket with one run of one job with one file."""
    return Bucket.in_folder(tmp_path)


@pytest.fixture
def left(bucket: Bucket) -> RunWriter:
    """The writer of that run."""
    return leave_run(bucket.objects, STARTED, files=FILES)


def done(run: str, path: str = "a", content: bytes = b"one") -> File:
    """Return what the job of a run had finished."""
    return File(run, "quotes", path, sha256(content).hexdigest())


def broken(bucket: Bucket, left: RunWriter, *finished: File) -> Broken:
    """Return what does not hold; no reader of a single run may call it sound then."""
    found = examine(Looker(bucket.objects).look(), [done(left.run), *finished])
    if found - Broken(lost=found.lost) != Broken():
        with pytest.raises(AssertionError):
            all_sound(bucket)
    return found


def rewrite(bucket: Bucket, key: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a document, and let whatever names it go by the new one."""
    document = json.loads(bucket.objects.get(key))
    change(document)
    replace(bucket, key, json.dumps(document).encode())


def replace(bucket: Bucket, key: str, new: bytes) -> None:
    """Store another content, and let whatever names it go by that, and so on."""
    old = bucket.objects.get(key)
    bucket.objects.put(key, new)
    for other in bucket.objects.stamps():
        text = bucket.objects.get(other)
        fits = text.replace(sha256(old).hexdigest().encode(), sha256(new).hexdigest().encode())
        if fits != text:
            size = rb'("bytes":\s*)%d\b' % len(old)
            replace(bucket, other, re.sub(size, rb"\g<1>%d" % len(new), fits))


def test_a_sound_bucket_is_all_zeros(bucket: Bucket, left: RunWriter) -> None:
    """Nothing is wrong where nothing is."""
    assert broken(bucket, left) == Broken()
    assert all_sound(bucket) == [left.run]
    run = sound(bucket, left.run)
    assert (run.results, run.files) == ({"quotes/a"}, {"quotes/a": b"one"})
    assert (run.status, run.statuses) == ("succeeded", {"quotes": "succeeded"})
    assert run.printed("quotes") == b"said something\n"
    assert run.log == [{"event": "run"}]


def test_a_run_that_did_not_close_is_not_sound(bucket: Bucket) -> None:
    """What it committed counts all the same."""
    left = leave_run(bucket.objects, STARTED, files=FILES, until="jobs")
    assert broken(bucket, left) == Broken(vanished=1)
    with pytest.raises(AssertionError):
        sound(bucket, left.run)
    assert examine(Looker(bucket.objects).look(), [done(left.run)], gone={left.run}) == Broken()


def test_a_run_that_nobody_points_to_has_vanished(bucket: Bucket, left: RunWriter) -> None:
    """Home would not learn of it in time."""
    for key in bucket.objects.keys("index/"):
        bucket.objects.delete(key)
    assert broken(bucket, left) == Broken(vanished=1)


def test_a_finished_file_that_no_package_has_is_lost(bucket: Bucket, left: RunWriter) -> None:
    """Also when its job was not committed, or its run is not there at all."""
    other = RunWriter(bucket.objects, LATER).run
    files = (done(left.run, "other"), done(other), File(left.run, "notes", "a", "0"))
    assert broken(bucket, left, *files) == Broken(lost=3)


def test_a_job_with_two_packages_is_counted(bucket: Bucket, left: RunWriter) -> None:
    """The first counts, and the second is not what is there or the other way round."""
    left.append(jobs=(left.job("quotes", files={"a": b"one", "b": b"two"}),))
    found = broken(bucket, left)
    assert (found.twice, found.different) == (1, 2)  # in the first entry, and in the manifest


def test_an_entry_that_is_put_again_is_no_second_one(bucket: Bucket, left: RunWriter) -> None:
    """A put whose answer was lost is repeated by whoever recovers the run."""
    left.nonce = "1" * 8
    left.append(jobs=tuple(left.results))
    assert broken(bucket, left) == Broken()


def test_a_path_that_is_listed_twice_is_counted(bucket: Bucket, left: RunWriter) -> None:
    """Though each row fits what is there."""
    key = job_key(left.run, "quotes")
    rewrite(bucket, key, lambda package: package["resources"].append(package["resources"][0]))
    assert broken(bucket, left) == Broken(twice=1)


@pytest.mark.parametrize(
    ("key", "counts"),
    [
        (lambda run: file_key(run, "quotes", "a"), Broken(lost=1, missing=1)),
        (lambda run: job_key(run, "quotes", "logs/attempt-1.log"), Broken(missing=1)),
        (lambda run: job_key(run, "quotes"), Broken(lost=1, missing=2)),
        (manifest_key, Broken(missing=1)),
        (lambda run: log_key(run, 0), Broken(missing=2)),
    ],
    ids=["file", "printed", "package", "manifest", "log"],
)
def test_an_object_that_is_not_there_is_missing(
    bucket: Bucket, left: RunWriter, key: Callable[[str], str], counts: Broken
) -> None:
    """Each that names it counts: the entry, the package, the manifest."""
    bucket.objects.delete(key(left.run))
    assert broken(bucket, left) == counts


def test_another_content_is_different(bucket: Bucket, left: RunWriter) -> None:
    """Of a file, even of the same size, and of a manifest."""
    bucket.put_file(left.run, "quotes", "a", b"two")
    assert broken(bucket, left) == Broken(lost=1, different=1)
    bucket.put_file(left.run, "quotes", "a", b"one")
    manifest = manifest_key(left.run)
    bucket.objects.put(manifest, bucket.objects.get(manifest) + b" ")
    assert broken(bucket, left) == Broken(different=1)


@pytest.mark.parametrize("path", ["jobs/quotes/files/b", "jobs/other/files/b", "log/7.jsonl"])
def test_an_orphan_of_a_closed_run_is_unlisted(bucket: Bucket, left: RunWriter, path: str) -> None:
    """An object that nothing names."""
    bucket.objects.put(run_key(left.run, path), b"")
    assert broken(bucket, left) == Broken(unlisted=1)


def test_a_job_that_was_not_sent_may_leave_orphans(bucket: Bucket) -> None:
    """A run that says so has told all there is to tell; one that goes on may send more."""
    for more in ({"not_sent": 1}, {"pending": ("other",)}):
        left = leave_run(bucket.objects, STARTED, files=FILES, until="jobs")
        left.append(closed=left.closed("interrupted", **more))
        bucket.objects.put(job_key(left.run, "other", "files/b"), b"")
        assert broken(bucket, left) == Broken(), more


def test_a_state_that_is_named_and_not_there_is_missing(bucket: Bucket) -> None:
    """The next run would begin without it."""
    left = leave_run(bucket.objects, STARTED, files=FILES, until="planned")
    state = left.put(state_key("quotes", left.run), b"state")
    left.append(jobs=(left.job("quotes", files=FILES).model_copy(update={"state": state}),))
    left.append(closed=left.closed())
    assert broken(bucket, left) == Broken()
    bucket.objects.delete(state.key)
    assert broken(bucket, left) == Broken(missing=1)


def test_a_document_that_home_would_not_take_is_not_sound(bucket: Bucket, left: RunWriter) -> None:
    """Though everything is there as it says."""
    rewrite(
        bucket,
        job_key(left.run, "quotes"),
        lambda one: one["mayfly:job"].update(message="x" * 3000),
    )
    assert examine(Looker(bucket.objects).look(), [done(left.run)]) == Broken()
    with pytest.raises(AssertionError):
        sound(bucket, left.run)


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
    seen = looker.look().objects
    assert read == ["changes"]
    assert {key: held.sha256 for key, held in seen.items()} == {
        "stays": sha256(b"one").hexdigest(),
        "changes": sha256(b"two").hexdigest(),
    }
