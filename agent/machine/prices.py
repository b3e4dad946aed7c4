"""The present price of a spot machine in its zone, from EC2's price history, and the cost of a run with it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agent.base.durable import write_atomic
from agent.base.errors import PriceError
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
FRESH = timedelta(hours=6)
"""Spot prices change slowly; a younger price of the same zone is not asked for again."""
USABLE = timedelta(days=7)
"""An older price is not used, even if there is no newer one."""
CACHE_NAME = "spot-price.json"
MAX_CACHE_BYTES = 4096
PRODUCT = "Linux/UNIX"
PROC = Path("/proc")
_LATE = f"EC2 gave no spot price within {PRICE_SECONDS:g} s"


@dataclass(frozen=True, slots=True)
class _Known:
    """A price in the cache; times in Unix seconds."""

    instance_type: str
    zone: str
    usd_hour: float
    as_of: float
    asked: float


async def spot_price(
    facts: HostFacts | None, *, cache: Path, environ: Mapping[str, str], log: Log
) -> Rate | None:
    """Return the spot price for a run's cost; None if it needs none, or the price is unknown.

    `cache` is a folder.
    """
    if facts is None or facts.life_cycle != "spot":
        return None
    if facts.instance_type is None or facts.zone is None:
        return None
    return await spot_rate(
        facts.instance_type,
        facts.zone,
        region=facts.region or facts.zone[:-1],
        now=datetime.now(UTC),
        cache=cache,
        environ=environ,
        log=log,
    )


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

    Args:
        facts: EC2's facts of the machine.
        prices: As configured.
        spot: From `spot_price`.
        began: When the machine booted, or the run began if that is unknown.
        now: The end of the run.
        taken_back: Whether EC2 takes the machine away.
        log: Gets a warning without a price.
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


async def spot_rate(
    instance_type: str,
    zone: str,
    *,
    region: str,
    now: datetime,
    cache: Path,
    environ: Mapping[str, str],
    log: Log,
) -> Rate | None:
    """Return the spot price of a type in a zone, from the cache if that is fresh or EC2 does not answer.

    Without either it is None, with a warning in the log: a missing permission is no failure.
    """
    path = cache / CACHE_NAME
    known = _cached(path, instance_type, zone, now)
    if known is not None and now - _time(known.asked) < FRESH:
        return _rate(known)
    try:
        rate = await in_thread(
            lambda: _history(instance_type, zone, region, now, environ), seconds=PRICE_SECONDS
        )
    except (PriceError, TimeoutError) as caught:
        error = caught if isinstance(caught, PriceError) else PriceError(_LATE)
        log.warning("cost.no_spot_price", reason=str(error), remedy=error.remedy)
        return _rate(known) if known else None
    as_of = rate.as_of or now
    entry = _Known(instance_type, zone, rate.usd_hour, as_of.timestamp(), now.timestamp())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(asdict(entry)).encode())
    except OSError as error:
        log.warning("cost.price_not_kept", reason=error.strerror)
    return rate


def _history(
    instance_type: str, zone: str, region: str, now: datetime, environ: Mapping[str, str]
) -> Rate:
    # boto3 takes a third of a second and 30 MB: only where there is something to ask.
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        # A machine asks where it stands, whatever the environment's region is.
        client: EC2Client = aws_client("ec2", environ, WAITS, region=region)
        answer = client.describe_spot_price_history(
            InstanceTypes=[instance_type],  # type: ignore[list-item]  # a literal of a thousand names
            AvailabilityZone=zone,
            ProductDescriptions=[PRODUCT],
            StartTime=now,
            MaxResults=100,
        )
    except ClientError as error:
        raise PriceError(
            f"EC2 answered {error_code(error)} for the spot price of {instance_type} in {zone}",
            remedy="allow ec2:DescribeSpotPriceHistory, or set cost.hourly",
        ) from error
    except (BotoCoreError, ValueError) as error:  # the latter for an endpoint that is no address
        raise PriceError(f"the spot price of {instance_type} cannot be read: {error}") from error
    rates = [
        Rate(price, "spot-history", row["Timestamp"])
        for row in answer["SpotPriceHistory"]
        if row.get("InstanceType") == instance_type
        and (price := _price(row.get("SpotPrice", ""))) is not None
    ]
    if not rates:
        raise PriceError(f"EC2 has no spot price of {instance_type} in {zone}")
    return max(rates, key=lambda rate: rate.as_of or datetime.min.replace(tzinfo=UTC))


def _price(text: str) -> float | None:
    try:
        price = float(text)
    except ValueError:
        return None
    return price if math.isfinite(price) and 0 < price < 1000 else None  # noqa: PLR2004 -- dollars an hour


def _cached(path: Path, instance_type: str, zone: str, now: datetime) -> _Known | None:
    """Return the cached price of this type and zone, if it is recent enough."""
    try:
        text = path.read_bytes()[:MAX_CACHE_BYTES]
        known = _Known(**json.loads(text))
        age = now - _time(known.asked)
        _time(known.as_of)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    same = (known.instance_type, known.zone) == (instance_type, zone)
    if not same or _price(str(known.usd_hour)) is None or not timedelta(0) <= age < USABLE:
        return None
    return known


def _rate(known: _Known) -> Rate:
    return Rate(known.usd_hour, "spot-history", _time(known.as_of))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


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
