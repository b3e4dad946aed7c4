"""What is known, as Prometheus series. Nothing here reads the bucket; what is unknown is absent, not zero.

Every series has the bucket's name, so that two buckets in one Prometheus do not mix. Which rule or panel uses a series,
docs/serve.md says.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import takewhile

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from agent.contract.facts import Release
from agent.contract.results import JobCause, RunStatus
from consumer.diff import Sum
from consumer.groups import Family, Group, families_of
from consumer.home import PROBLEMS, Home, Known
from consumer.judge import JobFacts, ScheduleFacts
from consumer.model import Batch, Run

MOST_JOBS = 500
"""Jobs that are told of: those that go wrong first."""
MOST_SUMMED = 100_000
"""Jobs of a group that are summed up."""
WEEK = timedelta(days=7)
Labels = Mapping[str, str]
Series = Iterator[GaugeMetricFamily | CounterMetricFamily]
Number = float | datetime | None


class HomeCollector(Collector):
    """All series of the service but those of its process.

    Args:
        home: What is known.
        version: Of this program.
    """

    def __init__(self, home: Home, version: str) -> None:
        self._home = home
        self._version = version

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing: names are unique in a registry of one."""
        return iter(())

    def collect(self) -> Series:
        """Yield all series; before the history is whole, those of the service alone."""
        home, page = self._home, _Page(self._home.bucket)
        page.gauge("build_info", "Version of the service.", [({"version": self._version}, 1)])
        _of_service(page, home)
        if home.read is not None:
            known = home.known
            _of_bucket(page, known)
            for schedule in known.judged.schedules:
                _of_schedule(page, schedule, known.judged.now)
            _of_jobs(page, known.judged.jobs, home.changes)
        return iter(page.families.values())


class _Page:
    """Families of series, each of which has the bucket's label."""

    def __init__(self, bucket: str) -> None:
        self.families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        self._bucket = bucket

    def gauge(self, name: str, text: str, rows: Iterable[tuple[Labels, Number]]) -> None:
        """Add series of a gauge; those without a value are left out."""
        for labels, number in rows:
            if number is not None:
                value = number.timestamp() if isinstance(number, datetime) else float(number)
                family = self.families.get(name) or self._new(GaugeMetricFamily, name, text, labels)
                family.add_metric([self._bucket, *labels.values()], value)

    def one(self, name: str, text: str, number: Number, labels: Labels | None = None) -> None:
        """Add one series of a gauge."""
        self.gauge(name, text, [(labels or {}, number)])

    def counter(self, name: str, text: str, number: int) -> None:
        """Add a counter."""
        self._new(CounterMetricFamily, name, text, {}).add_metric([self._bucket], number)

    def _new(
        self,
        kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        text: str,
        labels: Labels,
    ) -> GaugeMetricFamily | CounterMetricFamily:
        family = kind(f"mayfly_{name}", text, labels=["bucket", *labels])
        self.families[name] = family
        return family


def _of_service(page: _Page, home: Home) -> None:
    page.one("bucket_up", "Whether the last poll of the bucket succeeded.", home.up)
    page.one("bucket_last_read_timestamp_seconds", "When the bucket was last read.", home.read)
    page.one("history_up", "Whether the history can be used.", home.history_up)
    counts = home.counts
    page.counter("polls", "Polls of the bucket.", counts.polls)
    page.counter("poll_failures", "Polls that failed.", counts.poll_failures)
    page.counter("entries_read", "Entries that were read.", counts.entries)
    if home.pulls:
        page.one(
            "pull_last_success_timestamp_seconds",
            "When a pull last ended with everything in place; before the first, when it began to try.",
            home.pulled,
        )
        kinds = [kind for kind, _ in home.problems]
        page.gauge(
            "pull_problems",
            "What is wrong with the pull now, by kind.",
            [({"problem": kind}, kinds.count(kind)) for kind in PROBLEMS],
        )
        page.counter("pulls", "Pulls.", counts.pulls)
        page.counter("pulled_jobs", "Jobs of runs that came home.", counts.pulled_jobs)
        page.counter("pulled_bytes", "Bytes of their results.", counts.pulled_bytes)
        page.counter("hook_failures", "Hooks that failed.", counts.hook_failures)


