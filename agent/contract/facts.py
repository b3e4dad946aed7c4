"""What a run says of its schedule, machine, release, browser, isolation and cost. Decisions only."""

from typing import Annotated

from pydantic import Field

from agent.contract.results import Count, Dollars, Message, Moment, Name, Record, Seconds

Term = Annotated[str, Field(max_length=64)]
"""One of a few words; a newer writer may know more, and a reader only shows it."""


class Schedule(Record):
    """When runs are due: home judges `missed` and `late` by it."""

    expression: Name = Field(description="As the scheduler was given it.")
    timezone: Name
    grace_seconds: Seconds


class PreviousBoot(Record):
    """The boot before this one, on a machine that keeps its disk."""

    boot_id: Name
    off: Moment = Field(description="When the last of its units was stopped.")


class Host(Record):
    """The machine that runs."""

    name: Name
    system: Name = ""
    boot_id: Name | None = None
    booted: Moment | None = None
    instance_id: Name | None = None
    instance_type: Name | None = None
    zone: Name | None = None
    image: Name | None = None
    life_cycle: Term | None = Field(None, description="`on-demand` or `spot`.")
    previous: PreviousBoot | None = Field(
        None, description="Null without one, or when it did not end in order."
    )


class Signer(Record):
    """Who signed: the principal of the allowed_signers file, and the fingerprint of the key."""

    principal: Name
    key: Name


class Stale(Record):
    """Why the release that runs is older than the wanted one."""

    wanted: Name = Field(description="The ref that was wanted: a tag or a tracking pattern.")
    reason: Message
    age_seconds: Seconds = Field(description="Since the running release was first fetched.")
    since: Moment | None = Field(None, description="The first run in a row in which it was so.")


class RefusedRelease(Record):
    """A release that was offered and does not run."""

    ref: Name
    commit: Name | None = None
    kind: Term = Field(description="At which step it was refused.")
    reason: Message


class RolledBack(Record):
    """The release that failed its trial in this run."""

    ref: Name
    commit: Name
    reason: Message
    jobs: tuple[Name, ...] = Field(
        (), max_length=1000, description="What ran once more, on the last good release."
    )


class Release(Record):
    """The release that runs; after a rollback, the one that took over."""

    repository: Message = Field(description="Without credentials.")
    ref: Name
    commit: Name
    fetched: Moment
    trust: Term = Field("none", description="`signed`: only what `allowed_signers` names may run.")
    verified_by: Signer | None = Field(None, description="Who signed it; null without a check.")
    pin: Name | None = Field(None, description="The pin that chose it.")
    reached: Moment | None = Field(
        None, description="When the repository last answered; null when that is not known."
    )
    unreachable_since: Moment | None = None
    trial: Term | None = Field(
        None, description="How a trial ended: passed, failed, undecided; null for a good release."
    )
    stale: Stale | None = None
    refused: tuple[RefusedRelease, ...] = Field((), max_length=100)
    rolled_back_from: RolledBack | None = None


class Browser(Record):
    """The browser that the jobs use."""

    kind: Term
    name: Name = Field(description="Browser and version, as its session said.")
    image: Message | None = None
    digest: Name | None = None
    restarts: Count = 0


class Isolation(Record):
    """How jobs are isolated, and what a job could reach when that was tried; `absent`: there is no metadata service."""

    backend: Term
    metadata: Term = Field(description="The metadata service from a job.")
    containers: Term = Field(description="The metadata service from a container.")


class Phase(Record):
    """When a part of the run began and how long it took; phases overlap."""

    name: Name
    started: Moment
    seconds: Seconds


class Cost(Record):
    """What a run cost, as the machine estimates it before it goes off; US dollars."""

    total_usd: Dollars = Field(description="The sum of the four parts.")
    billed_seconds: Seconds = Field(description="From launch to the expected power-off.")
    market: Term = Field(description="`on-demand` or `spot`.")
    rate_usd_hour: Dollars = Field(description="Of the instance.")
    rate_source: Term = Field(description="`spot-history`, `configured` or `list`.")
    rate_as_of: Moment | None = Field(None, description="Since when a spot price holds.")
    instance_usd: Dollars
    surplus_usd: Dollars = Field(0.0, description="CPU credits that a T instance bought.")
    volume_usd: Dollars = Field(0.0, description="A disk that exists only for this run.")
    address_usd: Dollars = Field(0.0, description="The public IPv4 address.")
    standing_usd_month: Dollars = Field(
        0.0, description="What is billed all month, run or no run; not in the total."
    )
