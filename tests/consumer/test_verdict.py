# ruff: noqa: RUF001 -- Japanese
"""The morning's question, its answer, and what fails now: one entry for one cause."""

from datetime import timedelta

import pytest

from agent.batch.fold import Arrived
from agent.contract.results import JobCause, JobStatus
from consumer.groups import State
from consumer.judge import Judged, Rules, judge
from consumer.page.given import Health, Problem, Pull
from consumer.page.sentences import trouble_details, trouble_title, verdict_text, when
from consumer.page.verdict import Kind, verdict
from consumer.page.words import language
from tests.consumer import scenes
from tests.consumer.nights import TOKYO, attempt, history, nightly, started_by, tokyo
from tests.consumer.scenes import NOW, SCENES, SLOT, night

ENGLISH, JAPANESE = language("en"), language("ja")
NIGHTLY = nightly("cron(0 3 * * ? *)")


def judged(now: str, *attempts: list[Arrived]) -> Judged:
    """Return what follows from runs at a moment."""
    return judge(history(tokyo(now), *attempts), Rules(tokyo(now)))


def said(judged: Judged, health: Health | None = None) -> list[str]:
    """Return the answer in English."""
    return verdict_text(ENGLISH, verdict(judged, health))


@pytest.mark.parametrize(
    ("name", "state", "english", "japanese"),
    [
        (
            "good",
            State.SUCCEEDED,
            "Last night: 5 of 5 jobs, 217 files, all at home. Next: tomorrow 03:00.",
            "昨夜：ジョブ 5/5、217ファイル、すべて取得済み。 次回: 明日 03:00。",
        ),
        (
            "failed",
            State.FAILED,
            "Last night: 4 of 5 jobs, prices failed, 176 files, all at home. Next: tomorrow 03:00.",
            "昨夜：ジョブ 4/5、pricesが失敗、176ファイル、すべて取得済み。 次回: 明日 03:00。",
        ),
        (
            "no-run",
            State.FAILED,
            "No run since Tuesday 03:00; expected today 03:00. Next: tomorrow 03:00.",
            "火曜日 03:00以降、実行がありません（予定: 今日 03:00）。 次回: 明日 03:00。",
        ),
        (
            "lost",
            State.FAILED,
            "Last night: the run was lost, 3 of 5 jobs, 166 files, all at home. Next: tomorrow 03:00.",
            "昨夜：実行が途絶えました、ジョブ 3/5、166ファイル、すべて取得済み。 次回: 明日 03:00。",
        ),
        (
            "running",
            State.RUNNING,
            "Running since today 03:00: 2 of 5 jobs done. Next: tomorrow 03:00.",
            "今日 03:00から実行中：ジョブ 2/5 完了。 次回: 明日 03:00。",
        ),
        (
            "full-disk",
            State.FAILED,
            "Last night: 5 of 5 jobs, 217 files, 4 packages not at home. Next: tomorrow 03:00.",
            "昨夜：ジョブ 5/5、217ファイル、4パッケージが未取得。 次回: 明日 03:00。",
        ),
    ],
)
def test_the_first_line_answers_the_question(
    name: str, state: State, english: str, japanese: str
) -> None:
    """Did last night work, and are the files at home? In a sentence, in both languages."""
    one = SCENES[name]()
    found = verdict(one.judged, one.health)
    assert found.state is state
    assert found.fine is (state is not State.FAILED)
    assert verdict_text(ENGLISH, found) == [english]
    assert verdict_text(JAPANESE, found) == [japanese]


def test_without_a_pull_nobody_says_where_the_files_are() -> None:
    """`mayfly status` on a laptop knows the bucket alone, and a service nothing before its first pull."""
    for health in (None, Health("b", NOW, pull=Pull(None, 0))):
        (text,) = said(scenes.good(10).judged, health)
        assert "home" not in text


def test_before_the_first_run() -> None:
    """A bucket without runs, and one of which a schedule is told, are no failures before a run is due."""
    nothing = judge(history(NOW), Rules(NOW))
    assert (said(nothing), verdict(nothing).fine) == (["No run yet."], True)
    told = judge(history(NOW, since=NOW), Rules(NOW, schedule=NIGHTLY))
    assert said(told) == ["No run yet. Next: tomorrow 03:00."]
    late = judge(history(NOW, since=SLOT - timedelta(hours=1)), Rules(NOW, schedule=NIGHTLY))
    assert said(late) == ["No run yet; expected today 03:00. Next: tomorrow 03:00."]
    assert not verdict(late).fine


