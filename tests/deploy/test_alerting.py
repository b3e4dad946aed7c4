"""From a bucket to a note on somebody's phone, through the real servers and the rules as shipped."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.contract.facts import Schedule
from tests.bucket.bucket import Bucket
from tests.bucket.entries import leave_run
from tests.consumer.serving import Serving, serving
from tests.deploy.watchers import alertmanager, asked, firing, note, prometheus, value
from tests.parts.program import answers
from tests.parts.recorder import Recorder
from tests.parts.waiting import wait_until

SECONDS = 120
JOBS = ("quotes", "notes", "prices", "news", "books")
FAILURES = 'mayfly_job_consecutive_failures{job_name="quotes"}'


@pytest.mark.timeout(900)
@pytest.mark.long
def test_three_failed_days_are_told_and_a_success_ends_it(
    folder: Bucket, recorder: Recorder, tmp_path: Path
) -> None:
    """Two days are no news, the third is, a restart of the exporter repeats nothing, and one success resolves it."""
    for days in (3, 2):
        leave_run(folder.objects, ago(days=days), {"quotes": "failed"})
    with (
        serving(tmp_path / "home", folder.environ) as home,
        alertmanager(tmp_path / "alertmanager", recorder.url) as manager,
        prometheus(tmp_path / "prometheus", home.url, manager) as watcher,
    ):
        wait_until(lambda: value(watcher, FAILURES) == 2, seconds=SECONDS, what="two failed days")
        assert firing(watcher) == set()

        leave_run(folder.objects, ago(days=1), {"quotes": "failed"})
        wait_until(lambda: bool(notes(recorder)), seconds=SECONDS, what="the alert")
        assert notes(recorder) == [("firing", "quotes failed 3 times in a row: page_changed")]

        restart(home, watcher)
        assert firing(watcher) == {"MayflyJobFailing"}
        assert len(notes(recorder)) == 1

        leave_run(folder.objects, ago(minutes=5), ["quotes"])
        wait_until(lambda: len(notes(recorder)) > 1, seconds=SECONDS, what="the resolution")
        assert [title for title, _ in notes(recorder)] == ["firing", "resolved"]
        assert firing(watcher) == set()


def test_a_machine_that_did_not_come_is_one_note(
    folder: Bucket, recorder: Recorder, tmp_path: Path
) -> None:
    """And not one more for each of five jobs, which have had no success for nine days since."""
    said = Schedule(expression="cron(0 3 * * ? *)", timezone="Asia/Tokyo", grace_seconds=3600)
    leave_run(folder.objects, ago(days=9), JOBS, scheduled=said)
    with (
        serving(tmp_path / "home", folder.environ) as home,
        alertmanager(tmp_path / "alertmanager", recorder.url) as manager,
        prometheus(tmp_path / "prometheus", home.url, manager) as watcher,
    ):
        both = {"MayflyRunMissed", "MayflyJobWithoutSuccess"}
        wait_until(lambda: firing(watcher) == both, seconds=SECONDS, what="all alerts")
        held = {"MayflyRunMissed": {"active"}, "MayflyJobWithoutSuccess": {"suppressed"}}
        wait_until(lambda: states(manager) == held, seconds=SECONDS, what="the inhibition")
        wait_until(lambda: bool(notes(recorder)), seconds=SECONDS, what="the note")
    # Alertmanager has ended: whatever it had to say has come.
    assert len(notes(recorder)) == 1
    assert notes(recorder)[0][0] == "firing"
    assert notes(recorder)[0][1].startswith("main: no run came")


def ago(**how: float) -> datetime:
    """Return a moment before this one: tests begin long after their modules are read."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**how)


def states(manager: str) -> dict[str, set[str]]:
    """Return how Alertmanager treats its alerts, by name."""
    found: dict[str, set[str]] = {}
    for one in asked(f"{manager}/api/v2/alerts"):
        found.setdefault(one["labels"]["alertname"], set()).add(one["status"]["state"])
    return found


def restart(home: Serving, watcher: str) -> None:
    """Let the exporter be away for long enough that Prometheus notices, and come back."""
    home.program.stop()
    wait_until(lambda: value(watcher, FAILURES) is None, seconds=SECONDS, what="its series to end")
    assert firing(watcher) == {"MayflyJobFailing"}
    home.program.start(lambda: answers(f"{home.url}/metrics"), seconds=SECONDS)
    wait_until(lambda: value(watcher, FAILURES) == 3, seconds=SECONDS, what="its series to be back")


def notes(recorder: Recorder) -> list[tuple[str, str]]:
    """Return the notes that have arrived."""
    return [note(one.path, one.body) for one in list(recorder.requests)]
