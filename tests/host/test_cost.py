"""What a run costs: by the second, with the parts that a bill has, and never a number that nobody knows."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.overrides import Document, parse_settings
from agent.config.settings import Cost as Prices
from agent.contract.facts import Cost
from agent.machine.cost import (
    GIB,
    LIST_PRICES,
    LIST_REGION,
    Rate,
    Usage,
    always_on_usd_month,
    month_seconds,
    rate_of,
    run_cost,
    standing_usd_month,
    surplus_usd,
    volume_usd,
)

BEGAN = datetime(2026, 11, 22, 18, tzinfo=UTC)
SPOT = Rate(0.0217, "spot-history", BEGAN - timedelta(hours=3))


def usage(minutes: float = 30, **changes: object) -> Usage:
    """A run of a spot t3.medium."""
    fields = {
        "instance_type": "t3.medium",
        "spot": True,
        "launched": BEGAN,
        "off": BEGAN + timedelta(minutes=minutes),
    }
    return Usage(**{**fields, **changes})  # type: ignore[arg-type]


def test_half_an_hour_on_spot_costs_about_a_cent_and_a_half() -> None:
    """Instance, disk and address by the second; the image's snapshot stands apart."""
    cost = run_cost(usage(), SPOT, Prices())
    assert cost.billed_seconds == 1800
    assert cost.instance_usd == pytest.approx(0.01085)
    assert cost.address_usd == pytest.approx(0.0025)
    # 20 GiB for 30 of the 43,200 minutes of November.
    assert cost.volume_usd == pytest.approx(20 * 0.096 / 1440, abs=1e-6)
    assert cost.surplus_usd == 0
    assert cost.total_usd == pytest.approx(0.014683, abs=2e-6)
    assert cost.standing_usd_month == pytest.approx(0.30)
    assert (cost.market, cost.rate_source) == ("spot", "spot-history")
    assert cost.rate_as_of == SPOT.as_of


@pytest.mark.parametrize(
    ("seconds", "billed"), [(-5, 60), (0, 60), (1, 60), (59.9, 60), (60, 60), (60.4, 60.4)]
)
def test_a_minute_is_the_least(seconds: float, billed: float) -> None:
    """Linux is billed by the second after one minute; a clock that went back bills that minute."""
    assert run_cost(usage(seconds / 60), SPOT, Prices()).billed_seconds == billed


@pytest.mark.parametrize(
    ("minutes", "taken_back", "spot", "free"),
    [
        (59, True, True, True),
        (61, True, True, False),
        (59, False, True, False),
        (59, True, False, False),
    ],
)
def test_what_ec2_takes_back_within_an_hour_is_free(
    minutes: int, taken_back: bool, spot: bool, free: bool
) -> None:
    """The instance is then not billed; its disk, its address and the credits that it bought are."""
    busy = usage(minutes, taken_back=taken_back, spot=spot, cpu_seconds=2 * 60 * minutes)
    cost = run_cost(busy, SPOT, Prices())
    assert (cost.instance_usd == 0) is free
    assert cost.surplus_usd > 0
    assert cost.address_usd > 0
    assert cost.volume_usd > 0


@pytest.mark.parametrize(
    ("instance_type", "busy", "expected"),
    [
        # Both CPUs of a t3.medium for an hour: 2 x (1 - 0.2) hours at 0.05.
        ("t3.medium", 7200, 0.08),
        ("t3.medium", 1440, 0.0),
        ("t3.medium", 99999, 0.08),
        ("t4g.medium", 7200, 0.064),
        ("t3.large", 7200, 0.07),
        ("m7g.medium", 7200, 0.0),
        ("t2.medium", 7200, 0.0),
        ("t3.weird", 7200, 0.0),
        ("nonsense", 7200, 0.0),
        ("t3.medium", None, 0.0),
    ],
)
def test_credits_are_bought_for_work_beyond_the_baseline(
    instance_type: str, busy: float | None, expected: float
) -> None:
    """A T machine pays for what it works beyond its baseline; other machines have no credits."""
    used = usage(60, instance_type=instance_type, cpu_seconds=busy)
    assert surplus_usd(used) == pytest.approx(expected)
    assert run_cost(used, SPOT, Prices(credits="standard")).surplus_usd == 0


