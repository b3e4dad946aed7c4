"""`mayfly cost`."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from agent.base.console import aligned, cut
from agent.base.errors import ExitCode, UsageError
from agent.config.settings import Cost as Prices
from agent.machine.cost import LIST_PRICES, always_on_usd_month
from consumer.cli.command import Options, configured, dump, width
from consumer.cli.known import known_command, known_of
from consumer.spending import (
    LIST_USD,
    POLL_SECONDS,
    REQUESTS_MONTH,
    Month,
    MonthCosts,
    RunCost,
    month_costs,
    month_of,
)

_MONTH = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
ALWAYS_ON_TYPE = "t3.medium"
"""The machine that is compared with where nobody says what theirs costs."""
HEADINGS = ("BEGAN", "BILLED", "BOUGHT", "USD/H", "MACHINE", "OTHER", "TOTAL", "RUN")
RIGHT = frozenset({1, 3, 4, 5, 6})


@click.command()
@click.option("--month", "which", metavar="YYYY-MM", help="Month to show [this one].")
@known_command
def cost(*, options: Options, which: str | None) -> ExitCode:
    """Show what the runs of a month cost, the month so far, and what to expect of it.

    All amounts are estimates in US dollars: without taxes, free tiers, data transfer and what the bucket stores.
    Beside them stands what a machine would cost that is never off.
    """
    first = _first_of(which) if which else None
    known = known_of(options)
    now, zone = known.judged.now, known.judged.zone
    moment = first.replace(tzinfo=zone) if first else now
    costs = month_costs(known.history, month_of(moment, zone), now, options.ended)
    prices = configured(options)[0].settings.cost
    always = _always_on(prices)
    if options.as_json:
        dump(_json(costs, prices, known.bucket.name, always))
        return ExitCode.DONE
    head = f"{costs.month.begin:%B %Y} (times in {zone}), {known.bucket.name}"
    for line in (head, *_lines(costs, prices, always, now)):
        click.echo(cut(line, width()))
    return ExitCode.DONE


def _first_of(which: str) -> datetime:
    if _MONTH.fullmatch(which) is None:
        raise UsageError(f"{which!r} is no month", remedy="write it as 2026-11")
    return datetime.strptime(which, "%Y-%m")  # noqa: DTZ007 -- its zone comes next


def _always_on(prices: Prices) -> float:
    if prices.always_on_month is not None:
        return prices.always_on_month
    return always_on_usd_month(prices, LIST_PRICES[ALWAYS_ON_TYPE])


def _lines(costs: MonthCosts, prices: Prices, always: float, now: datetime) -> Iterator[str]:
    yield from aligned([HEADINGS, *(_row(run, costs.month) for run in costs.runs)], RIGHT)
    estimated = ("of these estimated: running, or lost", costs.estimated_usd)
    sums = (
        ("runs", costs.runs_usd),
        *([estimated] if costs.estimated_usd else []),
        ("image, and a disk that is kept", costs.standing_usd),
        ("so far", costs.so_far_usd),
        ("the whole month, if it goes on so", costs.forecast_usd),
        ("a machine that is never off, so far", always * costs.month.part(now)),
        ("and in the whole month", always),
    )
    yield ""
    yield from aligned([(name, _money(usd, prices)) for name, usd in sums], frozenset({1}))
    if costs.unknown:
        yield f"runs of unknown cost: {costs.unknown} (see cost.hourly)"
    yield ""
    polls = f"Polling every {POLL_SECONDS:.0f} s (mayfly serve)"
    yield f"{polls} is {REQUESTS_MONTH:,.0f} LIST requests a month:"
    yield f"about {_money(REQUESTS_MONTH * LIST_USD, prices)} at S3, nothing at Wasabi. --interval 5m is a fifth of it."


def _money(usd: float, prices: Prices) -> str:
    text = f"{usd:.2f} USD"
    if prices.currency == "USD":
        return text
    return f"{text} ({usd * prices.exchange:,.0f} {prices.currency})"


def _row(run: RunCost, month: Month) -> tuple[str, ...]:
    began = f"{run.started.astimezone(month.begin.tzinfo):%m-%d %H:%M}"
    if run.cost is None:
        return (began, *"-----", "-" if run.usd is None else f"~{run.usd:.4f}", run.run)
    cost = run.cost
    other = cost.surplus_usd + cost.volume_usd + cost.address_usd
    return (
        began,
        f"{cost.billed_seconds / 60:.1f} min",
        cost.market,
        f"{cost.rate_usd_hour:.4f}",
        f"{cost.instance_usd:.4f}",
        f"{other:.4f}",
        f"{cost.total_usd:.4f}",
        run.run,
    )


def _json(costs: MonthCosts, prices: Prices, bucket: str, always: float) -> dict[str, Any]:
    return {
        "bucket": bucket,
        "month": f"{costs.month.begin:%Y-%m}",
        "from": costs.month.begin.isoformat(),
        "until": costs.month.end.isoformat(),
        "runs": [
            {
                "run": one.run,
                "started": one.started.isoformat(),
                "usd": one.usd,
                "estimated": one.estimated,
                "cost": one.cost.model_dump(mode="json") if one.cost else None,
            }
            for one in costs.runs
        ],
        "runs_usd": round(costs.runs_usd, 6),
        "estimated_usd": round(costs.estimated_usd, 6),
        "standing_usd": round(costs.standing_usd, 6),
        "so_far_usd": round(costs.so_far_usd, 6),
        "forecast_usd": round(costs.forecast_usd, 6),
        "unknown_runs": costs.unknown,
        "always_on_usd": round(always, 6),
        "poll_requests_month": REQUESTS_MONTH,
        "currency": prices.currency,
        "exchange": prices.exchange,
    }
