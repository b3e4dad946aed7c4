"""The price of a spot machine, and what a run costs with it: EC2's answer, its cache, and what if nobody answers."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.base.logs import RunLogger
from agent.config.settings import Cost as Prices
from agent.contract.facts import Cost
from agent.machine.cost import Rate
from agent.machine.instance import HostFacts
from agent.machine.prices import (
    CACHE_NAME,
    FRESH,
    USABLE,
    cost_of_run,
    cpu_seconds,
    spot_price,
)
from tests.parts.aws import REGION
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
    """Asks for prices with one cache and one environment."""

    def __init__(self, cache: Path, environ: dict[str, str]) -> None:
        self.cache = cache
        self.environ = environ
        self.events: list[dict[str, Any]] = []
        self.log = RunLogger(self.events.append).log

    async def rate(self) -> Rate | None:
        """The price now."""
        return await spot_price(FACTS, cache=self.cache, environ=self.environ, log=self.log)

    def remember(self, **changes: object) -> None:
        """Put a price into the cache."""
        entry = {
            "instance_type": "t3.medium",
            "zone": ZONE,
            "usd_hour": 0.0111,
            "as_of": NOW.isoformat(),
            "asked": NOW.isoformat(),
        }
        (self.cache / CACHE_NAME).write_text(json.dumps({**entry, **changes}))


@pytest.fixture
def asker(tmp_path: Path, aws: dict[str, str]) -> Asker:
    """With an AWS that answers."""
    return Asker(tmp_path, aws)


@pytest.fixture
def lost(tmp_path: Path) -> Asker:
    """Without an AWS."""
    with refused() as address:
        return Asker(
            tmp_path,
            {
                "AWS_ENDPOINT_URL": f"http://{address}",
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
            },
        )


async def test_ec2s_price_is_kept_and_not_asked_for_again(asker: Asker) -> None:
    """The first answer comes from EC2; while it is fresh, the second does not need it."""
    rate = await asker.rate()
    assert rate is not None
    assert rate.source == "spot-history"
    assert rate.usd_hour > 0
    asker.environ = {}
    kept = json.loads((asker.cache / CACHE_NAME).read_text())
    asker.remember(**kept | {"asked": (NOW - FRESH / 2).isoformat()})
    again = await asker.rate()
    assert again is not None
    assert again.usd_hour == rate.usd_hour
    assert asker.events == []


async def test_an_older_price_serves_while_ec2_does_not_answer(lost: Asker) -> None:
    """A price of yesterday beats none, and the log says why it was used; one of last month does not."""
    lost.remember(asked=(NOW - timedelta(days=1)).isoformat())
    rate = await lost.rate()
    assert rate is not None
    assert rate.usd_hour == 0.0111
    assert [entry["event"] for entry in lost.events] == ["cost.no_spot_price"]
    lost.remember(asked=(NOW - USABLE - timedelta(minutes=1)).isoformat())
    assert await lost.rate() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"zone": f"{REGION}b"},
        {"instance_type": "t3.large"},
        {"usd_hour": -1},
        {"usd_hour": "NaN"},
        {"usd_hour": None},
        {"asked": 1e300},
        {"asked": (NOW + timedelta(hours=3)).isoformat()},
        {"surprise": 1},
    ],
)
async def test_what_is_no_price_of_this_machine_is_not_used(
    lost: Asker, changes: dict[str, object]
) -> None:
    """Another zone, another type, nonsense and a price from the future are as good as none."""
    lost.remember(**changes)
    assert await lost.rate() is None


async def test_an_endpoint_that_is_no_address_is_no_failure(lost: Asker) -> None:
    """A price is an estimate, and the rest of the run's end must not miss for it."""
    lost.environ["AWS_ENDPOINT_URL_EC2"] = "nonsense"
    assert await lost.rate() is None
    (event,) = lost.events
    assert (event["event"], "nonsense" in event["reason"]) == ("cost.no_spot_price", True)


async def test_a_broken_cache_is_no_failure(asker: Asker) -> None:
    """Garbage in the cache is replaced."""
    (asker.cache / CACHE_NAME).write_bytes(b"\xff{" * 5000)
    assert await asker.rate() is not None
    assert json.loads((asker.cache / CACHE_NAME).read_text())["zone"] == ZONE


async def costs(asker: Asker, facts: HostFacts | None, prices: Prices) -> Cost | None:
    """Ask for the price as a run does at its start, and for the cost as at its end."""
    spot = await spot_price(facts, cache=asker.cache, environ=asker.environ, log=asker.log)
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
