"""What a month costs, from what its runs report, and estimates for those that did not. US dollars. Decisions only."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from agent.contract.facts import Cost
from agent.contract.results import RunStatus
from consumer.model import Batch, History, Run

WEEKS = timedelta(days=28)
"""Of which the daily cost is the mean, for the forecast: four weeks, so that weekdays even out."""
DAY = timedelta(days=1)
STANDS = timedelta(weeks=9)
"""Before a month's end: whose last run is older has no machine any more. One that runs once a month always has."""
POLL_SECONDS = 60.0
"""Between polls, unless a person says otherwise."""
REQUESTS_MONTH = 30 * 86400 / POLL_SECONDS
"""LIST requests of a month of polling, at least: one each time, when nothing is new."""
LIST_USD = 0.005 / 1000
"""Price of a LIST at S3, in most regions; Wasabi charges nothing."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month in a time zone; `end` is the first moment that is not in it any more."""

    begin: datetime
    end: datetime

    def part(self, now: datetime) -> float:
        """Return how much of it is over, from 0 to 1."""
        return min(max((now - self.begin) / (self.end - self.begin), 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run costs.

    Attributes:
        usd: What it cost, or has cost until now; None where nobody can tell.
        cost: What it says itself.
    """

    run: str
    started: datetime
    usd: float | None
    cost: Cost | None = None

    @property
    def estimated(self) -> bool:
        """Whether it is not the run that says so, but a run before it, by its rate."""
        return self.cost is None and self.usd is not None


@dataclass(frozen=True, slots=True)
class MonthCosts:
    """A month.

    Attributes:
        runs: Those that began in it, the oldest first.
        runs_usd: What they cost together.
        estimated_usd: How much of that is estimated: of runs that are under way, or were lost.
        unknown: How many of them nobody can tell the cost of.
        standing_usd: What was billed until now whether or not anything ran: image, and a disk that is kept.
        forecast_usd: The whole month, if the days to come are like those of the last four weeks.
    """

    month: Month
    runs: tuple[RunCost, ...]
    runs_usd: float
    estimated_usd: float
    unknown: int
    standing_usd: float
    forecast_usd: float

    @property
    def so_far_usd(self) -> float:
        """All until now."""
        return self.runs_usd + self.standing_usd


def month_of(moment: datetime, zone: tzinfo) -> Month:
    """Return the month of a moment."""
    local = moment.astimezone(zone)
    begin = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    return Month(begin, (begin + timedelta(days=32)).replace(day=1))


def month_costs(
    history: History, month: Month, now: datetime, ended: Collection[str] = ()
) -> MonthCosts:
    """Return what a month costs; of a month that is over, the forecast is its sum. See `Rules.ended`."""
    costs = [*costs_of_runs(history, now)]
    mine = tuple(one for one in costs if month.begin <= one.started < month.end)
    known = [one for one in mine if one.usd is not None]
    spent = sum(one.usd or 0.0 for one in known)
    standing = _standing_usd_month(history, month, ended)
    return MonthCosts(
        month,
        mine,
        spent,
        sum(one.usd or 0.0 for one in known if one.estimated),
        len(mine) - len(known),
        standing * month.part(now),
        spent + standing + _to_come(costs, month, now),
    )


def costs_of_runs(history: History, now: datetime) -> Iterable[RunCost]:
    """Yield what each run costs, the oldest first."""
    rates: dict[str, float] = {}
    for batch, run in history.runs:
        cost = run.closed.cost if run.closed else None
        if cost and cost.billed_seconds:
            rates[batch.id.schedule] = cost.total_usd / cost.billed_seconds
        if run.stood_back is None:
            usd = cost.total_usd if cost else _estimate(batch, run, rates, now)
            yield RunCost(run.id, run.started, usd, cost)


def _estimate(batch: Batch, run: Run, rates: dict[str, float], now: datetime) -> float | None:
    """Return what a run costs that did not close: a machine that was lost may run until its deadline."""
    rate = rates.get(batch.id.schedule)
    status = batch.status(run)
    if rate is None or status not in {RunStatus.RUNNING, RunStatus.LOST}:
        return None
    until = min(now, run.deadline)
    return rate * max(0.0, (until - run.started).total_seconds())


def _standing_usd_month(history: History, month: Month, ended: Collection[str]) -> float:
    """Return what the machines of all schedules cost by the month, as each says last that ran lately."""
    later = {batch.id.schedule for batch, run in history.runs if run.started >= month.end}
    newest = {
        batch.id.schedule: run.closed.cost.standing_usd_month
        for batch, run in history.runs
        if run.closed and run.closed.cost and month.end - STANDS <= run.started < month.end
        if batch.id.schedule in later or batch.id.schedule not in ended
    }
    return sum(newest.values())


def _to_come(costs: Sequence[RunCost], month: Month, now: datetime) -> float:
    left = max(timedelta(0), month.end - max(now, month.begin)) / DAY
    recent = [one for one in costs if one.usd is not None and now - WEEKS < one.started <= now]
    if not recent or not left:
        return 0.0
    # Less than a day of history is not extrapolated from.
    days = max(1.0, (now - recent[0].started) / DAY)
    return sum(one.usd or 0.0 for one in recent) / days * left
