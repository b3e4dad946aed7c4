"""The history's file: what is kept, what is left alone, and what becomes of one that is damaged."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.batch.fold import Arrived, fold
from agent.batch.follow import Cursor
from agent.contract.entries import Entry, Invalid, Object
from agent.contract.ids import Batch as Id
from agent.contract.layout import EntryKey, LogKey, PointerKey
from agent.contract.results import RunStatus
from consumer.model import Batch, batch_of, load_batch, write_batch
from consumer.store import MIGRATIONS, HistoryError, Store, default_name
from tests.consumer.nights import LIMIT, attempt, nightly, tokyo

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
JOBS = {"quotes": "succeeded", "notes": "failed", "weekly": "skipped", "news": "incomplete"}


def filled(path: Path | None, count: int = 3) -> Store:
    """Return a history of some nights."""
    store = Store.open(path, "s3://bucket", NOW)
    for day in range(count):
        start = tokyo("18 02:00") + timedelta(days=day)
        log = attempt(start, JOBS, schedule=nightly("0 2 * * *"), slot=start)
        store.add(log)
        store.looked(log[0].key.batch, NOW)
    return store


def looked(store: Store, batch: Id) -> Batch:
    """Look into a batch, and return what is kept of it."""
    store.looked(batch, NOW)
    found = store.batch(batch)
    assert found is not None
    return found


def test_what_is_kept_is_there_again(tmp_path: Path) -> None:
    """After the process, with the day on which home began to watch."""
    path = tmp_path / "deep" / "a history"
    store = filled(path)
    pointer = PointerKey(
        NOW, "began", EntryKey(Id("main", "g.0-of-2"), "20261122T120000Z-aaaaaa", "0" * 8, 0)
    )
    cursor = Cursor().advance([pointer], NOW)
    store.note(cursor, [pointer])
    before = store.history()
    store.close()
    again = Store.open(path, "s3://bucket", NOW + timedelta(days=9))
    assert again.damage is None
    assert again.history() == before
    assert again.cursor() == cursor
    assert (before.since, before.missing, len(before.batches)) == (NOW, 1, 3)
    assert again.expected(NOW, 10) == [pointer.entry.batch]


def test_what_arrived_first_stays() -> None:
    """A store that later says something else of an object changes nothing; one that could not be read is read again."""
    store = Store.open(None, "x", NOW)
    entry, *_ = attempt(tokyo("18 02:00"))
    broken = Arrived(entry.key, entry.at, Invalid("cut short"))
    store.add([broken])
    assert looked(store, entry.key.batch).invalid == {entry.key.text: "cut short"}
    assert store.held([entry.key]) == {entry.key}
    assert store.valid_keys(entry.key.batch) == set()
    store.add([entry])
    assert looked(store, entry.key.batch).runs[0].began is not None
    store.add([Arrived(entry.key, NOW, entry.entry)])
    store.add([broken])
    run = looked(store, entry.key.batch).runs[0]
    assert (run.first, run.began is None) == (entry.at, False)


def test_a_window_has_what_is_for_it_and_what_is_open() -> None:
    """In whichever time zone the times were written."""
    store = filled(None)
    open_run = attempt(tokyo("01 02:00"), minutes=None)
    store.add(open_run)
    store.looked(open_run[0].key.batch, tokyo("01 02:01"))
    days = [batch.at.astimezone(UTC).day for batch in store.history(tokyo("19 02:00")).batches]
    assert days == [31, 18, 19]
    days = [batch.at.astimezone(UTC).day for batch in store.history(most=2).batches]
    assert days == [31, 19]
    deadline = tokyo("01 02:00") + LIMIT
    assert store.due(deadline + timedelta(minutes=4)) == []
    store.looked(open_run[0].key.batch, deadline)
    assert store.due(deadline + timedelta(minutes=4)) == []
    assert store.due(deadline + timedelta(minutes=6)) == [open_run[0].key.batch]


def test_another_program_s_database_is_never_touched(tmp_path: Path) -> None:
    """Nor a file that is none."""
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
    for content in (path.read_bytes(), b"My diary\n", b"SQLite format 3\0"):
        path.write_bytes(content)
        with pytest.raises(HistoryError, match="left alone") as error:
            Store.open(path, "x", NOW)
        assert error.value.remedy
        assert path.read_bytes() == content
        assert [one.name for one in tmp_path.iterdir()] == ["other.sqlite"]


@pytest.mark.parametrize("damage", ["middle", "cut", "table"])
def test_a_damaged_history_is_set_aside_and_told(tmp_path: Path, damage: str) -> None:
    """Not deleted; the next begins anew, and a second one is set aside beside the first."""
    path = tmp_path / "history"
    for number in (1, 2):
        filled(path, 40).close()
        content = path.read_bytes()
        if damage == "middle":
            path.write_bytes(content[:4096] + b"\xa5" * 8192 + content[12288:])
        elif damage == "cut":
            path.write_bytes(content[: len(content) // 2 + 100])
        else:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("DROP TABLE batch")
        broken = path.read_bytes()
        store = Store.open(path, "s3://bucket", NOW)
        assert store.damage is not None
        assert store.damage.problem
        assert store.damage.aside == tmp_path / f"history.damaged-{number}"
        assert store.damage.aside.read_bytes() == broken
        assert store.history().batches == ()
        store.close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """With what can be done about it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HistoryError) as error:
        Store.open(tmp_path / "file" / "history", "x", NOW)
    assert "--history" in error.value.remedy