def _of_bucket(page: _Page, known: Known) -> None:
    history, costs = known.history, known.costs
    page.one(
        "bucket_invalid_entries", "Entries that no agent can have written.", len(history.invalid)
    )
    page.one(
        "bucket_missing_entries",
        "Entries that the index names and that are not there.",
        history.missing,
    )
    if any(one.usd is not None for one in costs.runs) or costs.standing_usd:
        page.one(
            "month_cost_usd",
            "What this month cost so far, with estimates of running and lost machines.",
            costs.so_far_usd,
        )
        page.one(
            "month_cost_estimated_usd",
            "How much of it is estimated: of machines that run, or were lost, up to their deadline.",
            costs.estimated_usd,
        )
        page.one(
            "month_cost_forecast_usd",
            "What this month will cost at the rate of four weeks.",
            costs.forecast_usd,
        )
    page.one("jobs", "Jobs of the newest releases.", len(known.judged.jobs))


# Schedules and runs.


def _of_schedule(page: _Page, schedule: ScheduleFacts, now: datetime) -> None:
    label = {"schedule": schedule.name}
    last = next((one for one in reversed(schedule.occurrences) if one.groups), None)
    page.one(
        "schedule_known",
        "Whether it is known when runs are due; if not, nothing is ever missed.",
        schedule.schedule is not None and not schedule.problem,
        label,
    )
    page.one(
        "schedule_unreadable",
        "Whether the schedule's expression cannot be understood.",
        bool(schedule.problem),
        label,
    )
    page.one(
        "schedule_missed_runs",
        "Times in a row, up to now, for which no run came.",
        len(schedule.missed),
        label,
    )
    missed_since = schedule.missed[0] if schedule.missed else None
    page.one("schedule_missed_since_timestamp_seconds", "The first of them.", missed_since, label)
    page.one(
        "schedule_late",
        "Whether the last run began after the grace.",
        last.late if last else None,
        label,
    )
    page.one(
        "schedule_next_due_timestamp_seconds",
        "When a run is due next.",
        schedule.next_due,
        label,
    )
    runs = [(batch, run) for group in schedule.groups for batch, run in group.runs]
    if runs:
        _of_runs(page, runs, label, now)
    if schedule.groups and schedule.groups[-1].shards > 1:
        _of_group(page, schedule.groups, label, now)


def _of_runs(page: _Page, runs: list[tuple[Batch, Run]], label: Labels, now: datetime) -> None:
    batch, newest = runs[-1]
    closed = [run for _, run in runs if run.closed]
    done, planned = newest.progress
    lost = [run for batch, run in runs if batch.status(run) is RunStatus.LOST]
    page.one(
        "run_last_status",
        "How the newest run stands: the status that it has is 1, others are absent.",
        1,
        {**label, "status": batch.status(newest).known.value},
    )
    page.one("run_jobs", "Jobs that the newest run planned.", planned, label)
    page.one("run_jobs_done", "How many of them have ended.", done, label)
    page.one("run_last_timestamp_seconds", "When the newest run began.", newest.started, label)
    page.one(
        "runs_running",
        "Runs that are under way.",
        sum(batch.status(run) is RunStatus.RUNNING for batch, run in runs),
        label,
    )
    page.one(
        "runs_lost",
        "Runs of the last seven days that were lost.",
        sum(now - run.started < WEEK for run in lost),
        label,
    )
    good = [run for run in closed if run.closed and run.closed.status is RunStatus.SUCCEEDED]
    page.one(
        "run_last_success_timestamp_seconds",
        "When the last run began of which all jobs succeeded.",
        good[-1].started if good else None,
        label,
    )
    if closed and closed[-1].closed:
        took = closed[-1].closed.finished - closed[-1].started
        page.one(
            "run_last_duration_seconds",
            "How long the last run took that closed.",
            took.total_seconds(),
            label,
        )
        page.one("run_last_cost_usd", "What it cost.", closed[-1].usd, label)
    _of_release(page, [run for _, run in runs], label)


def _of_release(page: _Page, runs: list[Run], label: Labels) -> None:
    known = [(run, release) for run in runs if (release := _release(run))]
    if not known:
        return
    _, release = known[-1]
    which = {"ref": release.ref, "commit": release.commit}
    page.one("release_info", "The release that ran last.", 1, {**label, **which})
    stale = [*takewhile(lambda one: one[1].stale is not None, reversed(known))]
    if stale:
        told = release.stale.since if release.stale else None
        since = told or stale[-1][0].started
        page.one(
            "release_stale_since_timestamp_seconds",
            "The first run, of those in a row, that ran an older release than was wanted.",
            since,
            label,
        )


def _release(run: Run) -> Release | None:
    return run.planned.release if run.planned else None


# Shards.

