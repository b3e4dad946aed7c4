"""When runs are due, by a schedule's expression: EventBridge's cron, rate and at, or five fields. Decisions only.

Times are those of the wall clock in the schedule's time zone: one that does not exist, because clocks were set forward,
is not expected, and one that comes twice is expected once. EventBridge Scheduler does so; where a cron does otherwise,
a run more than expected is no harm.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from agent.base.console import printable
from agent.contract.entries import Invalid
from agent.contract.facts import Schedule

MOST = 2000
"""Times that are counted back: a job that runs each hour has twelve weeks."""
MOST_STEPS = 4000
"""Times that are looked at for them, and days without one: a cron with a year of its own skips ten others."""

FIRST_YEAR, LAST_YEAR = 1970, 2199
"""Those of EventBridge. Outside nothing is due: the calendar ends soon after, and whoever counts on raises."""
MOST_DAYS = 3660
"""Of a rate."""
_FIVE = 5
_SIX = 6
_SUNDAY = 7
_UNITS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_CALL = re.compile(r"(cron|rate|at)\((.*)\)", re.DOTALL)
_RATE = re.compile(r"([1-9][0-9]{0,5}) (minute|hour|day)s?")
_AT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
_NEAREST = re.compile(r"([1-9]|[12][0-9]|3[01])W")
_YEAR = re.compile(r"([0-9]{4})(?:-([0-9]{4}))?(?:/([1-9][0-9]?))?|\*(?:/([1-9][0-9]?))?")


@dataclass(frozen=True, slots=True)
class Cron:
    """Times of the wall clock.

    Attributes:
        fields: Five fields, as cron has them.
        zone: The time zone of the clock.
        fits: Whether a day fits the rules that five fields cannot express.
    """

    fields: str
    zone: ZoneInfo
    fits: Callable[[date], bool] = field(default=lambda _: True, repr=False)

    def back(self, moment: datetime, since: datetime) -> Iterator[datetime]:
        """Yield the times before a moment and not before `since`, the latest first."""
        # A day more, since the wall clock may have been set back meanwhile.
        for time, expected in self._times(moment + timedelta(days=1), reverse=True):
            if time < since:
                return
            if time < moment and expected:
                yield time

    def after(self, moment: datetime) -> datetime | None:
        """Return the first time after a moment; None when there is none."""
        times = self._times(moment - timedelta(days=1))
        return next((time for time, expected in times if time > moment and expected), None)

    def _times(self, start: datetime, *, reverse: bool = False) -> Iterator[tuple[datetime, bool]]:
        """Yield the times of the five fields, and whether each is one at which a run is expected."""
        local = start.astimezone(self.zone).replace(tzinfo=None)
        walls = CronSim(self.fields, local, reverse=reverse)
        for _ in range(MOST_STEPS):
            wall = next(walls, None)
            if wall is None or not FIRST_YEAR <= wall.year <= LAST_YEAR:
                return
            time = wall.replace(tzinfo=self.zone).astimezone(UTC)
            exists = time.astimezone(self.zone).replace(tzinfo=None) == wall
            fits = self.fits(wall.date())
            yield time, exists and fits
            if not fits:  # nor does any other time of the day
                edge = (
                    wall.replace(hour=0, minute=0) if reverse else wall.replace(hour=23, minute=59)
                )
                walls = CronSim(self.fields, edge, reverse=reverse)


@dataclass(frozen=True, slots=True)
class Rate:
    """Times at equal distances, from one that is known on."""

    every: timedelta
    anchor: datetime

    def back(self, moment: datetime, since: datetime) -> Iterator[datetime]:
        """Yield the times before a moment and not before `since`, the latest first."""
        time = self.anchor + (moment - self.anchor) // self.every * self.every
        if time == moment:
            time -= self.every
        while time >= since:
            yield time
            time -= self.every

    def after(self, moment: datetime) -> datetime:
        """Return the first time after a moment."""
        return self.anchor + ((moment - self.anchor) // self.every + 1) * self.every


@dataclass(frozen=True, slots=True)
class Once:
    """One time."""

    time: datetime

    def back(self, moment: datetime, since: datetime) -> Iterator[datetime]:
        """Yield it, if it was before a moment and not before `since`."""
        return iter([self.time] if since <= self.time < moment else [])

    def after(self, moment: datetime) -> datetime | None:
        """Return it, if it is to come."""
        return self.time if self.time > moment else None


Times = Cron | Rate | Once


def times_of(schedule: Schedule, anchor: datetime) -> Times | Invalid:
    """Return when runs are due.

    `anchor` is a time at which a run was due: only from one can the times of a rate be told.
    """
    try:
        zone = ZoneInfo(schedule.timezone or "UTC")
    except (ValueError, OSError, KeyError):
        return Invalid(f"no time zone is called {printable(schedule.timezone)[:100]!r}")
    text = " ".join(schedule.expression.split())
    try:
        return _parse(text, zone, anchor)
    except (ValueError, CronSimError, OverflowError) as error:
        return Invalid(f"the schedule {printable(text)[:100]!r} cannot be read: {error}")


def between(times: Times, since: datetime, until: datetime, most: int = MOST) -> list[datetime]:
    """Return the times from `since` to before `until`, oldest first; of more than `most`, the latest."""
    return [*islice(times.back(until, since), most)][::-1]


def _parse(text: str, zone: ZoneInfo, anchor: datetime) -> Times:
    call = _CALL.fullmatch(text)
    if call is None:
        return _cron(text.split(), zone)
    kind, inner = call[1], call[2].strip()
    if kind == "cron":
        return _event_cron(inner.upper().split(), zone)
    if kind == "rate":
        rate = _RATE.fullmatch(inner)
        if rate is None:
            raise ValueError("a rate is a number and minutes, hours or days")
        every = int(rate[1]) * _UNITS[rate[2]]
        if every > timedelta(days=MOST_DAYS):
            raise ValueError(f"a rate is {MOST_DAYS} days at most")
        return Rate(every, anchor)
    if _AT.fullmatch(inner) is None:
        raise ValueError("a time is YYYY-MM-DDThh:mm:ss")
    once = datetime.fromisoformat(inner)
    if not FIRST_YEAR <= once.year <= LAST_YEAR:
        raise ValueError(f"a year is {FIRST_YEAR} to {LAST_YEAR}")
    return Once(once.replace(tzinfo=zone).astimezone(UTC))


def _cron(fields: list[str], zone: ZoneInfo, *fits: Callable[[date], bool]) -> Cron:
    if len(fields) != _FIVE:
        raise ValueError(f"cron has five fields, and not {len(fields)}")
    cron = Cron(" ".join(fields), zone, lambda day: all(fit(day) for fit in fits))
    CronSim(cron.fields, datetime(2020, 1, 1))  # noqa: DTZ001 -- the wall clock, as everywhere here
    return cron


def _event_cron(fields: list[str], zone: ZoneInfo) -> Cron:
    """Return the times of EventBridge's cron: with a year, `?` for any, Sunday as 1, `W` for a working day."""
    if len(fields) != _SIX:
        raise ValueError(f"cron(...) has six fields, and not {len(fields)}")
    minute, hour, day, month, weekday, year = ("*" if one == "?" else one for one in fields)
    fits = [_years(year)]
    nearest = _NEAREST.fullmatch(day)
    if nearest:
        day, number = "*", int(nearest[1])
        fits.append(lambda one: one == _nearest_working_day(one, number))
    weekdays = ",".join(_weekday(part) for part in weekday.split(","))
    return _cron([minute, hour, day, month, weekdays], zone, *fits)


