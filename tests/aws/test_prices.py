"""The price of a spot machine, and what a run costs with it: EC2's answer, and what if nobody answers."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.base.logs import RunLogger
from agent.config.settings import Cost as Prices
from agent.contract.facts import Cost
from agent.machine.cost import Rate
from agent.machine.instance import HostFacts
from agent.machine.prices import cost_of_run, cpu_seconds, spot_price
from tests.parts.aws import REGION
from tests.parts.awsproxy import Answer, AwsProxy, ec2_answer
from tests.parts.stalled import refused

NOW = datetime.now(UTC).replace(microsecond=0)
ZONE = f"{REGION}a"
FACTS = HostFacts(
    instance_type="t3.medium",
    zone=ZONE,
    region=REGION,
    life_cycle="spot",
    launched=NOW - timedelta(minutes=30),
    public_address=True,
)


class Asker:
    """Asks for prices in one environment."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self.events: list[dict[str, Any]] = []
        self.log = RunLogger(self.events.append).log

    async def rate(self) -> Rate | None:
        """The price now."""
        return await spot_price(FACTS, environ=self.environ, log=self.log)


@pytest.fixture
def asker(aws: dict[str, str]) -> Asker:
    """With an AWS that answers."""
    return Asker(aws)


@pytest.fixture
def lost() -> Asker:
    """Without an AWS."""
    with refused() as address:
        return Asker(
            {
                "AWS_ENDPOINT_URL": f"http://{address}",
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
            },
        )


class History(AwsProxy):
    """An EC2 that knows these prices, by type, amount and time."""

    def __init__(self, *rows: tuple[str, str, datetime]) -> None:
        super().__init__("")
        self._rows = rows

    def answer(self, body: bytes) -> Answer | None:
        """Answer with all of them."""
        items = "".join(
            f"<item><instanceType>{kind}</instanceType><spotPrice>{amount}</spotPrice>"
            f"<timestamp>{moment.isoformat()}</timestamp></item>"
            for kind, amount, moment in self._rows
        )
        said = f"<spotPriceHistorySet>{items}</spotPriceHistorySet>"
        return 200, ec2_answer("DescribeSpotPriceHistory", said)


async def test_ec2_says_the_price(asker: Asker) -> None:
    """What its history says of this type in this zone."""
    rate = await asker.rate()
    assert rate is not None
    assert rate.source == "spot-history"
    assert rate.usd_hour > 0
    assert asker.events == []


async def test_of_many_prices_the_newest_of_this_type_holds(asker: Asker) -> None:
    """Those of another type and what is no price are left out."""
    rows = [
        ("t3.medium", "0.0111", NOW - timedelta(hours=2)),
        ("t3.medium", "0.0122", NOW - timedelta(hours=1)),
        *(("t3.medium", amount, NOW) for amount in ("-1", "0", "NaN", "inf", "1000", "cheap", "")),
        ("t3.large", "0.0333", NOW),
    ]
    with History(*rows) as ec2:
        asker.environ = {**asker.environ, "AWS_ENDPOINT_URL_EC2": ec2.url}
        assert await asker.rate() == Rate(0.0122, "spot-history", NOW - timedelta(hours=1))
    assert asker.events == []


async def test_a_history_without_this_type_is_no_failure(asker: Asker) -> None:
    """The log says so."""
    with History(("t3.large", "0.0333", NOW)) as ec2:
        asker.environ = {**asker.environ, "AWS_ENDPOINT_URL_EC2": ec2.url}
        assert await asker.rate() is None
    assert [event["event"] for event in asker.events] == ["cost.no_spot_price"]


async def test_an_endpoint_that_is_no_address_is_no_failure(lost: Asker) -> None:
    """A price is an estimate, and the rest of the run's end must not miss for it."""
    lost.environ["AWS_ENDPOINT_URL_EC2"] = "nonsense"
    assert await lost.rate() is None
    (event,) = lost.events
    assert (event["event"], "nonsense" in event["reason"]) == ("cost.no_spot_price", True)


async def costs(asker: Asker, facts: HostFacts | None, prices: Prices) -> Cost | None:
    """Ask for the price as a run does at its start, and for the cost as at its end."""
    spot = await spot_price(facts, environ=asker.environ, log=asker.log)
    return cost_of_run(facts, prices, spot, began=NOW, now=NOW, taken_back=False, log=asker.log)


async def test_a_run_on_spot_knows_what_it_cost(asker: Asker) -> None:
    """From launch to the expected power-off, at EC2's price."""
    cost = await costs(asker, FACTS, Prices())
    assert cost is not None
    assert cost.billed_seconds == 1830
    assert cost.market == "spot"
    assert cost.rate_source == "spot-history"
    assert cost.total_usd > 0


async def test_without_permission_the_configured_price_counts(lost: Asker) -> None:
    """Nobody needs to allow the history of prices; without any price there is no number at all."""
    for prices, expected in ((Prices(hourly=0.02), "configured"), (Prices(), None)):
        cost = await costs(lost, FACTS, prices)
        assert (cost.rate_source if cost else None) == expected


@pytest.mark.parametrize("facts", [None, HostFacts(), HostFacts(instance_type="t3.medium")])
async def test_a_laptop_costs_nothing_that_we_know(lost: Asker, facts: HostFacts | None) -> None:
    """Without an instance there is no cost, and nobody is asked."""
    assert await costs(lost, facts, Prices(hourly=1)) is None
    assert lost.events == []


def test_the_kernel_says_how_much_the_cpus_worked(tmp_path: Path) -> None:
    """All but idle and waiting, in hundredths of a second; a broken file is 'unknown'."""
    (tmp_path / "stat").write_text("cpu 100 20 300 9999 9999 4 5 6 7 8\ncpu0 1 2 3\n")
    assert cpu_seconds(tmp_path) == 4.35
    (tmp_path / "stat").write_text("cpu x\n")
    assert cpu_seconds(tmp_path) is None
    assert cpu_seconds(tmp_path / "none") is None
    assert (cpu_seconds() or 0) > 0
