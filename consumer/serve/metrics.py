"""Facts as Prometheus series. Nothing here reads the bucket; what is unknown is absent, not zero."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from agent.core.results import JobCause, JobStatus, RunStatus
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from consumer.answers import Facts
from consumer.archive.schema import ArchiveError
from consumer.facts.groups import Family, GroupFacts, GroupState, late_of, newest_of
from consumer.facts.jobs import JobFacts
from consumer.serve.state import Pulse

PREFIX = "mayfly_"
Families = Iterator[GaugeMetricFamily]
Thing = TypeVar("Thing")


class HomeCollector(Collector):
    """All series of the service.

    Args:
        facts: Returns what is known.
        pulse: Returns how the service is.
        version: Of this program.
    """

    def __init__(
        self, facts: Callable[[], Facts], pulse: Callable[[], Pulse], version: str
    ) -> None:
        self._facts = facts
        self._pulse = pulse
        self._version = version

    def describe(self) -> Families:
        """Return nothing: names are unique in a registry of one."""
        return iter(())

    def collect(self) -> Families:
        """Yield all series; when the history cannot be read, those that do not need it."""
        pulse = self._pulse()
        yield _one("build_info", "Version of the service.", 1, {"version": self._version})
        yield from _of_service(pulse)
        try:
            facts = self._facts()
        except ArchiveError:
            yield _one("history_up", "Whether the history could be read.", 0)
            return
        yield _one("history_up", "Whether the history could be read.", 1)
        if pulse.last_read is None:
            # A history that is being filled tells of years ago as if it were now.
            return
        yield _one(
            "bucket_refused_entries",
            "Index entries and markers in the bucket that say nothing credible.",
            facts.past.refused,
        )
        yield from _of_runs(facts)
        yield from _of_release(facts)
        yield from _of_costs(facts)
        yield from _of_jobs(facts.jobs)
        yield from _of_groups(facts)
        if pulse.shipping:
            yield _one(
                "loki_pending_runs",
                "Runs whose log waits to be pushed to Loki.",
                facts.past.unshipped,
            )


def _of_service(pulse: Pulse) -> Families:
    yield _one("bucket_up", "Whether the last look into the bucket succeeded.", pulse.up)
    yield from _known(
        "bucket_last_read_timestamp_seconds", "When the bucket was last read.", pulse.last_read
    )
    yield _one(
        "bucket_future_entries",
        "Index entries that claim a time to come, and wait for it.",
        pulse.ahead,
    )
    yield from _known(
        "pull_last_success_timestamp_seconds",
        "When a pull last ended with everything in place.",
        pulse.pulled,
    )
    yield from _known(
        "pull_refused_runs",
        "Runs that the pull refused and does not fetch again.",
        pulse.pull_refused,
    )
    yield from _known(
        "loki_last_success_timestamp_seconds", "When Loki last accepted a log.", pulse.shipped
    )


def _of_runs(facts: Facts) -> Families:
    runs = facts.runs
    yield _one(
        "runs_vanished",
        "Runs of the last seven days that began and were never committed.",
        len(runs.vanished),
    )
    yield from _known(
        "run_last_vanished_timestamp_seconds",
        "When the last run began that vanished.",
        runs.last_vanished,
    )
    if runs.last is None:
        return
    last, success = runs.last, runs.last_success
    yield _one("run_last_timestamp_seconds", "When the last committed run began.", last.started)
    yield from _known(
        "run_last_success_timestamp_seconds",
        "When the last run began that succeeded wholly.",
        success.started if success else None,
    )
    yield _one("run_last_duration_seconds", "How long the last run took.", last.seconds)
    states = _family(
        "run_last_status", "Status of the last run: 1 for the one that it has.", "status"
    )
    for status in RunStatus:
        states.add_metric([status.value], float(status is last.status))
    yield states


def _of_release(facts: Facts) -> Families:
    release = facts.runs.release
    if release is None:
        return
    labels = {"ref": release.ref, "commit": release.commit}
    yield _one("release_info", "The release that ran last.", 1, labels)
    since = release.stale_since
    yield _one(
        "release_stale", "Whether an older release ran than was wanted.", float(since is not None)
    )
    age = 0.0 if since is None else max(0.0, facts.now - since)
    yield _one(
        "release_stale_seconds",
        "Since the first run, of those in a row, with a stale release; 0 when it is not.",
        age,
    )


def _of_costs(facts: Facts) -> Families:
    costs = facts.runs.costs
    yield from _known("run_last_cost_usd", "What the last run cost.", costs.last)
    yield from _known("month_cost_usd", "What the runs of this month cost so far.", costs.month)
    yield from _known(
        "month_cost_forecast_usd",
        "What the runs of this month will cost, at the rate of four weeks.",
        costs.forecast,
    )


JOB_NUMBERS: tuple[tuple[str, str, Callable[[JobFacts], float | None]], ...] = (
    (
        "last_run_timestamp_seconds",
        "When the last run began in which the job was due.",
        lambda job: job.last.started if job.last else None,
    ),
    (
        "last_success_timestamp_seconds",
        "When the last run began in which the job succeeded.",
        lambda job: job.last_success.started if job.last_success else None,
    ),
    (
        "consecutive_failures",
        "Runs in a row, up to the last, in which the job was due and did not succeed.",
        lambda job: job.consecutive_failures,
    ),
    (
        "failed_day_streak",
        "Days in a row, up to the last, on which the job ran and never succeeded.",
        lambda job: job.failed_days,
    ),
    (
        "missed_day_streak",
        "Days since the last run on which the job should have run and did not.",
        lambda job: job.missed_days,
    ),
    ("last_files", "Files of the last run.", lambda job: job.last.files if job.last else None),
    (
        "last_bytes",
        "Bytes of the files of the last run.",
        lambda job: job.last.bytes if job.last else None,
    ),
    (
        "last_items",
        "Items that the job says it collected in the last run.",
        lambda job: job.last.items if job.last else None,
    ),
    (
        "last_refused_files",
        "Files of the last run that could not be handed over.",
        lambda job: job.last.refused_files if job.last else None,
    ),
    (
        "last_duration_seconds",
        "How long the job took in the last run.",
        lambda job: job.last.seconds if job.last else None,
    ),
    (
        "files_recent_median",
        "Median of the files of recent successes before the last run.",
        lambda job: job.median_files,
    ),
)


def _of_jobs(jobs: tuple[JobFacts, ...]) -> Families:
    for name, text, value in JOB_NUMBERS:
        family = _family(f"job_{name}", text, "job_name")
        for job in jobs:
            if (number := value(job)) is not None:
                family.add_metric([job.name], number)
        yield family
    states = _family(
        "job_last_status",
        "Status of the job's last run: 1 for the one that it has.",
        "job_name",
        "status",
    )
    causes = _family(
        "job_last_failure_cause",
        "Cause of the job's failure: 1 for it while it lasts.",
        "job_name",
        "cause",
    )
    for job in jobs:
        if job.last is not None:
            failure = job.failure
            cause = None if failure is None else failure.cause or JobCause.ERROR
            for status in JobStatus:
                states.add_metric([job.name, status.value], float(status is job.last.status))
            for one in JobCause:
                causes.add_metric([job.name, one.value], float(one is cause))
    yield states
    yield causes


GROUP_NUMBERS: tuple[tuple[str, str, Callable[[GroupFacts], float]], ...] = (
    (
        "group_began_timestamp_seconds",
        "When the first run of the newest group began.",
        lambda group: group.began,
    ),
    ("group_shards_expected", "Shards of the newest group.", lambda group: group.shards),
    (
        "group_shards_committed",
        "Shards of the newest group with a committed run that was not interrupted.",
        lambda group: group.committed,
    ),
    (
        "group_complete",
        "Whether all shards of the newest group are committed.",
        lambda group: float(group.state is GroupState.COMPLETE),
    ),
    (
        "group_late",
        "Whether the newest group is not complete, and nothing more is to be expected.",
        lambda group: float(group.state is GroupState.LATE),
    ),
)

FAMILY_NUMBERS: tuple[tuple[str, str, Callable[[Family], float]], ...] = (
    ("group_jobs", "Jobs that were due in the newest group, by kind.", lambda kind: kind.jobs),
    ("group_jobs_succeeded", "Those of them that succeeded.", lambda kind: kind.succeeded),
    ("group_files", "Files of the jobs of the newest group, by kind.", lambda kind: kind.files),
    ("group_bytes", "Bytes of these files.", lambda kind: kind.bytes),
    ("group_job_seconds", "How long these jobs took in sum.", lambda kind: kind.seconds),
)


def _of_groups(facts: Facts) -> Families:
    """Yield series of the newest group alone, whose name is in one of them: each batch has a new one."""
    group = newest_of(facts.groups)
    if group is None:
        return
    yield _one("group_info", "The newest group.", 1, {"group": group.name})
    for name, text, number in GROUP_NUMBERS:
        yield _one(name, text, number(group))
    late = len(late_of(facts.groups, facts.now))
    yield _one("groups_late", "Late groups that began in the last seven days.", late)
    for name, text, value in FAMILY_NUMBERS:
        family = _family(name, text, "family")
        for kind in facts.families:
            family.add_metric([kind.name], value(kind))
        yield family
    failures = _family(
        "group_job_failures", "Jobs of the newest group that failed.", "family", "cause"
    )
    for kind in facts.families:
        for cause in JobCause:
            failures.add_metric([kind.name, cause.value], kind.failures.get(cause, 0))
    yield failures


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def _one(
    name: str, text: str, value: float, labels: dict[str, str] | None = None
) -> GaugeMetricFamily:
    family = _family(name, text, *(labels or {}))
    family.add_metric(list((labels or {}).values()), value)
    return family


def _known(name: str, text: str, value: float | None) -> Families:
    if value is not None:
        yield _one(name, text, value)
