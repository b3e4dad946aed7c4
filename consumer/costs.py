"""What a month costs, from what its runs say they cost, and what a machine that is never off would cost instead."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from agent.core.manifest import IndexEntry
from agent.core.results import CostRecord

from agent.base.console import aligned, printable
from agent.config.settings import Cost
from agent.machine.cost import LIST_PRICES, always_on_usd_month
from consumer.facts.runs import forecast_usd

ALWAYS_ON_TYPE = "t3.medium"
"""The machine that is compared with where nobody says what theirs costs."""
HEADINGS = (
    "STARTED",
    "BILLED",
    "BOUGHT",
    "USD/H",
    "MACHINE",
    "CREDITS",
    "DISK",
    "IPV4",
    "TOTAL",
    "RUN",
)
RIGHT = frozenset({1, 3, 4, 5, 6, 7, 8})


@dataclass(frozen=True, slots=True)
class Month:
    """A month in a time zone; `end` is the first moment that is not in it any more."""

    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.begin).total_seconds()


@dataclass(frozen=True, slots=True)
class RunCost:
    """A run of the month; `cost` is None where the run does not say."""

    run: str
    started: datetime
    cost: CostRecord | None


@dataclass(frozen=True, slots=True)
class MonthCosts:
    """A month, in US dollars.

    Attributes:
        runs: Oldest first.
        runs_usd: What they cost together.
        unknown: How many of them do not say what they cost.
        standing_usd: What was billed until now whether or not anything ran: image, and a disk that is kept.
        so_far_usd: Both together.
        forecast_usd: The whole month, if the days to come are like those that were.
        always_on_so_far_usd: What a machine that is never off would have cost until now.
        always_on_usd: And in the whole month.
    """

    month: Month
    runs: tuple[RunCost, ...]
    runs_usd: float
    unknown: int
    standing_usd: float
    so_far_usd: float
    forecast_usd: float
    always_on_so_far_usd: float
    always_on_usd: float


def month_of(year: int, month: int, zone: tzinfo | None) -> Month:
    """Return a month in a time zone; None is the computer's."""

    def first(year: int, month: int) -> datetime:
        start = datetime(year, month, 1)  # noqa: DTZ001 -- the zone comes next
        return start.astimezone() if zone is None else start.replace(tzinfo=zone)

    return Month(first(year, month), first(year + month // 12, month % 12 + 1))


def month_costs(
    entries: Sequence[IndexEntry], month: Month, now: datetime, prices: Cost
) -> MonthCosts:
    """Return what a month costs.

    Args:
        entries: Of committed runs. Of those that began in other months the last four weeks count for the forecast.
        month: The month.
        now: A month that is over has no forecast but its sum.
        prices: For the always-on machine.
    """
    mine = sorted(
        (entry for entry in entries if month.begin <= entry.started < month.end),
        key=lambda entry: entry.started,
    )
    runs = tuple(RunCost(entry.run_id, entry.started, entry.cost) for entry in mine)
    known = [run.cost for run in runs if run.cost is not None]
    total = sum(cost.total_usd for cost in known)
    standing_month = known[-1].standing_usd_month if known else 0.0
    gone = min(max((now - month.begin).total_seconds(), 0.0), month.seconds)
    share = gone / month.seconds
    recent = [
        (entry.started.timestamp(), entry.cost.total_usd)
        for entry in sorted(entries, key=lambda entry: entry.started)
        if entry.cost is not None and entry.started <= now
    ]
    forecast = forecast_usd(total, standing_month, recent, month.end.timestamp(), now.timestamp())
    always_on = prices.always_on_month
    if always_on is None:
        always_on = always_on_usd_month(prices, LIST_PRICES[ALWAYS_ON_TYPE])
    return MonthCosts(
        month=month,
        runs=runs,
        runs_usd=total,
        unknown=len(runs) - len(known),
        standing_usd=standing_month * share,
        so_far_usd=total + standing_month * share,
        forecast_usd=total + standing_month if forecast is None else forecast,
        always_on_so_far_usd=always_on * share,
        always_on_usd=always_on,
    )


def cost_lines(costs: MonthCosts, prices: Cost, zone: tzinfo | None) -> list[str]:
    """Return the table of a month's runs and its sums."""
    lines = aligned([HEADINGS, *(_row(run, zone) for run in costs.runs)], RIGHT)
    money = _Money(prices)
    sums: Sequence[tuple[str, str]] = (
        ("runs", money.show(costs.runs_usd)),
        ("image, and a disk that is kept", money.show(costs.standing_usd)),
        ("so far", money.show(costs.so_far_usd)),
        ("forecast of the month", money.show(costs.forecast_usd)),
        ("an always-on machine, so far", money.show(costs.always_on_so_far_usd)),
        ("and in the month", money.show(costs.always_on_usd)),
    )
    lines += ["", *aligned(sums, frozenset({1}))]
    if costs.unknown:
        count = f"{costs.unknown} run{'s' if costs.unknown > 1 else ''}"
        lines.append(f"{count} of the month did not say what they cost; see cost.hourly")
    return lines


def cost_json(costs: MonthCosts, prices: Cost, bucket: str) -> dict[str, Any]:
    """Return a month as JSON; amounts are US dollars."""
    return {
        "bucket": bucket,
        "month": f"{costs.month.begin:%Y-%m}",
        "from": costs.month.begin.isoformat(),
        "until": costs.month.end.isoformat(),
        "runs": [
            {
                "run_id": run.run,
                "started": run.started.isoformat(),
                "cost": run.cost.model_dump(mode="json") if run.cost else None,
            }
            for run in costs.runs
        ],
        "runs_usd": round(costs.runs_usd, 6),
        "unknown_runs": costs.unknown,
        "standing_usd": round(costs.standing_usd, 6),
        "so_far_usd": round(costs.so_far_usd, 6),
        "forecast_usd": round(costs.forecast_usd, 6),
        "always_on_so_far_usd": round(costs.always_on_so_far_usd, 6),
        "always_on_usd": round(costs.always_on_usd, 6),
        "currency": prices.currency,
        "exchange": prices.exchange,
    }


@dataclass(frozen=True, slots=True)
class _Money:
    prices: Cost

    def show(self, usd: float) -> str:
        text = f"{usd:.2f} USD"
        if self.prices.currency == "USD":
            return text
        return f"{text} ({usd * self.prices.exchange:,.0f} {self.prices.currency})"


def _row(run: RunCost, zone: tzinfo | None) -> tuple[str, ...]:
    started = f"{run.started.astimezone(zone):%Y-%m-%d %H:%M}"
    if run.cost is None:
        return (started, *"--------", printable(run.run))
    cost = run.cost
    parts = (cost.instance_usd, cost.surplus_usd, cost.volume_usd, cost.address_usd, cost.total_usd)
    return (
        started,
        f"{cost.billed_seconds / 60:.1f} min",
        cost.market,
        f"{cost.rate_usd_hour:.4f}",
        *(f"{part:.4f}" for part in parts),
        printable(run.run),
    )
