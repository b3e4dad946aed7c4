"""The first page, the page of a job, and the list of runs. Decisions only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.contract.descriptor import Role
from agent.contract.entries import Invalid
from agent.contract.package import Package
from agent.contract.results import RunStatus
from consumer.diff import Changes
from consumer.groups import Group, State
from consumer.judge import JobFacts, Judged
from consumer.model import Batch, Run
from consumer.page.chart import CLOCK, Chart, Point, chart
from consumer.page.file import PICTURES
from consumer.page.given import Health, Visit
from consumer.page.grid import grid
from consumer.page.render import Page, job_path, object_path, said
from consumer.page.sentences import (
    trouble_details,
    trouble_remedy,
    trouble_title,
    verdict_text,
    when,
)
from consumer.page.verdict import Kind, Trouble, verdict
from consumer.spending import MonthCosts, RunCost

REFRESH_SECONDS = 60
DIGITS = 6
"""Of a number in a query, and one more."""
MOST_TROUBLES = 20
MOST_SHOTS = 5
RECENT = 7
LISTED = 50
FAILURES = 20
CHARTED = 90
LEGEND = (State.SUCCEEDED, State.PARTIAL, State.FAILED, State.LOST, State.MISSED, State.RUNNING)
MARKS = {State.FAILED: "✗", State.RUNNING: "▸", State.SUCCEEDED: "✓", State.PARTIAL: "✓"}
"""What the page's title begins with, so that a tab says it."""


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in a table; `schedule` and `shard` are empty where there is nothing to tell apart."""

    run: str
    started: datetime
    status: RunStatus
    jobs: str
    files: int
    bytes: int
    seconds: float
    cost: RunCost | float | None
    release: str
    schedule: str
    shard: str


@dataclass(frozen=True, slots=True)
class TroubleView:
    """A trouble in words, with its screenshots (path and name); `job` is the one that it is about."""

    trouble: Trouble
    job: str
    title: str
    details: list[str]
    remedy: str
    shots: list[tuple[str, str]]


def overview(
    visit: Visit,
    judged: Judged,
    costs: MonthCosts,
    health: Health,
    packages: Mapping[tuple[str, str], Package] = {},
) -> str:
    """Return the first page, with the costs of this month.

    `?by=day` and `?by=run` choose the columns of the grid, `?page=2` shows more jobs, `?back=60` older columns. The
    packages are those of `evidence_wanted`, by run and job, as far as they can be had at once: they have screenshots.
    """
    page = Page(visit, judged.zone)
    found = verdict(judged, health)
    told = [one for one in found.troubles if one.kind is not Kind.REJECTED]
    rejected = [one for one in found.troubles if one.kind is Kind.REJECTED]
    runs = attempts(judged)[: -RECENT - 1 : -1]
    return page.render(
        "overview.html",
        refresh=REFRESH_SECONDS,
        mark=MARKS.get(found.state, ""),
        health=health,
        verdict=found,
        lines=verdict_text(visit.language, found),
        troubles=[_view(page, judged, one, packages) for one in told[:MOST_TROUBLES]],
        more=max(0, len(told) - MOST_TROUBLES),
        grid=grid(judged, visit.query.get("by", ""), number_of(visit), number_of(visit, "back", 0)),
        legend=LEGEND,
        groups=[*_groups(judged, costs)],
        runs=run_lines(judged, runs, costs),
        home=[*_home(page, judged, costs, health)],
        rejected=rejected,
    )


def evidence_wanted(judged: Judged) -> list[tuple[str, str]]:
    """Return runs and jobs whose packages the first page would like to have, at most a few."""
    failing = [one for one in verdict(judged).troubles if one.kind is Kind.JOB]
    return [(one.run, _shown(judged, one)) for one in failing[:MOST_SHOTS]]


def runs_compared(judged: Judged, schedule: str, job: str) -> tuple[str, str] | None:
    """Return the last two runs in which a job succeeded, the earlier first; None where there are not two."""
    facts = _find(judged, schedule, job)
    good = [one.run for one in facts.outcomes if one.state is State.SUCCEEDED] if facts else []
    return (good[-2], good[-1]) if len(good) > 1 else None


def _find(judged: Judged, schedule: str, job: str) -> JobFacts | None:
    return next((one for one in judged.jobs if (one.schedule, one.name) == (schedule, job)), None)


def job_page(
    visit: Visit,
    judged: Judged,
    schedule: str,
    job: str,
    changes: Changes | Invalid | None = None,
) -> str | None:
    """Return the page of a job; None when it is not known.

    `?all=1` shows not its failures only, `?page=2` older runs. `changes` are those of its last success, or why they are
    unknown; None for the first success.
    """
    facts = _find(judged, schedule, job)
    if facts is None:
        return None
    page = Page(visit, judged.zone)
    only = visit.query.get("all") != "1"
    number = number_of(visit)
    outcomes = [one for one in facts.outcomes if one.state is State.FAILED or not only][::-1]
    alone = Judged(judged.now, judged.zone, (), (facts,))
    return page.render(
        "job.html",
        refresh=REFRESH_SECONDS if facts.running else 0,
        path=job_path(schedule, job),
        job=facts,
        facts=said(_job_facts(page, facts, judged)),
        grid=grid(alone, "day"),
        legend=LEGEND,
        changes=changes if isinstance(changes, Changes) else None,
        unknown=changes.reason if isinstance(changes, Invalid) else "",
        compared={one.run: one.at for one in facts.outcomes},
        charts=_charts(page, facts),
        only=only,
        outcomes=outcomes[(number - 1) * FAILURES : number * FAILURES],
        number=number,
        more=len(outcomes) > number * FAILURES,
    )


def runs_page(visit: Visit, judged: Judged, costs: MonthCosts) -> str:
    """Return the list of runs; `?before=<run>`: those before it."""
    before = visit.query.get("before", "~")
    older = [pair for pair in attempts(judged) if pair[1].id < before]
    runs = older[: -LISTED - 1 : -1]
    return Page(visit, judged.zone).render(
        "runs.html",
        runs=run_lines(judged, runs, costs),
        more=runs[-1][1].id if len(older) > LISTED else "",
    )


def missing_page(visit: Visit) -> str:
    """Return the page that says that there is no such page."""
    return Page(visit, UTC).render("missing.html")


def number_of(visit: Visit, name: str = "page", least: int = 1) -> int:
    """Return a number of the query; the least where it is none."""
    text = visit.query.get(name, "")
    return (
        max(least, int(text)) if text.isascii() and text.isdigit() and len(text) < DIGITS else least
    )


def attempts(judged: Judged) -> list[tuple[Batch, Run]]:
    """Return all runs that did something, the first to begin first."""
    pairs = [pair for one in judged.schedules for group in one.groups for pair in group.runs]
    return sorted(pairs, key=lambda pair: pair[1].id)


def run_lines(
    judged: Judged, runs: Sequence[tuple[Batch, Run]], costs: MonthCosts
) -> list[RunLine]:
    """Return runs as lines of a table."""
    known = {one.run: one for one in costs.runs}
    return [
        RunLine(
            run.id,
            run.started,
            batch.status(run),
            jobs_of(run),
            sum(job.files for job in run.jobs),
            sum(job.bytes for job in run.jobs),
            took(batch, run, judged.now),
            known.get(run.id, run.usd),
            run.planned.release.ref if run.planned and run.planned.release else "-",
            batch.id.schedule if len(judged.schedules) > 1 else "",
            shard_of(batch),
        )
        for batch, run in runs
    ]


def jobs_of(run: Run) -> str:
    """Return how many of a run's jobs succeeded, such as `4/5`."""
    due = [job for job in run.jobs if job.due]
    planned = run.planned.count if run.planned else 0
    return f"{sum(job.succeeded for job in due)}/{max(len(due), planned)}"


