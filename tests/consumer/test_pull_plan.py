"""The decisions of a pull, by table and by property."""

from datetime import UTC, datetime, timedelta

import pytest
from agent.core.ids import commit_stamp
from agent.core.layout import INDEX, INDEX_OVERLAP, IndexKey, index_key, parse_index_key
from agent.core.manifest import Resource
from agent.core.results import JobStatus
from consumer.pull.names import names_at_home
from hypothesis import given
from hypothesis import strategies as st

from agent.base.console import printable
from agent.base.errors import ExitCode
from agent.contract.names import bucket_path
from consumer.pull import plan
from consumer.pull.plan import JobFiles, Wishes
from consumer.pull.report import (
    Delayed,
    Event,
    Hooked,
    Note,
    Placed,
    Refused,
    Report,
    lines_of,
    report_json,
    summary_line,
)
from consumer.pull.state import MAX_REFUSED, Refusal, Selection, State

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def key_at(minutes: float, number: int = 0) -> IndexKey:
    """The key of a run that began five minutes before it was committed, so long before or after noon."""
    moment = NOW + timedelta(minutes=minutes)
    began = moment - timedelta(minutes=5)
    key = parse_index_key(index_key(f"{began:%Y%m%dT%H%M%SZ}-{number:06x}", moment))
    assert key is not None
    return key


def look(selection: Selection, bucket: list[IndexKey]) -> list[IndexKey]:
    """What a pull looks at, when the bucket holds these keys."""
    after = plan.list_after(selection) or ""
    return plan.to_look_at([key for key in bucket if key.key > after], selection)


MINUTES = st.integers(-600, 600)


