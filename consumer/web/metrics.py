"""What is known, as Prometheus series, without a read of the bucket; what is unknown is absent, not zero.

Every series has the bucket's name, so that two buckets in one Prometheus do not mix. Which rule or panel uses a series,
docs/serve.md says.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import takewhile
from types import MappingProxyType

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from agent.contract.results import JobCause, RunStatus
from consumer.diff import Sum
from consumer.groups import Group, families_of
from consumer.home import PROBLEMS, Home, Known
from consumer.judge import JobFacts, ScheduleFacts
from consumer.model import Batch, Run

TEXTS = {
    "build_info": "Version of the service.",
    "bucket_up": "Whether the last poll of the bucket succeeded.",
    "bucket_last_read_timestamp_seconds": "When the bucket was last read.",
    "history_up": "Whether the history can be used.",
    "polls": "Polls of the bucket.",
    "poll_failures": "Polls that failed.",
    "entries_read": "Entries that were read.",
    "pull_last_success_timestamp_seconds": (
        "When a pull last ended with everything in place; before the first, when it began to try."
    ),
    "pull_problems": "What is wrong with the pull now, by kind.",
    "pulls": "Pulls.",
    "pulled_jobs": "Jobs of runs that came home.",
    "pulled_bytes": "Bytes of their results.",
    "hook_failures": "Hooks that failed.",
    "bucket_invalid_entries": "Entries that no agent can have written.",
    "bucket_missing_entries": "Entries that the index names and that are not there.",
    "month_cost_usd": "What this month cost so far, with estimates of running and lost machines.",
    "month_cost_estimated_usd": (
        "How much of it is estimated: of machines that run, or were lost, up to their deadline."
    ),
    "month_cost_forecast_usd": "What this month will cost at the rate of four weeks.",
    "jobs": "Jobs of the newest releases.",
    "schedule_known": "Whether it is known when runs are due; if not, nothing is ever missed.",
    "schedule_unreadable": "Whether the schedule's expression cannot be understood.",
    "schedule_missed_runs": "Times in a row, up to now, for which no run came.",
    "schedule_missed_since_timestamp_seconds": "The first of them.",
    "schedule_late": "Whether the last run began after the grace.",
    "schedule_next_due_timestamp_seconds": "When a run is due next.",
    "run_last_status": "How the newest run stands: the status that it has is 1, others are absent.",
    "run_jobs": "Jobs that the newest run planned.",
    "run_jobs_done": "How many of them have ended.",
    "run_last_timestamp_seconds": "When the newest run began.",
    "runs_running": "Runs that are under way.",
    "runs_lost": "Runs of the last seven days that were lost.",
    "run_last_success_timestamp_seconds": "When the last run began of which all jobs succeeded.",
    "release_info": "The release that ran last.",
    "group_jobs": "Jobs that were due in the newest group, by kind.",
    "group_jobs_succeeded": "Those of them that succeeded.",
    "group_info": "The newest group.",
    "group_shards": "Shards of the newest group.",
    "group_shards_done": "Those of them that are done.",
    "group_late": "Whether shards of the newest group are missing, and nothing more is to be expected.",
    "group_job_failures": "Jobs of the newest group that failed.",
    "job_last_run_timestamp_seconds": "For when the last run was in which the job was due.",
    "job_last_success_timestamp_seconds": "For when the last run was in which the job succeeded.",
    "job_consecutive_failures": "Runs in a row, up to the last, in which the job was due and did not succeed.",
    "job_failed_day_streak": "Days in a row, up to the last, on which the job failed and never succeeded.",
    "job_failing_since_timestamp_seconds": "The first of these failures.",
    "job_last_files": "Files of the last run.",
    "job_last_bytes": "Bytes of these files.",
    "job_last_items": "Items that the job says it collected.",
    "job_last_refused_files": "Files of the last run that could not be handed over.",
    "job_last_duration_seconds": "How long the job took in the last run.",
    "job_files_recent_median": "Median of the files of recent successes before the last run.",
    "job_last_changes": "What the last success that was pulled changed: records where they have keys, else files.",
    "job_last_status": "How the job ended last: the status that it has is 1, others are absent.",
    "job_last_failure_cause": "Why the job fails: the cause is 1 while it does, others are absent.",
    "run_last_duration_seconds": "How long the last run took that closed.",
    "run_last_cost_usd": "What it cost.",
    "release_stale_since_timestamp_seconds": (
        "The first run, of those in a row, that ran an older release than was wanted."
    ),
}
"""What each series is, without the prefix of all of them."""
MOST_JOBS = 500
"""Jobs that are told of: those that go wrong first."""
MOST_SUMMED = 100_000
"""Jobs of a group that are summed up."""
WEEK = timedelta(days=7)
Labels = Mapping[str, str]
Series = Iterator[GaugeMetricFamily | CounterMetricFamily]
Number = float | datetime | None


class HomeCollector(Collector):
    """All series of the service but those of its process."""

    def __init__(self, home: Home, version: str) -> None:
        self._home = home
        self._version = version

    def collect(self) -> Series:
        """Yield all series; before the history is whole, those of the service alone."""
        home, page = self._home, _Page(self._home.bucket)
        page.one("build_info", 1, {"version": self._version})
        _of_service(page, home)
        if home.read is not None:
            known = home.known
            _of_bucket(page, known)
            for schedule in known.judged.going_on:
                _of_schedule(page, schedule, known.judged.now)
            _of_jobs(page, known.judged.jobs, home.changes)
        return iter(page.families.values())


class _Page:
    """Families of series, each of which has the bucket's label."""

    def __init__(self, bucket: str) -> None:
        self.families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        self._bucket = bucket

    def one(self, name: str, number: Number, labels: Labels = MappingProxyType({})) -> None:
        """Add one series of a gauge, unless it has no value."""
        if number is not None:
            value = number.timestamp() if isinstance(number, datetime) else float(number)
            family = self.families.get(name) or self._new(GaugeMetricFamily, name, labels)
            family.add_metric([self._bucket, *labels.values()], value)

    def counter(self, name: str, number: int) -> None:
        """Add a counter."""
        self._new(CounterMetricFamily, name, {}).add_metric([self._bucket], number)

    def _new(
        self, kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, labels: Labels
    ) -> GaugeMetricFamily | CounterMetricFamily:
        family = kind(f"mayfly_{name}", TEXTS[name], labels=["bucket", *labels])
        self.families[name] = family
        return family


