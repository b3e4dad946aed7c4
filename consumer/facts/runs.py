"""What is to be known of runs as a whole: the last one, what vanished, the release, the money."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from agent.core.results import RunStatus

from consumer.facts.rows import BegunRow, RunRow

VANISHED_FOR = 7 * 86400.0
"""Seconds for which a vanished run is counted: a week of looking at it."""
COST_DAYS = 28
"""Days of which the daily cost is the mean, for the forecast: four weeks, so that weekdays even out."""


@dataclass(frozen=True, slots=True)
class Release:
    """The release that ran last.

    Attributes:
        stale_since: Begin of the first run, of those in a row up to the last, in which an older release ran than was
            wanted (Unix seconds); None when the last ran what was wanted.
        reason: Why it is stale.
    """

    ref: str
    commit: str
    stale_since: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Costs:
    """US dollars; None where no run says what it cost.

    Attributes:
        last: Of the last run.
        month: Of the runs that began in this month, so far, and of what costs by the month (an image, a disk).
        forecast: Of the whole month, when the days to come cost as much as the mean of the last four weeks.
    """

    last: float | None = None
    month: float | None = None
    forecast: float | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The runs, now.

    Attributes:
        last: The last committed run.
        last_success: The last that succeeded wholly.
        running: Runs under way.
        vanished: Runs of the last seven days that began and are past their deadline without a commit, oldest first.
        last_vanished: Begin of the last that ever vanished, as far as is known (Unix seconds): a later commit heals it.
    """

    last: RunRow | None
    last_success: RunRow | None
    running: tuple[BegunRow, ...]
    vanished: tuple[BegunRow, ...]
    last_vanished: float | None
    release: Release | None
    costs: Costs


def facts_of_runs(
    runs: Sequence[RunRow], begun: Iterable[BegunRow], zone: tzinfo, now: float
) -> RunFacts:
    """Return the facts; runs oldest first, and enough of them for a month and for the longest stale release."""
    begun = sorted(begun, key=lambda one: one.run)
    gone = [one for one in begun if one.deadline <= now]
    good = [run for run in runs if run.status is RunStatus.SUCCEEDED]
    return RunFacts(
        last=runs[-1] if runs else None,
        last_success=good[-1] if good else None,
        running=tuple(one for one in begun if one.deadline > now),
        vanished=tuple(one for one in gone if one.started > now - VANISHED_FOR),
        last_vanished=max((one.started for one in gone), default=None),
        release=release_of(runs),
        costs=costs_of(runs, zone, now),
    )


def release_of(runs: Sequence[RunRow]) -> Release | None:
    """Return the release of the last run that had one, and since when it is stale."""
    ran = [run for run in runs if run.release is not None]
    if not ran:
        return None
    last, since = ran[-1], None
    for run in reversed(ran):
        if not run.stale:
            break
        since = run.started
    return Release(last.release or "", last.commit or "", since, last.stale_reason)


def costs_of(runs: Sequence[RunRow], zone: tzinfo, now: float) -> Costs:
    """Return what runs cost, by the month of the zone."""
    local = datetime.fromtimestamp(now, UTC).astimezone(zone)
    begin = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (begin + timedelta(days=32)).replace(day=1)
    known = [(run.started, run.cost) for run in runs if run.cost is not None]
    this = [cost for started, cost in known if begin.timestamp() <= started < end.timestamp()]
    standing = next((run.standing for run in reversed(runs) if run.standing is not None), 0.0)
    gone = (now - begin.timestamp()) / (end.timestamp() - begin.timestamp())
    month = sum(this) + standing * gone if this else None
    forecast = forecast_usd(sum(this), standing, known, end.timestamp(), now)
    return Costs(runs[-1].cost if runs else None, month, forecast)


def forecast_usd(
    spent: float, standing: float, runs: Sequence[tuple[float, float]], end: float, now: float
) -> float | None:
    """Return what a month will have cost, if the days to come are like those of the last four weeks.

    Args:
        spent: On its runs until now.
        standing: What is billed all month whether or not anything runs.
        runs: Begin (Unix seconds) and cost of runs up to now, oldest first; None follows when there are no recent ones.
        end: When the month ends.
        now: Unix seconds.
    """
    recent = [(started, cost) for started, cost in runs if started > now - COST_DAYS * 86400]
    left = max(0.0, end - now) / 86400
    if not recent:
        return None if left else spent + standing
    # Less than a day of history is not extrapolated from.
    days = max(1.0, min(COST_DAYS, (now - recent[0][0]) / 86400))
    return spent + standing + sum(cost for _, cost in recent) / days * left