@given(arrivals=st.lists(st.tuples(MINUTES, st.integers(0, 14)), max_size=25), data=st.data())
def test_every_run_is_looked_at_exactly_once(
    arrivals: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever appears within the overlap of its stamp is seen, once, however pulls and commits alternate."""
    selection, bucket, seen = Selection(), list[IndexKey](), list[str]()
    # Each appears at most the overlap after the time in its name.
    order = sorted(enumerate(arrivals), key=lambda item: item[1][0] + item[1][1])
    for number, (minutes, late) in order:
        bucket.append(key_at(minutes, number))
        if data.draw(st.booleans()):
            new = look(selection, bucket)
            seen += [key.key for key in new]
            selection = plan.settled(selection, new, NOW + timedelta(minutes=minutes + late))
    seen += [key.key for key in look(selection, bucket)]
    assert sorted(seen) == sorted(key.key for key in bucket)


@given(arrivals=st.lists(MINUTES, min_size=1, max_size=15), failing=st.sets(st.integers(0, 14)))
def test_what_fails_waits_and_nothing_else_does(arrivals: list[int], failing: set[int]) -> None:
    """A run that could not be fetched is looked at again, however far the cursor has come."""
    later = NOW + timedelta(days=1)
    bucket = [key_at(minutes, number) for number, minutes in enumerate(arrivals)]
    selection = Selection()
    for number, key in enumerate(look(selection, bucket)):
        selection = (
            plan.deferred(selection, key, later)
            if number in failing
            else plan.settled(selection, [key], later)
        )
    again = look(selection, bucket)
    assert len(again) == len(failing & set(range(len(bucket))))
    selection = plan.settled(selection, again, later)
    assert (look(selection, bucket), selection.waiting) == ([], ())


def test_the_cursor_never_passes_now() -> None:
    """A stamp of the future is settled, and remembered, and moves nothing."""
    future = key_at(60 * 24 * 365)
    selection = plan.settled(Selection(), [key_at(-5), future], NOW)
    assert selection.cursor == key_at(-5).stamp
    assert look(selection, [key_at(-5), future, key_at(0)]) == [key_at(0)]


def test_the_listing_begins_the_overlap_before_the_cursor() -> None:
    """As the contract of the index says; without a cursor where `since` says, and else at the beginning."""
    stamp = commit_stamp(NOW)
    assert plan.list_after(Selection(cursor=stamp)) == f"{INDEX}{commit_stamp(NOW - INDEX_OVERLAP)}"
    assert plan.list_after(Selection()) is None
    since = plan.list_after(Selection(since=NOW.isoformat()))
    assert since == f"{INDEX}{commit_stamp(NOW - plan.CLOCKS)}"


@pytest.mark.parametrize(
    ("before", "since", "goes_on"),
    [
        (None, None, True),
        (None, NOW, True),
        (NOW, NOW + timedelta(1), True),
        (NOW, NOW, True),
        (NOW, NOW - timedelta(1), False),
        (NOW, None, False),
    ],
)
def test_a_cursor_holds_for_what_it_has_looked_at(
    before: datetime | None, since: datetime | None, *, goes_on: bool
) -> None:
    """Who wants earlier runs than were looked at begins anew."""
    old = Selection(since=before and before.isoformat(), cursor=commit_stamp(NOW))
    assert (plan.continued(old, since) == old) is goes_on
    assert bool(plan.continued(old, since).cursor) is goes_on


RUNS = st.lists(st.integers(0, 99).map(lambda n: f"20261122T0642{n:02d}Z-000000"), unique=True)


@given(runs=RUNS, keep=st.integers(1, 9), data=st.data())
def test_keep_removes_only_what_is_old_and_free(
    runs: list[str], keep: int, data: st.DataObject
) -> None:
    """The newest stay, the protected stay, and everything else goes."""
    protected = data.draw(st.sets(st.sampled_from(runs))) if runs else set()
    gone = plan.to_remove(runs, keep, protected, NOW)
    newest = sorted(runs)[-keep:]
    assert set(gone) == set(runs) - set(newest) - protected
    assert gone == sorted(gone)
    assert all(plan.would_go(run, runs, keep, NOW) for run in gone)
    assert not any(plan.would_go(run, runs, keep, NOW) for run in newest)


@given(runs=RUNS, data=st.data())
def test_latest_is_the_last_that_succeeded(runs: list[str], data: st.DataObject) -> None:
    """Partial runs do not count, however new."""
    partial = data.draw(st.sets(st.sampled_from(runs))) if runs else set()
    latest = plan.latest_of(runs, partial, NOW)
    assert latest == max(set(runs) - partial, default=None)


def job(*paths: str) -> JobFiles:
    """A job with these files."""
    files = [
        Resource(name=path, path=f"j/{path}", bytes=0, hash=f"sha256:{'0' * 64}", mediatype="x/y")
        for path in paths
    ]
    return JobFiles("j", JobStatus.SUCCEEDED, partial=False, files=tuple(files))


@pytest.mark.parametrize(
    ("paths", "meet"),
    [
        (("a", "b"), False),
        (("a", "A"), True),
        (("\u00e9", "e\u0301"), True),
        (("\u00c9", "e\u0301"), True),
        (("stra\u00dfe", "STRASSE"), True),
        (("\u212a", "k"), True),
        (("a", "a/b"), True),
        (("A", "a/b"), True),
        (("a/x", "A/y"), False),
        (("a/b/c", "a/b"), True),
        (("a.b", "a/b"), False),
    ],
)
def test_names_that_meet_on_some_file_system_are_known(
    paths: tuple[str, ...], *, meet: bool
) -> None:
    """Names that differ in case or accents only, and a file that is a folder as well."""
    assert [set(pair) for pair in plan.alike(job(*paths))] == [set(paths)] * meet


def test_refusals_are_bounded_and_each_is_kept_once() -> None:
    """A bucket full of forgeries costs a bounded memory; the newest are told."""
    state = State()
    for number in range(MAX_REFUSED + 50):
        key = key_at(0, number)
        refusal = Refusal(key=key.key, run=key.run, problems=("p",))
        state = state.with_refusals([refusal, refusal])
    assert len(state.refused) == MAX_REFUSED
    assert state.refused[-1].run == key_at(0, MAX_REFUSED + 49).run


@pytest.mark.parametrize(
    ("events", "unreachable", "code"),
    [
        ((), "", ExitCode.DONE),
        ((Note("n"),), "", ExitCode.DONE),
        ((Hooked("r", "j"),), "", ExitCode.DONE),
        ((Hooked("r", "j", "exit code 1"),), "", ExitCode.PARTIAL),
        ((Refused("r", None, ("p",)),), "", ExitCode.PARTIAL),
        ((Delayed("r", "full", store=False),), "", ExitCode.PARTIAL),
        ((Delayed("r", "gone", store=True), Refused("r", "j", ())), "", ExitCode.NOT_DELIVERED),
        ((), "gone", ExitCode.NOT_DELIVERED),
    ],
)
def test_the_exit_code_says_the_worst(
    events: tuple[Event, ...], unreachable: str, code: ExitCode
) -> None:
    """One report, one exit code, and it is in the document, too."""
    report = Report(events, unreachable)
    assert report.exit_code == code
    assert report_json(report, "b", "d")["exit_code"] == code
    assert summary_line(report)


@given(text=st.text(max_size=40))
def test_nothing_hostile_is_in_a_line(text: str) -> None:
    """What a bucket says reaches a terminal without control characters, line by line."""
    events = (
        Refused("r", None, (text,)),
        Delayed("r", text, store=True),
        Note(text),
        Placed("r", "j", text, 1, 1, "succeeded", partial=True),
    )
    for event in events:
        for line in lines_of(event):
            assert printable(line) == " ".join(line.split())


def test_wishes_name_their_own_cursor() -> None:
    """The order of jobs does not matter, the choice does."""
    one, two = Wishes(frozenset({"a", "b"})), Wishes(frozenset({"b", "a"}), keep=3)
    assert plan.selection_name(one) == plan.selection_name(two)
    assert plan.selection_name(one) != plan.selection_name(Wishes())
    assert plan.selection_name(Wishes(partial=True)) != plan.selection_name(Wishes())


def test_no_two_files_meet_where_one_keeps_the_name_of_the_bucket() -> None:
    """A job may have named a file as another is called in the bucket: then all keep what they have there."""
    odd = "n" * 300
    twin = bucket_path(odd)
    files = {bucket_path(name): name for name in (odd, twin, "a\\b")}
    job = JobFiles(
        "j",
        JobStatus.SUCCEEDED,
        partial=False,
        files=tuple(
            Resource.model_validate(
                {
                    "name": path,
                    "path": f"j/{path}",
                    "bytes": 0,
                    "hash": f"sha256:{'0' * 64}",
                    "mediatype": "x/y",
                    "mayfly:path": name,
                }
            )
            for path, name in files.items()
        ),
    )
    assert names_at_home(job, lambda _: True) == {f"j/{path}": name for path, name in files.items()}
    assert names_at_home(job, lambda name: name != odd) == {}
    assert names_at_home(job, lambda _: False) == {}