def test_each_schedule_has_a_line() -> None:
    """Two schedules in one bucket, the one with the newer batch first."""
    one = judged(
        "22 07:00",
        attempt("22 03:00", schedule=NIGHTLY, name="nightly"),
        attempt("22 06:00", schedule=nightly("cron(0 6 * * ? *)"), name="weekly"),
    )
    first, second = said(one)
    assert first.startswith("weekly: Today 06:00: 1 of 1 job, 2 files. Next: tomorrow 06:00.")
    assert second.startswith("nightly: Last night: 1 of 1 job, 2 files.")


def test_a_machine_that_did_not_come_or_was_lost_is_one_trouble() -> None:
    """Not one for each job: when it was due, and the jobs; of a lost one those that it did not do."""
    (one,) = verdict(SCENES["no-run"]().judged).troubles
    assert (one.kind, one.times, len(one.jobs)) == (Kind.MISSED, 2, 5)
    assert trouble_title(ENGLISH, one) == "No machine came, 2 times in a row"
    details = ["due yesterday 03:00", "the last run: Tuesday 03:00"]
    assert trouble_details(ENGLISH, one, NOW, TOKYO) == details
    (one,) = verdict(SCENES["lost"]().judged).troubles
    assert (one.kind, one.jobs) == (Kind.LOST, ("prices", "weather"))
    assert trouble_title(ENGLISH, one) == "The run was lost: prices, weather"


def test_jobs_that_fail_alike_are_one_trouble() -> None:
    """Three hundred jobs that cannot reach a site are one line, with some of their names."""
    jobs = {f"shop-{number:03}": 5.0 for number in range(300)}
    blocked = (JobStatus.FAILED, JobCause.BLOCKED, "403")
    other = (JobStatus.FAILED, JobCause.BROWSER, "it crashed")
    troubles = dict.fromkeys(jobs, blocked) | {"shop-007": other}
    found = verdict(scenes.scene(night(SLOT, troubles, jobs=jobs)).judged).troubles
    assert [len(one.jobs) for one in found] == [299, 1]
    title = trouble_title(ENGLISH, found[0])
    assert title.startswith("shop-000, shop-001")
    assert title.endswith("291 more: the site blocks us")


def test_a_run_that_knew_no_jobs_is_told_of() -> None:
    """A first run that was lost before its plan, or ended without one, fails no job that is known."""
    for how, kind in (({"minutes": None}, Kind.LOST), ({"status": "failed"}, Kind.RUN)):
        runs = started_by(NIGHTLY, "22 03:00", 1, jobs=None, **how)
        assert [one.kind for one in verdict(judged("22 09:00", *runs)).troubles] == [kind]


def test_what_is_lacking_is_told_and_does_not_fail() -> None:
    """A success without all of its files; objects that cannot be read; a schedule that cannot."""
    runs = attempt("22 03:00", {"quotes": "incomplete"}, schedule=nightly("cron(x)"))
    broken = Health("b", NOW, rejected={"batches/x": "it is not JSON"})
    found = verdict(judged("22 09:00", runs), broken)
    assert [one.kind for one in found.troubles] == [Kind.INCOMPLETE, Kind.SCHEDULE, Kind.REJECTED]
    assert found.fine
    assert trouble_title(ENGLISH, found.troubles[0]) == "quotes: 1 file could not be handed over"


def test_home_fails_too() -> None:
    """A bucket that cannot be read, a disk without room (once, for all that waits), a hook."""
    run = "20261125T180104Z-f8dc40"
    full = [Problem("disk", f"{run} job-{number}", "no space") for number in range(40)]
    hook = Problem("hook", f"{run} quotes", "exit code 1")
    health = Health("s3://b", NOW, "403", pull=Pull(NOW, 41, (*full, hook)))
    found = verdict(scenes.good(5).judged, health)
    assert not found.fine
    titles = [trouble_title(ENGLISH, one) for one in found.troubles]
    assert titles[0] == "The bucket cannot be read"
    assert titles[1].startswith("The disk at home: job-0, job-1, ")
    assert titles[1].endswith(", 32 more")
    assert titles[2] == "A hook failed: quotes"
    assert len(titles) == 3
    assert {one.run for one in found.troubles} == {"", run}


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("26 03:00", "today 03:00"),
        ("25 23:59", "yesterday 23:59"),
        ("27 00:00", "tomorrow 00:00"),
        ("21 12:30", "Saturday 12:30"),
        ("19 12:30", "2026-11-19 12:30"),
        ("30 12:30", "Monday 12:30"),
    ],
)
def test_times_as_people_say_them(at: str, text: str) -> None:
    """In the schedule's zone, whatever the computer's is."""
    assert when(ENGLISH, tokyo(at), NOW, TOKYO) == text