def test_a_file_of_another_form_is_folded_anew(tmp_path: Path) -> None:
    """From the entries, which are what is kept."""
    path = tmp_path / "history"
    store = filled(path)
    before = store.history()
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE about SET value = '0' WHERE name = 'folded'")
        connection.execute("UPDATE batch SET folded = 'of an older form'")
    assert Store.open(path, "s3://bucket", NOW).history() == before


def test_an_empty_file_is_a_history_that_is_not_there_yet(tmp_path: Path) -> None:
    """A volume may be prepared with one; and two processes may begin at once."""
    path = tmp_path / "history"
    path.write_bytes(b"")
    one, two = Store.open(path, "x", NOW), Store.open(path, "x", NOW)
    log = attempt(tokyo("18 02:00"))
    one.add(log)
    two.add(log)
    assert looked(one, log[0].key.batch) == two.batch(log[0].key.batch)


def test_each_bucket_has_a_file_of_its_own() -> None:
    """Whose name says which."""
    assert default_name("s3://scraped/prod").startswith("s3-scraped-prod-")
    assert default_name("s3://scraped/prod") != default_name("s3://scraped-prod")


hows = st.sampled_from(
    ["succeeded", "failed", "timed_out", "interrupted", "empty", "skipped", "incomplete"]
)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), hows, max_size=4),
    st.none() | st.integers(1, 300),
    st.booleans(),
)
def test_a_batch_is_the_same_after_it_was_kept(
    jobs: dict[str, str], minutes: int | None, planned: bool
) -> None:
    """Whatever is in it."""
    log = attempt(tokyo("18 02:00"), jobs if planned else None, minutes=minutes, left_out=["x"])
    batch = batch_of(fold(log[0].key.batch, log), NOW)
    assert load_batch(write_batch(batch)) == batch


def test_a_process_that_dies_between_reading_and_folding_looks_again(tmp_path: Path) -> None:
    """Its entries are kept, and their batch is still one to look into: nothing else would ever name it."""
    path = tmp_path / "history"
    store = Store.open(path, "s3://bucket", NOW)
    log = attempt(tokyo("18 02:00"), JOBS)
    batch = log[0].key.batch
    pointers = [PointerKey(one.at, "jobs", one.key) for one in log]
    store.note(Cursor().advance(pointers, NOW), pointers)
    store.add(log)
    store.close()
    again = Store.open(path, "s3://bucket", NOW)
    assert again.expected(NOW, 10) == [batch]
    assert len(looked(again, batch).runs) == 1
    assert again.expected(NOW, 10) == []
    assert again.history().missing == 0