def _of_service(page: _Page, home: Home) -> None:
    page.one("bucket_up", home.up)
    page.one("bucket_last_read_timestamp_seconds", home.read)
    page.one("history_up", home.history_up)
    page.counter("polls", home.counts.polls)
    page.counter("poll_failures", home.counts.poll_failures)
    page.counter("entries_read", home.counts.entries)
    if home.pulls:
        page.one("pull_last_success_timestamp_seconds", home.pulled)
        kinds = [kind for kind, _ in home.problems]
        for kind in PROBLEMS:
            page.one("pull_problems", kinds.count(kind), {"problem": kind})
        page.counter("pulls", home.counts.pulls)
        page.counter("pulled_jobs", home.counts.pulled_jobs)
        page.counter("pulled_bytes", home.counts.pulled_bytes)
        page.counter("hook_failures", home.counts.hook_failures)


def _of_bucket(page: _Page, known: Known) -> None:
    history, costs = known.history, known.costs
    page.one("bucket_invalid_entries", len(history.invalid))
    page.one("bucket_missing_entries", history.missing)
    if any(one.usd is not None for one in costs.runs) or costs.standing_usd:
        page.one("month_cost_usd", costs.so_far_usd)
        page.one("month_cost_estimated_usd", costs.estimated_usd)
        page.one("month_cost_forecast_usd", costs.forecast_usd)
    page.one("jobs", len(known.judged.jobs))


# Schedules and runs.


def _of_schedule(page: _Page, schedule: ScheduleFacts, now: datetime) -> None:
    label = {"schedule": schedule.name}
    last = next((one for one in reversed(schedule.occurrences) if one.groups), None)
    known = schedule.schedule is not None and not schedule.problem
    page.one("schedule_known", known, label)
    page.one("schedule_unreadable", bool(schedule.problem), label)
    page.one("schedule_missed_runs", len(schedule.missed), label)
    missed_since = schedule.missed[0] if schedule.missed else None
    page.one("schedule_missed_since_timestamp_seconds", missed_since, label)
    page.one("schedule_late", last.late if last else None, label)
    page.one("schedule_next_due_timestamp_seconds", schedule.next_due, label)
    runs = [(batch, run) for group in schedule.groups for batch, run in group.runs]
    if runs:
        _of_runs(page, runs, label, now)
    if schedule.groups and schedule.groups[-1].shards > 1:
        _of_group(page, schedule.groups[-1], label, now)


