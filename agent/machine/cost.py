"""What a run costs, in US dollars, from what the machine knows before it goes off. Decisions only.

An estimate, not a bill, without taxes, free tiers, data transfer, discounts and the bucket. Prices are those of Osaka
(ap-northeast-3), with source and date in docs/aws.md. All of them can be configured (`[cost]`).
"""

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from agent.config.settings import Cost as Prices
from agent.contract.facts import Cost

GIB = 1024**3
HOUR = 3600.0
DAY = 86400.0
MONTH_HOURS = 730.0
"""Hours that AWS counts in a month when it quotes monthly prices."""

SHORTEST_BILL = 60.0
"""Seconds: Linux instances, volumes and addresses are billed by the second, one minute at least."""
FREE_IF_TAKEN_WITHIN = HOUR
"""A spot machine that EC2 itself takes back within its first hour is not billed (EC2 User Guide, 'Billing for
interrupted Spot Instances')."""
BEFORE_KERNEL = 15.0
"""Seconds from launch to the kernel's start, if the launch itself is unknown."""
POWER_OFF = 30.0
"""Seconds from the end of a run to the machine being off."""

LIST_REGION = "ap-northeast-3"
LIST_PRICES: Mapping[str, float] = {
    "t3.small": 0.0272,
    "t3.medium": 0.0544,
    "t3.large": 0.1088,
    "t4g.medium": 0.0435,
    "t4g.large": 0.0870,
}
"""US dollars an hour, Linux, on demand, in `LIST_REGION`."""

_BASELINES: Mapping[str, tuple[int, float]] = {
    "nano": (2, 0.05),
    "micro": (2, 0.10),
    "small": (2, 0.20),
    "medium": (2, 0.20),
    "large": (2, 0.30),
    "xlarge": (4, 0.40),
    "2xlarge": (8, 0.40),
}
"""By size: virtual CPUs, and the share of each that a T3, T3a or T4g machine may use without credits."""
_SURPLUS: Mapping[str, float] = {"t3": 0.05, "t3a": 0.05, "t4g": 0.04}
"""US dollars for an hour of one virtual CPU beyond the baseline, by family."""

RateSource = Literal["spot-history", "configured", "list"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A price of an instance.

    Attributes:
        usd_hour: US dollars an hour.
        source: Where it comes from.
        as_of: Since when a spot price holds.
    """

    usd_hour: float
    source: RateSource
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run used of its machine.

    Attributes:
        instance_type: Such as `t3.medium`.
        spot: Whether it is a spot machine.
        launched: When the bill began.
        off: When the machine will be off.
        cpu_seconds: Work of all its CPUs since it booted; None if unknown.
        public_address: Whether it has a public IPv4 address.
        taken_back: Whether EC2 takes the machine away.
    """

    instance_type: str
    spot: bool
    launched: datetime
    off: datetime
    cpu_seconds: float | None = None
    public_address: bool = True
    taken_back: bool = False

    @property
    def seconds(self) -> float:
        """Billed seconds."""
        return max(SHORTEST_BILL, (self.off - self.launched).total_seconds())


def rate_of(usage: Usage, region: str | None, prices: Prices, spot: Rate | None) -> Rate | None:
    """Return the price of the machine; None if it is unknown: no number is better than a wrong one.

    `spot` comes from the history of spot prices, if it could be read.
    """
    if usage.spot and spot is not None:
        return spot
    if prices.hourly is not None:
        return Rate(prices.hourly, "configured")
    listed = LIST_PRICES.get(usage.instance_type)
    if usage.spot or region != LIST_REGION or listed is None:
        return None
    return Rate(listed, "list")


def run_cost(usage: Usage, rate: Rate, prices: Prices) -> Cost:
    """Return the cost of a run."""
    hours = usage.seconds / HOUR
    free = usage.spot and usage.taken_back and usage.seconds < FREE_IF_TAKEN_WITHIN
    instance = 0.0 if free else rate.usd_hour * hours
    # No source says that bought credits are free as well, so they count.
    surplus = 0.0 if prices.credits == "standard" else surplus_usd(usage)
    volume = 0.0 if prices.keeps_volume else volume_usd(prices, usage.seconds, usage.launched)
    address = prices.address_hour * hours if usage.public_address else 0.0
    parts = [round(part, 6) for part in (instance, surplus, volume, address)]
    return Cost(
        total_usd=round(sum(parts), 6),
        billed_seconds=round(usage.seconds, 1),
        market="spot" if usage.spot else "on-demand",
        rate_usd_hour=rate.usd_hour,
        rate_source=rate.source,
        rate_as_of=rate.as_of,
        instance_usd=parts[0],
        surplus_usd=parts[1],
        volume_usd=parts[2],
        address_usd=parts[3],
        standing_usd_month=round(standing_usd_month(prices), 6),
    )


def surplus_usd(usage: Usage) -> float:
    """Return the cost of the CPU credits that a T machine in `unlimited` mode bought; 0 for other machines.

    A new T3 has no credits (it gets none at launch), and a stopped one earns none: all work beyond its baseline, over
    the whole time it is on, is bought.
    """
    family, _, size = usage.instance_type.partition(".")
    price, known = _SURPLUS.get(family), _BASELINES.get(size)
    if price is None or known is None or usage.cpu_seconds is None:
        return 0.0
    cpus, baseline = known
    worked = min(usage.cpu_seconds, cpus * usage.seconds)
    return max(0.0, worked - cpus * baseline * usage.seconds) / HOUR * price


def volume_usd(prices: Prices, seconds: float, at: datetime) -> float:
    """Return the price of the disk for some seconds of the month of `at`."""
    return prices.volume / GIB * prices.volume_month * seconds / month_seconds(at)


def standing_usd_month(prices: Prices) -> float:
    """Return what is billed all month, run or no run: the image's snapshot, and a disk that is kept."""
    snapshot = prices.snapshot / GIB * prices.snapshot_month
    return snapshot + (prices.volume / GIB * prices.volume_month if prices.keeps_volume else 0.0)


def always_on_usd_month(prices: Prices, hourly: float) -> float:
    """Return a month's price of the same machine on demand that is never off, for comparison."""
    volume = prices.volume / GIB * prices.volume_month
    return MONTH_HOURS * (hourly + prices.address_hour) + volume


def month_seconds(at: datetime) -> float:
    """Return the seconds of the month (UTC) of `at`, by which AWS divides a monthly price."""
    day = at.astimezone(UTC)
    return calendar.monthrange(day.year, day.month)[1] * DAY
