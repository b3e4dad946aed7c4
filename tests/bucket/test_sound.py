"""The inspection of the other suites sees what it is there for."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter, leave_run
from tests.bucket.layout import job_key, manifest_key, run_key, state_key
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


def done(run: str, job: str = "quotes") -> File:
    """Return what a job of a run had finished."""
    return File(run, job, "a", sha256(b"one").hexdigest())


def broken(bucket: Bucket, left: RunWriter, *finished: File) -> Broken:
    """Return what does not hold; no reader of a single run may call it sound then."""
    found = examine(Looker(bucket.objects).look(), [done(left.run), *finished])
    if replace(found, lost=0) != Broken():
        with pytest.raises(AssertionError):
            all_sound(bucket)
    return found


def rewrite(bucket: Bucket, key: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a document, and let whatever names it go by the new one."""
    document = json.loads(bucket.objects.get(key))
    change(document)
    put_over(bucket, key, json.dumps(document).encode())


def put_over(bucket: Bucket, key: str, new: bytes) -> None:
    """Store another content, and let whatever names it go by that, and so on."""
    old = bucket.objects.get(key)
    bucket.objects.put(key, new)
    for other in bucket.objects.stamps():
        text = bucket.objects.get(other)
        fits = text.replace(sha256(old).hexdigest().encode(), sha256(new).hexdigest().encode())
        if fits != text:
            size = rb'("bytes":\s*)%d\b' % len(old)
            put_over(bucket, other, re.sub(size, rb"\g<1>%d" % len(new), fits))


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
    """What it committed counts all the same; without a pointer, home would not even learn of it."""
    left = leave_run(bucket.objects, STARTED, files=FILES, until="jobs")
    assert broken(bucket, left) == Broken(vanished=1)
    with pytest.raises(AssertionError):
        sound(bucket, left.run)
    assert examine(Looker(bucket.objects).look(), [done(left.run)], gone={left.run}) == Broken()
    for key in bucket.objects.keys("index/"):
        bucket.objects.delete(key)
    assert broken(bucket, left) == Broken(vanished=2)


def test_a_finished_file_that_no_package_has_is_lost(bucket: Bucket, left: RunWriter) -> None:
    """Also when its job was not committed, or its run is not there at all."""
    other = RunWriter(bucket.objects, LATER).run
    files = (done(left.run, "other"), done(other), File(left.run, "notes", "a", "0"))
    assert broken(bucket, left, *files) == Broken(lost=3)


def test_an_entry_that_is_put_again_is_no_second_one(bucket: Bucket, left: RunWriter) -> None:
    """A put whose answer was lost is repeated by whoever recovers the run."""
    left.nonce = "1" * 8
    left.append(jobs=tuple(left.results))
    assert broken(bucket, left) == Broken()


def test_a_job_with_two_packages_is_counted(bucket: Bucket, left: RunWriter) -> None:
    """The second is over the first, which the first entry and the manifest name."""
    left.append(jobs=(left.job("quotes", files={"a": b"one", "b": b"two"}),))
    assert broken(bucket, left) == Broken(twice=1, different=2)


def test_a_document_of_another_form_is_counted(bucket: Bucket, left: RunWriter) -> None:
    """A package that lists a path twice, though each row fits what is there; a manifest of other bytes."""
    key = job_key(left.run, "quotes")
    rewrite(bucket, key, lambda package: package["resources"].append(package["resources"][0]))
    assert broken(bucket, left) == Broken(twice=1)
    manifest = manifest_key(left.run)
    bucket.objects.put(manifest, bucket.objects.get(manifest) + b" ")
    assert broken(bucket, left) == Broken(twice=1, different=1)


@pytest.mark.parametrize(
    ("path", "content", "counts"),
    [
        ("jobs/quotes/files/a", None, Broken(lost=1, missing=1)),
        ("jobs/quotes/logs/attempt-1.log", None, Broken(missing=1)),
        ("jobs/quotes/datapackage.json", None, Broken(lost=1, missing=2)),
        ("datapackage.json", None, Broken(missing=1)),
        ("log/0.jsonl", None, Broken(missing=2)),
        ("jobs/quotes/files/a", b"two", Broken(lost=1, different=1)),
        ("jobs/quotes/files/b", b"", Broken(unlisted=1)),
        ("jobs/other/files/b", b"", Broken(unlisted=1)),
        ("log/7.jsonl", b"", Broken(unlisted=1)),
    ],
)
def test_an_object_of_a_closed_run_that_is_not_as_it_says(
    bucket: Bucket, left: RunWriter, path: str, content: bytes | None, counts: Broken
) -> None:
    """Gone, another one, or one that nothing names; each that names it counts: entry, package, manifest."""
    if content is None:
        bucket.objects.delete(run_key(left.run, path))
    else:
        bucket.objects.put(run_key(left.run, path), content)
    assert broken(bucket, left) == counts


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
