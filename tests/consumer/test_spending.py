"""What a month costs: what runs say, and what those cost that never said it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from agent.contract.entries import Entry, StoodBack
from agent.contract.ids import Batch as Id
from consumer.spending import month_costs, month_of
from tests.consumer.nights import TOKYO, attempt, history, tokyo

NOW = tokyo("21 12:00")
MONTH = month_of(NOW, TOKYO)


def test_a_month_is_that_of_its_zone() -> None:
    """From its first moment to that of the next."""
    assert (MONTH.begin, MONTH.end) == (tokyo("01 00:00"), tokyo("30 00:00") + timedelta(days=1))
    assert month_of(MONTH.begin, TOKYO) == MONTH
    assert month_of(tokyo("01 00:00") - timedelta(seconds=1), TOKYO).end == MONTH.begin
    assert MONTH.part(MONTH.begin + timedelta(days=15)) == 0.5


def test_the_sum_of_runs_and_what_is_billed_all_month() -> None:
    """A dollar an hour; the next days cost as the last ones did, and a month that is over is its sum."""
    runs = [attempt(f"{day:02d} 02:00", minutes=60, standing=3.0) for day in range(12, 22)]
    said = month_costs(history(NOW, *runs), MONTH, NOW)
    assert (said.runs_usd, said.estimated_usd, said.unknown) == (10.0, 0.0, 0)
    assert said.standing_usd == pytest.approx(3.0 * 20.5 / 30)
    days = 9 + 10 / 24
    assert said.forecast_usd == pytest.approx(10 + 3 + 10 / days * 9.5)
    later = MONTH.end + timedelta(days=19)
    said = month_costs(history(later, *runs), MONTH, later)
    assert said.forecast_usd == said.so_far_usd == 13.0


def test_a_run_that_never_said_it_is_estimated_until_its_deadline() -> None:
    """By the rate of the run before: one that is under way, and one that was lost."""
    runs = [
        attempt("19 02:00", minutes=60),
        attempt("20 02:00", minutes=None),
        attempt("21 11:30", minutes=None),
    ]
    said = month_costs(history(NOW, *runs), MONTH, NOW)
    assert [one.usd for one in said.runs] == pytest.approx([1.0, 2.0, 0.5])
    assert [one.estimated for one in said.runs] == [False, True, True]
    assert said.estimated_usd == pytest.approx(2.5)


def test_what_nobody_can_tell_is_counted() -> None:
    """A first run that was lost has no rate; who stood back costs nothing that is known."""
    said = month_costs(history(NOW, attempt("20 02:00", minutes=None)), MONTH, NOW)
    assert (said.unknown, said.runs_usd, said.runs[0].usd) == (1, 0.0, None)
    assert said.forecast_usd == 0.0
    batch = Id.of_slot("main", tokyo("20 02:00"))
    works = attempt("20 02:00", batch=batch, minutes=60)
    stands = attempt("20 02:01", None, batch=batch, minutes=None)[0]
    assert isinstance(stands.entry, Entry)
    back = stands.entry.model_copy(update={"stood_back": StoodBack(reason="another works")})
    said = month_costs(history(NOW, works, [replace(stands, entry=back)]), MONTH, NOW)
    assert (len(said.runs), said.unknown, said.runs_usd) == (1, 0, 1.0)


def test_each_schedule_has_its_own_rate() -> None:
    """And its own machine that is billed all month."""
    runs = [
        attempt("19 02:00", minutes=60, standing=3.0),
        attempt("19 03:00", minutes=60, standing=2.0, name="test"),
        attempt("20 03:00", minutes=None, name="other"),
    ]
    said = month_costs(history(NOW, *runs), MONTH, NOW)
    assert said.unknown == 1
    assert said.standing_usd == pytest.approx(5.0 * 20.5 / 30)
    later = MONTH.end + timedelta(days=1)
    runs.append(attempt(later, minutes=60, standing=9.0))
    said = month_costs(history(later + timedelta(days=1), *runs), MONTH, later)
    assert said.standing_usd == pytest.approx(5.0)


def test_a_machine_that_no_run_told_of_for_long_is_not_there_any_more() -> None:
    """Of a schedule that was renamed, the cost by the month would be counted twice for a year."""
    old, monthly = NOW - timedelta(days=320), MONTH.begin - timedelta(days=30)
    runs = [
        attempt(old, minutes=1, standing=3.0, name="old"),
        attempt(monthly, minutes=1, standing=2.0, name="monthly"),
        attempt("20 02:00", minutes=1, standing=3.0, name="new"),
    ]
    said = month_costs(history(NOW, *runs), MONTH, NOW)
    assert said.standing_usd == pytest.approx(5.0 * 20.5 / 30)
    said = month_costs(history(NOW, *runs), MONTH, NOW, {"monthly"})
    assert said.standing_usd == pytest.approx(3.0 * 20.5 / 30)
    before = month_of(MONTH.begin - timedelta(days=40), TOKYO)
    runs.insert(1, attempt(before.begin, minutes=1, standing=2.0, name="monthly"))
    said = month_costs(history(NOW, *runs), before, NOW, {"monthly"})
    assert said.standing_usd == pytest.approx(2.0), "it was there"