def took(batch: Batch, run: Run, now: datetime) -> float:
    """Return how long a run took, or has taken until it was last heard of."""
    running = batch.status(run) is RunStatus.RUNNING
    end = run.closed.finished if run.closed else now if running else run.heard
    return max(0.0, (end - run.started).total_seconds())


def shard_of(batch: Batch) -> str:
    """Return which shard a batch is, counted from 1 as `--shard` does; empty where there are none."""
    return f"{shard.shard + 1}/{shard.shards}" if (shard := batch.id.shard) else ""


def pictures(run: str, job: str, package: Package) -> list[tuple[str, str]]:
    """Return the path and name of the screenshots of a job."""
    return [
        (object_path(run, job, one.path), one.path.rpartition("/")[2])
        for one in package.resources
        if one.role is Role.EVIDENCE and one.mediatype in PICTURES
    ]


def _shown(judged: Judged, trouble: Trouble) -> str:
    """Return the job of a trouble that was in its run."""
    mine = [job for job in judged.jobs if job.name in trouble.jobs]
    return next(
        (job.name for job in mine if job.failure and job.failure.run == trouble.run),
        trouble.jobs[0],
    )


def _view(
    page: Page, judged: Judged, one: Trouble, packages: Mapping[tuple[str, str], Package]
) -> TroubleView:
    job = _shown(judged, one) if one.kind in {Kind.JOB, Kind.INCOMPLETE} else ""
    package = packages.get((one.run, job))
    shots = pictures(one.run, job, package)[-1:] if package else []
    words = page.visit.language
    details = trouble_details(words, one, judged.now, judged.zone)
    remedy = trouble_remedy(words, one)
    return TroubleView(one, job, trouble_title(words, one), details, remedy, shots)