def _weekday(text: str) -> str:
    """Return a part of the field of weekdays as cron counts them: Sunday is 0 there, and Saturday the last."""
    if text == "L":
        return "6"
    term, sign, rest = re.fullmatch(r"([^#/L]*)([#/L]?)(.*)", text).groups()  # type: ignore[union-attr]
    return re.sub(r"[0-9]+", _one_less, term) + sign + rest


def _one_less(match: re.Match[str]) -> str:
    number = int(match.group())
    if not 1 <= number <= _SUNDAY:
        raise ValueError("a day of the week is 1 to 7, or its name")
    return str(number - 1)


def _years(text: str) -> Callable[[date], bool]:
    parts = [_YEAR.fullmatch(part) for part in text.split(",")]
    known = [match for match in parts if match is not None]
    if len(known) < len(parts):
        raise ValueError(f"a year is {FIRST_YEAR} to {LAST_YEAR}")
    spans = [
        range(
            int(one[1] or FIRST_YEAR),
            int(one[2] or (LAST_YEAR if one[3] or not one[1] else one[1])) + 1,
        )[:: int(one[3] or one[4] or 1)]
        for one in known
    ]
    return lambda day: any(day.year in span for span in spans)


def _nearest_working_day(day: date, number: int) -> date | None:
    """Return the working day that is nearest to the day `number` of a month, and in that month."""
    try:
        wanted = day.replace(day=number)
    except ValueError:
        return None
    last = (wanted.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    if wanted.weekday() == 5:  # noqa: PLR2004 -- Saturday
        return wanted + timedelta(days=2 if number == 1 else -1)
    if wanted.weekday() == 6:  # noqa: PLR2004 -- Sunday
        return wanted + timedelta(days=-2 if wanted == last else 1)
    return wanted
