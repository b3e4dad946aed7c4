"""The history follows the bucket, and believes nothing that cannot be."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.bucket.address import S3Bucket, bucket_at
from agent.config.settings import Store
from agent.core.results import JobResult, JobStatus, RunStatus
from consumer.archive.follow import CHECKED_AGAIN, Look
from consumer.archive.intake import MAX_EVIDENCE, MAX_TEXT, cost_of
from consumer.archive.recall import recall
from consumer.archive.schema import ArchiveError, default_name
from consumer.archive.writer import Writer
from consumer.history import Committed, recent
from tests.bucket.bucket import Bucket
from tests.bucket.layout import manifest_key
from tests.bucket.leaving import RUN, leave_begun, leave_run, record
from tests.consumer.following import NOW, SHOT, Home, failed, run_at


async def test_what_the_bucket_says_is_known(home: Home, bucket: Bucket) -> None:
    """Runs, jobs, evidence and what vanished arrive with one look, and nothing is read twice."""
    leave_run(bucket, run_at(1), jobs=(failed(),), files={SHOT: b"\x89PNG"}, stale=True)
    leave_run(bucket, run_at(2))
    leave_begun(bucket, run_at(3))
    assert await home.looks() == Look(runs=2, begun=1)
    assert await home.looks() == Look()
    past = home.reader.past()
    assert [row.run for row in past.runs] == [run_at(1), run_at(2)]
    assert past.runs[0].status is RunStatus.FAILED
    assert past.runs[0].stale_reason == "no network"
    assert past.jobs is not None
    assert [row.message for row in past.jobs["quotes"]] == ["no .quote", ""]
    assert [row.run for row in past.begun] == [run_at(3)]
    assert [(row.job, row.path) for row in home.reader.evidence(run_at(1))] == [("quotes", SHOT)]


async def test_a_run_that_was_under_way_is_committed_later(home: Home, bucket: Bucket) -> None:
    """A marker is no vanished run any more once its run is in the index, however late that is."""
    leave_begun(bucket, RUN)
    await home.looks()
    assert [row.run for row in home.reader.begun()] == [RUN]
    leave_run(bucket, RUN)
    assert (await home.looks(NOW + timedelta(days=30))).runs == 1
    assert home.reader.begun() == ()


async def test_a_run_that_stood_back_did_not_vanish(home: Home, bucket: Bucket) -> None:
    """Its agent took the marker away, because another machine has the slot; the others' markers still count."""
    leave_begun(bucket, run_at(1))
    leave_begun(bucket, run_at(2))
    assert (await home.looks()).begun == 2
    bucket.remove_begun(run_at(2))
    later = await home.looks(NOW + timedelta(hours=3))
    assert later.withdrawn == 1
    assert later.changed
    assert [row.run for row in home.reader.past().begun] == [run_at(1)]
    assert await home.looks(NOW + timedelta(hours=3)) == Look()


async def test_a_marker_of_long_ago_is_not_listed_again(home: Home, bucket: Bucket) -> None:
    """What vanished more than a day before the newest marker stays known, though no listing shows it any more."""
    leave_begun(bucket, run_at(1))
    leave_begun(bucket, run_at(9))
    await home.looks()
    assert (await home.looks()).withdrawn == 0
    assert [row.run for row in home.reader.past().begun] == [run_at(1), run_at(9)]


async def test_an_entry_that_appears_late_is_found(local: Home, folder: Bucket) -> None:
    """A commit that sorts before the cursor, by less than the overlap, is seen."""
    leave_run(folder, run_at(1), files={})
    entry = folder.entry(run_at(1))
    folder.remove_entry(run_at(1))
    leave_run(folder, run_at(2), files={})
    await local.looks()
    folder.put_entry(run_at(1), entry, at=record(run_at(2)).finished - timedelta(minutes=10))
    assert (await local.looks()).runs == 1
    assert len(local.reader.runs(9)) == 2


async def test_a_run_of_a_clock_that_is_behind_is_found(local: Home, folder: Bucket) -> None:
    """A folder refuses no writer's clock, as S3 does: a run may be committed hours behind the last."""
    leave_run(folder, run_at(9), files={})
    await local.looks()
    leave_run(folder, run_at(1), files={})
    assert await local.looks() == Look(runs=1)
    assert await local.looks() == Look()


async def test_a_run_committed_twice_counts_once_by_its_first_commit(
    local: Home, folder: Bucket
) -> None:
    """Whichever of the two is seen first."""
    leave_run(folder, RUN, files={})
    entry = folder.entry(RUN)
    folder.move_entry(RUN, record(RUN).finished + timedelta(minutes=5))
    folder.amend(RUN, release="v9")
    await local.looks()
    assert local.reader.runs(1)[0].release == "v9"
    folder.put_entry(RUN, entry, at=record(RUN).finished)
    await local.looks()
    assert [row.release for row in local.reader.runs(9)] == ["v1.2"]