def _home(
    page: Page, judged: Judged, costs: MonthCosts, health: Health
) -> Iterator[tuple[str, str]]:
    _, now = page.visit.language, judged.now
    if health.read:
        yield _("Bucket read"), _.ago(health.read, now)
    if pull := health.pull:
        ended = _.ago(pull.ended, now) if pull.ended else _("not yet")
        yield _("Pulled"), ended
        if pull.pending is not None:
            n = pull.pending
            yield _("Not at home"), _.count("{n} package", "{n} packages", n) if n else _("nothing")
    expected = _("{usd} expected", usd=page.cost(costs.forecast_usd))
    yield _("This month"), f"{page.cost(costs.so_far_usd)} · {expected}"
    plans = (run.planned for _batch, run in reversed(attempts(judged)))
    if release := next((plan.release for plan in plans if plan and plan.release), None):
        yield _("Release"), f"{release.ref} · {release.commit[:12]}"
    for one in judged.schedules:
        if one.schedule:
            yield _("Schedule"), f"{one.schedule.expression} · {one.schedule.timezone}"
        else:
            yield (
                _("Schedule"),
                _("{name}: no schedule is known, so no run counts as missed", name=one.name),
            )


@dataclass(frozen=True, slots=True)
class GroupView:
    """Shards on the first page; of many runs, those that did not succeed come first."""

    name: str
    state: State
    shards: int
    done: int
    missing: str
    runs: list[RunLine]
    more: int


def _groups(judged: Judged, costs: MonthCosts) -> Iterator[GroupView]:
    for group in judged.sharded:
        runs = sorted(group.runs, key=lambda pair: pair[0].status(pair[1]) is RunStatus.SUCCEEDED)
        yield GroupView(
            group.name,
            group.state(judged.now),
            group.shards,
            group.done,
            _missing(group, judged.now),
            run_lines(judged, runs[:LISTED], costs),
            max(0, len(runs) - LISTED),
        )


def _missing(group: Group, now: datetime) -> str:
    return ", ".join(str(one + 1) for one in group.missing) if group.is_late(now) else ""


def _job_facts(page: Page, job: JobFacts, judged: Judged) -> Iterator[tuple[str, str]]:
    _, last = page.visit.language, job.last
    if last and last.job:
        yield _("Files"), f"{last.job.files:,} · {page.size(last.job.bytes)}"
        yield _("Items"), "" if last.job.items is None else f"{last.job.items:,}"
        yield _("Took"), page.duration(last.job.seconds)
    if job.median_files is not None:
        yield _("Usual files"), f"{job.median_files:g}"
    good = job.last_success
    yield _("Last success"), when(_, good.at, judged.now, judged.zone) if good else _("none")
    if job.failures:
        yield _("Failing"), _.count("{n} time in a row", "{n} times in a row", job.failures)
    if job.missed:
        yield _("Missed"), _.count("{n} time in a row", "{n} times in a row", len(job.missed))


def _charts(page: Page, job: JobFacts) -> list[tuple[str, Chart]]:
    _ = page.visit.language
    ended = [(one, one.job) for one in job.outcomes if one.job][-CHARTED:]

    def points(numbers: Sequence[float]) -> list[Point]:
        pairs = zip(ended, numbers, strict=True)
        return [Point(one.at, number, one.state, one.run) for (one, _job), number in pairs]

    files = points([mine.files for _one, mine in ended])
    sizes = points([mine.bytes for _one, mine in ended])
    times = points([mine.seconds for _one, mine in ended])
    return [
        (_("Files"), chart(files, lambda value: f"{value:,.0f}", page.zone)),
        (_("Size"), chart(sizes, lambda value: page.size(value).replace(".0 ", " "), page.zone)),
        (
            _("Took"),
            chart(times, lambda value: page.duration(value).replace(" 00s", ""), page.zone, CLOCK),
        ),
    ]
