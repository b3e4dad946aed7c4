"""The table of docs/aws.md: a month of daily half-hour runs, computed by the code that writes the manifests."""

from datetime import UTC, datetime, timedelta

from agent.config.settings import Cost
from agent.machine.cost import (
    LIST_PRICES,
    Rate,
    Usage,
    always_on_usd_month,
    run_cost,
    standing_usd_month,
)

SPOT = 0.0218
"""US dollars an hour for a t3.medium in Osaka on spot: what docs/aws.md quotes."""
BEGAN = datetime(2026, 11, 1, 18, tzinfo=UTC)
MINUTES = 30
RUNS = 30
CPUS = 2
HEAD = "| USD in a month of 30 runs of 30 minutes | machine | CPU credits | disk | IPv4 | image | sum |"

CASES = (
    ("spot, launch, CPUs 20 % busy", True, 0.2, Cost()),
    ("spot, launch, CPUs 50 % busy", True, 0.5, Cost()),
    ("spot, launch, CPUs 100 % busy", True, 1.0, Cost()),
    ("spot, stopped, CPUs 50 % busy", True, 0.5, Cost(keeps_volume=True)),
    ("on demand, launch, CPUs 50 % busy", False, 0.5, Cost()),
)


def table() -> list[str]:
    """The table in Markdown."""
    lines = [HEAD, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    lines += [_row(*case) for case in CASES]
    hourly, prices = LIST_PRICES["t3.medium"], Cost()
    parts = (
        730 * hourly,
        0.0,
        prices.volume / 1024**3 * prices.volume_month,
        730 * prices.address_hour,
        0.0,
    )
    assert abs(sum(parts) - always_on_usd_month(prices, hourly)) < 1e-9
    return [*lines, _line("a t3.medium that is never off, on demand", parts)]


def _row(name: str, spot: bool, busy: float, prices: Cost) -> str:
    rate = Rate(SPOT, "spot-history") if spot else Rate(LIST_PRICES["t3.medium"], "list")
    seconds = MINUTES * 60
    usage = Usage(
        "t3.medium", spot, BEGAN, BEGAN + timedelta(seconds=seconds), busy * CPUS * seconds
    )
    cost = run_cost(usage, rate, prices)
    kept = standing_usd_month(prices) - standing_usd_month(Cost())
    parts = (
        RUNS * cost.instance_usd,
        RUNS * cost.surplus_usd,
        RUNS * cost.volume_usd + kept,
        RUNS * cost.address_usd,
        standing_usd_month(Cost()),
    )
    return _line(name, parts)


def _line(name: str, parts: tuple[float, ...]) -> str:
    return f"| {name} | {' | '.join(f'{part:.2f}' for part in (*parts, sum(parts)))} |"