def _of_runs(page: _Page, runs: list[tuple[Batch, Run]], label: Labels, now: datetime) -> None:
    batch, newest = runs[-1]
    done, planned = newest.progress
    statuses = [(batch.status(run), run) for batch, run in runs]
    lost = [run for status, run in statuses if status is RunStatus.LOST]
    running = sum(status is RunStatus.RUNNING for status, _ in statuses)
    page.one("run_last_status", 1, {**label, "status": batch.status(newest).known.value})
    page.one("run_jobs", planned, label)
    page.one("run_jobs_done", done, label)
    page.one("run_last_timestamp_seconds", newest.started, label)
    page.one("runs_running", running, label)
    page.one("runs_lost", sum(now - run.started < WEEK for run in lost), label)
    closed = [(run, run.closed) for _, run in runs if run.closed]
    good = [run.started for run, end in closed if end.status is RunStatus.SUCCEEDED]
    page.one("run_last_success_timestamp_seconds", good[-1] if good else None, label)
    if closed:
        run, end = closed[-1]
        took = (end.finished - run.started).total_seconds()
        page.one("run_last_duration_seconds", took, label)
        page.one("run_last_cost_usd", run.usd, label)
    _of_release(page, [run for _, run in runs], label)


def _of_release(page: _Page, runs: list[Run], label: Labels) -> None:
    known = [(run, run.planned.release) for run in runs if run.planned and run.planned.release]
    if not known:
        return
    _, release = known[-1]
    page.one("release_info", 1, {**label, "ref": release.ref, "commit": release.commit})
    stale = [*takewhile(lambda one: one[1].stale is not None, reversed(known))]
    if release.stale:
        since = release.stale.since or stale[-1][0].started
        page.one("release_stale_since_timestamp_seconds", since, label)


def _of_group(page: _Page, group: Group, label: Labels, now: datetime) -> None:
    """Add the newest group alone, whose name is in one series: each batch has a new one."""
    page.one("group_info", 1, {**label, "group": group.name})
    page.one("group_shards", group.shards, label)
    page.one("group_shards_done", group.done, label)
    page.one("group_late", group.is_late(now), label)
    if sum(len(run.jobs) for _, run in group.runs) > MOST_SUMMED:
        return
    for one in families_of(group, now):
        mine = {**label, "family": one.name}
        page.one("group_jobs", one.jobs, mine)
        page.one("group_jobs_succeeded", one.succeeded, mine)
        for cause, count in sorted(one.failures.items()):
            page.one("group_job_failures", count, {**mine, "cause": cause.value})


# Jobs.


def _of_jobs(
    page: _Page,
    jobs: tuple[JobFacts, ...],
    changes: Mapping[tuple[str, str], tuple[str, Sum]],
) -> None:
    for job in sorted(jobs, key=lambda job: not job.failures)[:MOST_JOBS]:
        label, last, good = (
            {"schedule": job.schedule, "job_name": job.name},
            job.last,
            job.last_success,
        )
        page.one("job_last_run_timestamp_seconds", last.at if last else None, label)
        page.one("job_last_success_timestamp_seconds", good.at if good else None, label)
        page.one("job_consecutive_failures", job.failures, label)
        page.one("job_failed_day_streak", job.failed_days, label)
        page.one("job_failing_since_timestamp_seconds", job.failing_since, label)
        if last and last.job:
            page.one("job_last_files", last.job.files, label)
            page.one("job_last_bytes", last.job.bytes, label)
            page.one("job_last_items", last.job.items, label)
            page.one("job_last_refused_files", last.job.refused, label)
            page.one("job_last_duration_seconds", last.job.seconds, label)
        page.one("job_files_recent_median", job.median_files, label)
        if found := changes.get((job.schedule, job.name)):
            for change, number in asdict(found[1]).items():
                page.one("job_last_changes", number, {**label, "of": found[0], "change": change})
        if last:
            status = (last.job.status if last.job else last.state).value
            page.one("job_last_status", 1, {**label, "status": status})
        if job.failure:
            cause = (job.failure.cause or JobCause.ERROR).known.value
            page.one("job_last_failure_cause", 1, {**label, "cause": cause})