async def test_a_time_to_come_hides_nothing(local: Home, folder: Bucket) -> None:
    """A forged stamp of the year 2199 is left alone until then, and does not move the cursor."""
    leave_run(folder, RUN, files={})
    entry = folder.entry(RUN)
    folder.put_entry(run_at(9), entry, at=datetime(2199, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert await local.looks() == Look(runs=1, ahead=1)
    leave_run(folder, run_at(8), files={})
    assert (await local.looks()).runs == 1


async def test_what_was_removed_from_the_bucket_is_forgiven(local: Home, folder: Bucket) -> None:
    """A forged entry that somebody deleted, or a marker, is not told for ever; one that was mended is taken."""
    leave_run(folder, RUN, files={})
    good = folder.entry(RUN)
    folder.put_entry(RUN, b"{}")
    folder.put_entry(run_at(3), b"{}", at=NOW)
    folder.put_begun(run_at(4), b"{}")
    await local.looks()
    assert len(local.refused()) == 3
    folder.put_entry(RUN, good)
    folder.remove_entry(run_at(3))
    folder.remove_begun(run_at(4))
    assert (await local.looks()).runs == 1
    assert local.refused() == []


async def test_refused_entries_are_checked_again_a_few_at_a_time(
    local: Home, folder: Bucket
) -> None:
    """A bucket full of forgeries costs a bounded number of reads each time, and all have their turn."""
    for number in range(CHECKED_AGAIN * 2):
        folder.put_entry(run_at(number % 24, 1 + number // 24), b"{}", at=NOW)
    await local.looks()
    for number in range(CHECKED_AGAIN * 2):
        folder.remove_entry(run_at(number % 24, 1 + number // 24))
    counts = []
    for seconds in (1, 2, 3):
        await local.looks(NOW + timedelta(seconds=seconds))
        counts.append(local.reader.past().refused)
    assert counts == [CHECKED_AGAIN, 0, 0]


async def test_a_manifest_may_have_been_removed_by_a_lifecycle_rule(
    local: Home, folder: Bucket
) -> None:
    """A run of long ago is known by its index entry; one of today must have its manifest."""
    leave_run(folder, RUN, files={})
    folder.objects.delete(manifest_key(RUN))
    await local.looks()
    assert local.refused() == ["its manifest is not in the bucket"]
    await local.looks(NOW + timedelta(days=8))
    assert local.refused() == []
    assert len(local.reader.runs(9)) == 1


async def test_costs_appear_as_soon_as_manifests_have_them(local: Home, folder: Bucket) -> None:
    """A run that could not tell its index entry may still tell it in its manifest."""
    leave_run(folder, RUN, files={})
    cost = {"total_usd": 0.25, "standing_usd_month": 1.5}
    folder.rewrite(RUN, lambda manifest: manifest["mayfly:run"].update(cost=cost))
    await local.looks()
    (row,) = local.reader.runs(1)
    assert (row.cost, row.standing) == (0.25, 1.5)


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        ({"total_usd": 1}, 1.0),
        ({"total_usd": 0.5}, 0.5),
        ({"total_usd": True}, None),
        ({"total_usd": "1"}, None),
        ({"total_usd": -1}, None),
        ({"total_usd": 1e9}, None),
        ({"total_usd": 10**400}, None),
        ({"usd": 1}, None),
        (None, None),
        (1, None),
        ([1], None),
    ],
)
def test_costs_are_numbers_of_this_world(cost: object, expected: float | None) -> None:
    """What is none is unknown, not zero."""
    assert cost_of({"cost": cost}) == expected


async def test_evidence_is_bounded_and_belongs_to_failed_jobs(local: Home, folder: Bucket) -> None:
    """A manifest with a thousand screenshots leaves a dozen behind, and those of a job that succeeded none."""
    shots = {f"_run/evidence/quotes/{number:04d}.png": b"x" for number in range(1000)}
    shots["_run/evidence/notes/1.png"] = b"x"
    jobs = (failed("x" * 2000), JobResult(name="notes", status=JobStatus.SUCCEEDED))
    leave_run(folder, RUN, jobs=jobs, files=shots)
    await local.looks()
    assert len(local.reader.evidence(RUN)) == MAX_EVIDENCE
    assert {row.job for row in local.reader.evidence(RUN)} == {"quotes"}
    assert len(local.reader.jobs_of(RUN)[0].message) == MAX_TEXT


def damage(path: Path) -> None:
    """Overwrite the middle of a file."""
    content = bytearray(path.read_bytes())
    content[200:6000] = b"?" * 5800
    path.write_bytes(content)


def other_version(path: Path) -> None:
    """Make it a file of a version to come."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE about SET value = '99' WHERE name = 'version'")
    connection.close()


@pytest.mark.parametrize("harm", [damage, other_version])
async def test_a_history_that_cannot_be_used_is_moved_aside(
    local: Home, folder: Bucket, harm: Callable[[Path], object]
) -> None:
    """The bucket is the truth: a new file is filled, and the broken one, or that of another version, is still there."""
    leave_run(folder, RUN, files={})
    await local.looks()
    harm(local.path)
    before = local.path.read_bytes()
    assert await local.looks() == Look(runs=1)
    assert len(local.reader.runs(9)) == 1
    (aside,) = set(local.path.parent.glob("history.sqlite.2*Z"))
    assert aside.read_bytes() == before


@pytest.mark.parametrize(
    "harm", [lambda path: path.write_bytes(b""), lambda path: path.unlink()], ids=["empty", "gone"]
)
async def test_a_history_that_is_gone_is_made_again(
    local: Home, folder: Bucket, harm: Callable[[Path], object]
) -> None:
    """A file that is empty is as good as none."""
    leave_run(folder, RUN, files={})
    await local.looks()
    harm(local.path)
    assert await local.looks() == Look(runs=1)
    assert len(local.reader.runs(9)) == 1


def text_file(path: Path) -> None:
    """Write a text."""
    path.write_text("my notes of ten years\n" * 9)


def other_database(path: Path) -> None:
    """Make another program's database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE about (name, value); CREATE TABLE album (title);")


@pytest.mark.parametrize("make", [text_file, other_database])
def test_a_file_of_somebody_else_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """A text, or the database of another program, is not a broken history."""
    path = tmp_path / "notes"
    make(path)
    before = path.read_bytes()
    with pytest.raises(ArchiveError, match="not a history of Mayfly") as caught:
        Writer(path, "b")
    assert path.read_bytes() == before
    assert "--history" in caught.value.remedy


async def test_the_history_of_another_bucket_is_refused_and_left_alone(
    local: Home, folder: Bucket, tmp_path: Path
) -> None:
    """A trial with another bucket costs no history of years."""
    leave_run(folder, RUN, files={})
    await local.looks()
    other = Bucket.in_folder(tmp_path / "other")
    leave_run(other, run_at(5), files={})
    with pytest.raises(ArchiveError, match=r"is about file://.*, and was left alone"):
        await Home(tmp_path, other).looks()
    assert [row.run for row in local.reader.runs(9)] == [RUN]


def test_a_history_has_one_writer_at_a_time(tmp_path: Path) -> None:
    """A second is refused, and has its turn when the first has ended."""
    first = Writer(tmp_path / "history", "b")
    with pytest.raises(ArchiveError, match="another `mayfly serve` writes"):
        Writer(tmp_path / "history", "b")
    first.close()
    Writer(tmp_path / "history", "b").close()


def test_each_bucket_has_a_history_of_its_own() -> None:
    """The bucket's name in two services is two buckets; spellings of one address are one."""

    def name_of(url: str, endpoint: str | None = None) -> str:
        address = bucket_at(Store(url=url, endpoint=endpoint), Path("/none"))
        return default_name(address.identity) if isinstance(address, S3Bucket) else ""

    names = {
        name_of("s3://scraped/prod"),
        name_of("s3://scraped/test"),
        name_of("s3://scraped/prod", "http://nas:9000"),
        name_of("s3://scraped/prod", "https://nas"),
    }
    assert len(names) == 4
    assert name_of("s3://scraped/prod/") in names
    assert name_of("s3://scraped/prod", "http://NAS:9000/") in names
    assert name_of("s3://scraped/prod", "https://nas:443") in names
    assert all(name.startswith("s3-scraped-") for name in names)


def test_a_history_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    """A folder that is a file is an error with a remedy."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArchiveError, match="cannot be used") as caught:
        Writer(tmp_path / "file" / "history", "b")
    assert "--history" in caught.value.remedy


async def test_a_first_look_that_was_killed_goes_on_where_it_was(
    local: Home, folder: Bucket
) -> None:
    """What was written stays; asking meanwhile is always possible."""
    for hour in range(20):
        leave_run(folder, run_at(hour, 20), files={})
    task = asyncio.create_task(local.looks())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await local.looks()
    assert len(local.reader.runs(99)) == 20


async def test_the_history_tells_the_same_story_as_the_bucket(local: Home, folder: Bucket) -> None:
    """`mayfly status` shows the same from either."""
    leave_run(folder, run_at(1), jobs=(failed(),))
    leave_run(folder, run_at(2), stale=True)
    leave_begun(folder, run_at(3))
    folder.put_entry(run_at(4), b"{}", at=NOW)
    await local.looks()
    there = await recent(folder.reader(), now=NOW, limit=9)
    here = recall(local.reader, NOW, 9)
    assert [(type(row).__name__, row.run) for row in here] == [
        (type(row).__name__, row.run) for row in there
    ]
    pairs = [(a, b) for a, b in zip(here, there, strict=True) if isinstance(a, Committed)]
    for mine, theirs in pairs:
        assert isinstance(theirs, Committed)
        assert mine.entry == theirs.entry