def with_part(one: Arrived) -> tuple[Arrived, Object]:
    """Return an entry that commits a part of its run's log, and that part."""
    assert isinstance(one.entry, Entry)
    part = Object(key=LogKey(one.key.run, 0).text, bytes=1, sha256="0" * 64)
    return replace(one, entry=one.entry.model_copy(update={"log": (part,)})), part


def test_what_another_process_read_is_news_as_well(tmp_path: Path) -> None:
    """`mayfly status` may have looked first: who pulls, or prints logs, would never hear of it from own polls."""
    path = tmp_path / "history"
    service, status = filled(path), Store.open(path, "s3://bucket", NOW)
    assert service.news() == set(), "who asks begins with all"
    began, part = with_part(attempt(tokyo("22 02:00"), JOBS)[0])
    status.add([began])
    status.looked(began.key.batch, NOW)
    assert service.news() == {began.key.batch}
    status.looked(began.key.batch, NOW + timedelta(seconds=1))
    assert service.news() == {began.key.batch}, "once more"
    assert service.news() == set()
    assert service.new_log_parts(began.at - timedelta(minutes=1)) == [(began.at, part)]
    assert service.new_log_parts(began.at - timedelta(minutes=1)) == []
    later = Store.open(path, "s3://bucket", NOW)
    assert later.new_log_parts(began.at - timedelta(minutes=1)) == [], "it was read before"


def test_a_log_part_of_an_entry_that_had_been_cut_short_is_new(tmp_path: Path) -> None:
    """The entry was read before, and said nothing."""
    store = Store.open(tmp_path / "history", "x", NOW)
    began, part = with_part(attempt(tokyo("18 02:00"))[0])
    store.add([Arrived(began.key, began.at, Invalid("cut short"))])
    assert store.new_log_parts(tokyo("17 02:00")) == []
    store.add([began])
    assert [one for _, one in store.new_log_parts(tokyo("17 02:00"))] == [part]


def test_what_is_left_alone_is_not_even_written(tmp_path: Path) -> None:
    """Whatever the tables of a newer program are, and in whichever form it keeps batches."""
    path = tmp_path / "history"
    filled(path).close()
    form = "UPDATE about SET value = 'another' WHERE name = 'folded'"
    version = f"PRAGMA user_version = {len(MIGRATIONS) + 1}"
    for statements, bucket, reason in (
        ([form], "s3://other", "is about s3://bucket"),
        ([version, "DROP TABLE expired"], "s3://bucket", "newer"),
    ):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in (*statements, "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.execute(statement)
        before = path.read_bytes()
        with pytest.raises(HistoryError, match=reason):
            Store.open(path, bucket, NOW)
        assert path.read_bytes() == before
    assert not [*tmp_path.glob("*damaged*")]


def test_a_batch_whose_files_have_expired_is_folded_anew_once(tmp_path: Path) -> None:
    """And not again by each command; what became of its jobs is still known, also without packages."""
    path = tmp_path / "history"
    store = filled(path)
    batch = store.history().batches[0]
    store.expire(batch.id, batch.runs[0].id)
    plain = store.history(packages=False).batches[0]
    assert plain.status(plain.runs[0]) is RunStatus.EXPIRED
    assert len(plain.runs[0].jobs) == len(JOBS)
    assert not any(job.package for job in plain.runs[0].jobs)
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM batch WHERE folded IS NULL").fetchone() == (
            0,
        )


def test_a_run_of_years_to_come_that_only_a_pointer_tells_of_is_none() -> None:
    """It would be the newest, and under way, for ever."""
    store = filled(None)
    run = "89990101T000000Z-aaaaaa"
    batches = (Id.of_run("main", run), Id("main", "89990101T000000Z"))
    runs = (run, "20261122T120000Z-aaaaaa")
    pointers = [
        PointerKey(NOW, "began", EntryKey(batch, one, "0" * 8, 0))
        for batch, one in zip(batches, runs, strict=True)
    ]
    store.note(Cursor(), pointers)
    assert [looked(store, batch).runs for batch in batches] == [(), ()]
    assert store.history().missing == 2