def test_a_disk_that_is_kept_is_billed_all_month_and_not_by_the_run() -> None:
    """In the mode `stopped` the volume stands in the month, and not in the run."""
    kept = run_cost(usage(), SPOT, Prices(keeps_volume=True))
    assert kept.volume_usd == 0
    assert kept.standing_usd_month == pytest.approx(0.30 + 20 * 0.096)


def test_a_month_of_a_disk_is_its_monthly_price() -> None:
    """Whatever the month's length, as AWS computes it."""
    for month in range(1, 13):
        at = datetime(2026, month, 9, tzinfo=UTC)
        assert volume_usd(Prices(), month_seconds(at), at) == pytest.approx(20 * 0.096)


@pytest.mark.parametrize(
    ("used", "region", "prices", "history", "expected"),
    [
        (usage(), LIST_REGION, Prices(), SPOT, SPOT),
        (usage(), LIST_REGION, Prices(hourly=0.5), SPOT, SPOT),
        (usage(), LIST_REGION, Prices(hourly=0.5), None, Rate(0.5, "configured")),
        (usage(), LIST_REGION, Prices(), None, None),
        (usage(spot=False), LIST_REGION, Prices(), None, Rate(0.0544, "list")),
        (usage(spot=False), LIST_REGION, Prices(hourly=0.5), None, Rate(0.5, "configured")),
        (usage(spot=False), "us-east-1", Prices(), None, None),
        (usage(spot=False, instance_type="x1.big"), LIST_REGION, Prices(), None, None),
        (usage(spot=False), None, Prices(), SPOT, None),
    ],
)
def test_the_price_is_the_best_that_is_known(
    used: Usage, region: str | None, prices: Prices, history: Rate | None, expected: Rate | None
) -> None:
    """The history for spot, then what is configured, then the list for machines on demand; else nobody knows."""
    assert rate_of(used, region, prices, history) == expected


def test_an_always_on_machine_costs_what_aws_quotes() -> None:
    """A t3.medium on demand with its disk and address, 730 hours: the comparison of `mayfly cost`."""
    hourly = LIST_PRICES["t3.medium"]
    assert always_on_usd_month(Prices(), hourly) == pytest.approx(39.712 + 3.65 + 1.92)


@given(
    st.floats(-1e6, 40 * 86400),
    st.one_of(st.none(), st.floats(0, 1e7)),
    st.booleans(),
    st.booleans(),
    st.floats(0, 100),
)
def test_a_cost_is_the_sum_of_its_parts_and_can_be_written(
    seconds: float, busy: float | None, taken: bool, spot: bool, hourly: float
) -> None:
    """No part is below zero, the total is their sum, and the manifest accepts it."""
    used = usage(seconds / 60, cpu_seconds=busy, taken_back=taken, spot=spot)
    cost = run_cost(used, Rate(hourly, "configured"), Prices())
    parts = (cost.instance_usd, cost.surplus_usd, cost.volume_usd, cost.address_usd)
    assert min(parts) >= 0
    assert cost.total_usd == pytest.approx(sum(parts), abs=1e-5)
    assert Cost.model_validate_json(cost.model_dump_json()) == cost


def test_prices_are_configured_as_people_write_them() -> None:
    """Sizes as elsewhere; a negative price and an unknown key are faults."""
    text = '[cost]\nvolume = "10GiB"\nhourly = 0.02\ncurrency = "JPY"\nexchange = 155\n'
    parsed = parse_settings([Document(text, "agent.toml")])
    settings, faults = parsed.settings, [*parsed.faults]
    assert faults == []
    assert settings.cost.volume == 10 * GIB
    assert standing_usd_month(settings.cost) == pytest.approx(0.3)
    for wrong in ("hourly = -1", "hurly = 1", 'currency = "yen"', "exchange = 0"):
        assert parse_settings([Document(f"[cost]\n{wrong}\n", "agent.toml")]).faults
