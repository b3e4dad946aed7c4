"""The present price of a spot machine in its zone, from EC2's price history, and the cost of a run with it."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from agent.base.errors import PriceError, SecretsError
from agent.base.logs import Log
from agent.base.threads import in_thread
from agent.config.settings import Cost as Prices
from agent.contract.facts import Cost
from agent.machine.aws import Waits, aws_client, error_code
from agent.machine.cost import BEFORE_KERNEL, POWER_OFF, Rate, Usage, rate_of, run_cost
from agent.machine.instance import HostFacts

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

PRICE_SECONDS = 10.0
"""With retries: it is asked while a run works, and no run waits longer for it."""
WAITS = Waits(connect=3, read=5, attempts=2)
PRODUCT = "Linux/UNIX"
PROC = Path("/proc")


class _Price(BaseModel):
    """A price in EC2's history."""

    usd_hour: float = Field(alias="SpotPrice", gt=0, lt=1000, allow_inf_nan=False)
    as_of: AwareDatetime = Field(alias="Timestamp")


async def spot_price(
    facts: HostFacts | None, *, environ: Mapping[str, str], log: Log
) -> Rate | None:
    """Return the price of a spot machine; None for another.

    Without an answer also, with a warning in the log: a missing permission is no failure.
    """
    if facts is None or facts.life_cycle != "spot" or not (facts.instance_type and facts.zone):
        return None
    kind, zone, region = facts.instance_type, facts.zone, facts.region or facts.zone[:-1]
    try:
        return await in_thread(lambda: _ask(kind, zone, region, environ), seconds=PRICE_SECONDS)
    except (PriceError, TimeoutError) as error:
        reason = str(error) or f"EC2 gave no spot price within {PRICE_SECONDS:g} s"
        log.warning("cost.no_spot_price", reason=reason, remedy=getattr(error, "remedy", ""))
        return None


def cost_of_run(
    facts: HostFacts | None,
    prices: Prices,
    spot: Rate | None,
    *,
    began: datetime,
    now: datetime,
    taken_back: bool,
    log: Log,
) -> Cost | None:
    """Return the cost of this run, until the machine is off; None on a machine that nobody bills by the second.

    `spot` comes from `spot_price`. `began` is when the machine booted, or the run began if that is unknown. Without a
    price the log gets a warning.
    """
    if facts is None or facts.instance_type is None or facts.life_cycle is None:
        return None
    usage = Usage(
        instance_type=facts.instance_type,
        spot=facts.life_cycle == "spot",
        launched=facts.launched or began - timedelta(seconds=BEFORE_KERNEL),
        off=now + timedelta(seconds=POWER_OFF),
        cpu_seconds=cpu_seconds(),
        public_address=facts.public_address,
        taken_back=taken_back,
    )
    rate = rate_of(usage, facts.region, prices, spot)
    if rate is None:
        log.warning("cost.unknown", instance_type=facts.instance_type, remedy="set cost.hourly")
        return None
    return run_cost(usage, rate, prices)


def _ask(instance_type: str, zone: str, region: str, environ: Mapping[str, str]) -> Rate:
    # boto3 takes a third of a second and 30 MB: only where there is something to ask.
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        # A machine asks where it stands, whatever the environment's region is.
        client: EC2Client = aws_client("ec2", environ, WAITS, region=region)
        answer = client.describe_spot_price_history(
            InstanceTypes=[instance_type],  # type: ignore[list-item]  # a literal of a thousand names
            AvailabilityZone=zone,
            ProductDescriptions=[PRODUCT],
            StartTime=datetime.now(UTC),
            MaxResults=100,
        )
    except ClientError as error:
        raise PriceError(
            f"EC2 answered {error_code(error)} for the spot price of {instance_type} in {zone}",
            remedy="allow ec2:DescribeSpotPriceHistory, or set cost.hourly",
        ) from error
    except (BotoCoreError, SecretsError) as error:
        raise PriceError(f"the spot price of {instance_type} cannot be read: {error}") from error
    prices = []
    for row in answer["SpotPriceHistory"]:
        with suppress(ValidationError):
            if row.get("InstanceType") == instance_type:
                prices.append(_Price.model_validate(row))
    if not prices:
        raise PriceError(f"EC2 has no spot price of {instance_type} in {zone}")
    newest = max(prices, key=lambda price: price.as_of)
    return Rate(newest.usd_hour, "spot-history", newest.as_of)


def cpu_seconds(proc: Path = PROC) -> float | None:
    """Return the work of all CPUs since the machine booted, in seconds; None if the kernel does not say.

    From the first line of proc(5)'s `stat`: all but idle and waiting for disks, in hundredths of a second; user time
    includes guests.
    """
    try:
        fields = (proc / "stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _idle, _wait, irq, softirq, steal = (int(text) for text in fields[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / 100