FAMILY: tuple[tuple[str, str, Callable[[Family], float]], ...] = (
    ("group_jobs", "Jobs that were due in the newest group, by kind.", lambda one: one.jobs),
    ("group_jobs_succeeded", "Those of them that succeeded.", lambda one: one.succeeded),
)


def _of_group(page: _Page, groups: tuple[Group, ...], label: Labels, now: datetime) -> None:
    """Add the newest group alone, whose name is in one series: each batch has a new one."""
    group = groups[-1]
    page.one("group_info", "The newest group.", 1, {**label, "group": group.name})
    page.one("group_shards", "Shards of the newest group.", group.shards, label)
    page.one("group_shards_done", "Those of them that are done.", group.done, label)
    page.one(
        "group_late",
        "Whether shards of the newest group are missing, and nothing more is to be expected.",
        group.is_late(now),
        label,
    )
    if sum(len(run.jobs) for _, run in group.runs) > MOST_SUMMED:
        return
    families = families_of(group, now)
    for name, text, number in FAMILY:
        rows = [({**label, "family": one.name}, number(one)) for one in families]
        page.gauge(name, text, rows)
    failures = [
        ({**label, "family": one.name, "cause": cause.value}, count)
        for one in families
        for cause, count in sorted(one.failures.items())
    ]
    page.gauge("group_job_failures", "Jobs of the newest group that failed.", failures)


# Jobs.

JOB: tuple[tuple[str, str, Callable[[JobFacts], Number]], ...] = (
    (
        "last_run_timestamp_seconds",
        "For when the last run was in which the job was due.",
        lambda job: job.last.at if job.last else None,
    ),
    (
        "last_success_timestamp_seconds",
        "For when the last run was in which the job succeeded.",
        lambda job: job.last_success.at if job.last_success else None,
    ),
    (
        "consecutive_failures",
        "Runs in a row, up to the last, in which the job was due and did not succeed.",
        lambda job: job.failures,
    ),
    (
        "failed_day_streak",
        "Days in a row, up to the last, on which the job failed and never succeeded.",
        lambda job: job.failed_days,
    ),
    (
        "failing_since_timestamp_seconds",
        "The first of these failures.",
        lambda job: job.failing_since,
    ),
    ("last_files", "Files of the last run.", lambda job: _of_last(job, "files")),
    ("last_bytes", "Bytes of these files.", lambda job: _of_last(job, "bytes")),
    ("last_items", "Items that the job says it collected.", lambda job: _of_last(job, "items")),
    (
        "last_refused_files",
        "Files of the last run that could not be handed over.",
        lambda job: _of_last(job, "refused"),
    ),
    (
        "last_duration_seconds",
        "How long the job took in the last run.",
        lambda job: _of_last(job, "seconds"),
    ),
    (
        "files_recent_median",
        "Median of the files of recent successes before the last run.",
        lambda job: job.median_files,
    ),
)


def _of_last(job: JobFacts, name: str) -> float | None:
    result = job.last.job if job.last else None
    number: float | None = getattr(result, name) if result else None
    return number


def _of_jobs(
    page: _Page,
    jobs: tuple[JobFacts, ...],
    changes: Mapping[tuple[str, str], tuple[str, Sum]],
) -> None:
    told = sorted(jobs, key=lambda job: not job.failures)[:MOST_JOBS]
    labels = [{"schedule": job.schedule, "job_name": job.name} for job in told]
    for name, text, value in JOB:
        rows = [(label, value(job)) for label, job in zip(labels, told, strict=True)]
        page.gauge(f"job_{name}", text, rows)
    sums = [(job, *changes[key]) for job in told if (key := (job.schedule, job.name)) in changes]
    page.gauge(
        "job_last_changes",
        "What the last success that was pulled changed: records where they have keys, else files.",
        [
            ({"schedule": job.schedule, "job_name": job.name, "of": of, "change": kind}, number)
            for job, of, found in sums
            for kind, number in asdict(found).items()
        ],
    )
    page.gauge(
        "job_last_status",
        "How the job ended last: the status that it has is 1, others are absent.",
        [
            (
                {
                    **label,
                    "status": (job.last.job.status if job.last.job else job.last.state).value,
                },
                1,
            )
            for label, job in zip(labels, told, strict=True)
            if job.last
        ],
    )
    page.gauge(
        "job_last_failure_cause",
        "Why the job fails: the cause is 1 while it does, others are absent.",
        [
            ({**label, "cause": (job.failure.cause or JobCause.ERROR).known.value}, 1)
            for label, job in zip(labels, told, strict=True)
            if job.failure
        ],
    )
