"""From a bucket to a note on somebody's phone, through the real servers and the rules as shipped."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bucket.bucket import Bucket
from tests.bucket.entries import leave_run
from tests.consumer.serving import Serving, serving
from tests.deploy.watchers import alertmanager, answers, note, prometheus, value
from tests.parts.recorder import Recorder
from tests.parts.waiting import wait_until

SECONDS = 60
FAILING = 'mayfly:job_failed_days:held{job_name="quotes"}'


def test_three_failed_days_are_told_and_a_success_ends_it(
    folder: Bucket, recorder: Recorder, tmp_path: Path
) -> None:
    """Two days are no news, the third is, a restart of the exporter repeats nothing, and one success resolves it."""
    fail_on(folder, days_ago=3)
    fail_on(folder, days_ago=2)
    with (
        serving(tmp_path / "home", folder.environ) as home,
        alertmanager(tmp_path / "alertmanager", recorder.url) as manager,
        prometheus(tmp_path / "prometheus", home.url, manager) as watcher,
    ):
        wait_until(lambda: value(watcher, FAILING) == 2, seconds=SECONDS, what="two failed days")
        assert firing(watcher) is None

        fail_on(folder, days_ago=1)
        wait_until(lambda: bool(notes(recorder)), seconds=SECONDS, what="the alert")
        assert notes(recorder) == [("firing", "quotes failed on 3 days in a row: page_changed")]

        restart(home, watcher)
        assert firing(watcher) == 1
        assert len(notes(recorder)) == 1

        leave_run(folder.objects, datetime.now(UTC) - timedelta(minutes=5))
        wait_until(lambda: len(notes(recorder)) > 1, seconds=SECONDS, what="the resolution")
        assert [title for title, _ in notes(recorder)] == ["firing", "resolved"]
        assert firing(watcher) is None


def restart(home: Serving, watcher: str) -> None:
    """Let the exporter be away for long enough that Prometheus notices, and come back."""
    home.program.stop()
    up = 'up{job="mayfly"}'
    wait_until(lambda: value(watcher, up) == 0, seconds=SECONDS, what="the exporter to be missed")
    wait_until(
        lambda: value(watcher, "mayfly_job_failed_day_streak") is None,
        seconds=SECONDS,
        what="its series to end",
    )
    assert firing(watcher) == 1
    home.program.start(lambda: answers(f"{home.url}/metrics"), seconds=SECONDS)
    wait_until(
        lambda: value(watcher, "mayfly_job_failed_day_streak") == 3,
        seconds=SECONDS,
        what="its series to come back",
    )


def firing(watcher: str) -> float | None:
    """Return 1 while Prometheus holds that the job is failing."""
    return value(
        watcher,
        'ALERTS{alertname="MayflyJobFailing", alertstate="firing", severity="warning"}',
    )


def notes(recorder: Recorder) -> list[tuple[str, str]]:
    """Return the notes about failed days that have arrived."""
    made = [note(one.path, one.body) for one in list(recorder.requests)]
    return [(title, text) for title, text in made if "failed on" in text]


def fail_on(folder: Bucket, *, days_ago: int) -> None:
    """Leave a run of an earlier day, at six in the morning, in which the job failed."""
    morning = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0)
    leave_run(folder.objects, morning - timedelta(days=days_ago), {"quotes": "failed"})
