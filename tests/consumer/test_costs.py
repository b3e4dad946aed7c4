"""What a month costs: its runs, what is billed anyway, a forecast, and the machine that is never off."""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from agent.config.settings import Cost
from agent.core.ids import run_id
from agent.core.manifest import IndexEntry
from agent.machine.cost import Rate, Usage, run_cost
from consumer.costs import cost_lines, month_costs, month_of
from tests.bucket.bucket import Bucket, reference
from tests.bucket.leaving import entry_of, leave_run, record
from tests.parts.command import call

TOKYO = ZoneInfo("Asia/Tokyo")
NOVEMBER = month_of(2026, 11, TOKYO)
PRICES = Cost(always_on_month=45.0)


def entry(began: datetime, *, minutes: float = 30, priced: bool = True) -> IndexEntry:
    """A committed run of so many minutes on spot."""
    run = run_id(began, os.urandom(3))
    used = Usage("t3.medium", True, began, began + timedelta(minutes=minutes))
    cost = run_cost(used, Rate(0.0217, "spot-history", began), Cost()) if priced else None
    about = record(run).model_copy(update={"cost": cost})
    return IndexEntry.model_validate(entry_of(about, {}) | reference(run, b""))


def at(day: int, hour: int = 3) -> datetime:
    """A moment of November in Tokyo."""
    return datetime(2026, 11, day, hour, tzinfo=TOKYO)


def test_a_month_is_the_zones() -> None:
    """November begins at nine hours before midnight in UTC, and December follows it also over the year's end."""
    assert NOVEMBER.begin.astimezone(UTC) == datetime(2026, 10, 31, 15, tzinfo=UTC)
    assert NOVEMBER.seconds == 30 * 86400
    assert month_of(2026, 12, TOKYO).end == datetime(2027, 1, 1, tzinfo=TOKYO)


def test_half_a_month_of_daily_runs_is_forecast_to_its_end() -> None:
    """Fifteen runs cost fifteen times one; the forecast is twice that and a whole month of the image."""
    runs = [entry(at(day)) for day in range(1, 16)]
    one = runs[0].cost
    assert one is not None
    costs = month_costs(runs, NOVEMBER, at(16, 0), PRICES)
    # The first of them is still October's in UTC, by which a disk's month is counted.
    assert costs.runs_usd == pytest.approx(15 * one.total_usd, rel=0.01)
    assert costs.standing_usd == pytest.approx(0.15)
    assert costs.so_far_usd == pytest.approx(costs.runs_usd + 0.15)
    assert costs.forecast_usd == pytest.approx(30 * one.total_usd + 0.30, rel=0.01)
    assert costs.always_on_so_far_usd == pytest.approx(22.5)
    assert costs.always_on_usd == 45.0


def test_runs_of_other_months_do_not_count() -> None:
    """What began a second before the month, or at its end, is another month's."""
    runs = [entry(NOVEMBER.begin - timedelta(seconds=1)), entry(NOVEMBER.end), entry(at(5))]
    costs = month_costs(runs, NOVEMBER, at(6), PRICES)
    assert len(costs.runs) == 1


def test_a_month_that_is_over_costs_what_it_cost() -> None:
    """Nothing is extrapolated from it."""
    costs = month_costs([entry(at(30))], NOVEMBER, at(30) + timedelta(days=60), PRICES)
    assert costs.forecast_usd == pytest.approx(costs.so_far_usd)


def test_the_first_run_of_a_month_is_a_days_and_not_an_hours() -> None:
    """An hour after midnight one run is forecast as one a day."""
    costs = month_costs([entry(at(1, 0))], NOVEMBER, at(1, 1), PRICES)
    assert costs.forecast_usd == pytest.approx(31 * costs.runs_usd + 0.30, rel=0.02)


def test_runs_that_do_not_say_are_counted_and_not_guessed() -> None:
    """A run on a laptop, or of an older agent, has no price: the table shows that."""
    costs = month_costs([entry(at(1), priced=False), entry(at(2))], NOVEMBER, at(3), PRICES)
    assert (costs.unknown, len(costs.runs)) == (1, 2)
    text = "\n".join(cost_lines(costs, PRICES, TOKYO))
    assert "1 run of the month did not say" in text
    assert re.search(r"2026-11-01 03:00 +(- +){8}20261031T18", text)


def test_another_currency_is_shown_beside_dollars() -> None:
    """With an exchange rate in the configuration, each sum has both."""
    costs = month_costs([entry(at(1))], NOVEMBER, at(2), PRICES)
    lines = cost_lines(costs, Cost(currency="JPY", exchange=155, always_on_month=45), TOKYO)
    assert lines[-1].endswith("45.00 USD (6,975 JPY)")


@given(st.lists(st.tuples(st.integers(-5, 40), st.booleans()), max_size=20), st.integers(-3, 60))
def test_a_forecast_is_never_below_what_was_spent(days: list[tuple[int, bool]], today: int) -> None:
    """Whatever ran and whenever it is asked, sums are sums, and a forecast is no less than the past."""
    begin = NOVEMBER.begin
    runs = [entry(begin + timedelta(days=day, hours=1), priced=priced) for day, priced in days]
    costs = month_costs(runs, NOVEMBER, begin + timedelta(days=today), PRICES)
    assert costs.so_far_usd == pytest.approx(costs.runs_usd + costs.standing_usd)
    assert costs.forecast_usd >= costs.so_far_usd - 1e-9
    assert cost_lines(costs, PRICES, TOKYO)


def ask(folder: Path, *arguments: str) -> Result:
    """Call `mayfly cost` for a bucket in a folder."""
    environ = {"TZ": "Asia/Tokyo"}
    return call("cost", "--store", str(folder), *arguments, environ=environ)


def test_the_command_reads_a_bucket(tmp_path: Path) -> None:
    """A run with a price, one without and a forged one: the first two are shown, for people and as JSON."""
    folder = Bucket.in_folder(tmp_path / "bucket")
    priced = entry(at(2))
    folder.put_entry(priced.run_id, priced.model_dump_json().encode(), at=priced.finished)
    leave_run(folder, "20261122T064205Z-3f9a1c")
    forged = entry(at(4))
    text = forged.model_dump_json().replace(
        f'"total_usd":{forged.cost.total_usd if forged.cost else 0}', '"total_usd":-5'
    )
    folder.put_entry(forged.run_id, text.encode(), at=forged.finished)
    shown = ask(tmp_path / "bucket", "--month", "2026-11")
    assert shown.exit_code == 0, shown.output
    assert "November 2026" in shown.output
    assert priced.run_id in shown.output
    assert forged.run_id not in shown.output
    document = json.loads(ask(tmp_path / "bucket", "--month", "2026-11", "--json").output)
    assert [run["cost"] is None for run in document["runs"]] == [False, True]
    assert document["unknown_runs"] == 1
    assert document["always_on_usd"] == pytest.approx(45.282)
    assert json.loads(ask(tmp_path / "bucket", "--month", "2026-10", "--json").output)["runs"] == []


@pytest.mark.parametrize("month", ["2026", "2026-13", "26-11", "2026-11\n", "\u0662026-11"])
def test_what_is_no_month_is_a_usage_error(tmp_path: Path, month: str) -> None:
    """The message says how one is written."""
    done = ask(tmp_path, "--month", month)
    assert (done.exit_code, "2026-11" in done.output) == (2, True)


def test_an_empty_month_is_a_month(tmp_path: Path) -> None:
    """No runs is a table without rows, and no traceback."""
    (tmp_path / "bucket").mkdir()
    done = ask(tmp_path / "bucket")
    assert done.exit_code == 0


def test_an_index_key_with_an_impossible_date_costs_nothing(tmp_path: Path) -> None:
    """A month 99, in the key's stamp or in its run, is left out as everything forged is."""
    bucket = Bucket.in_folder(tmp_path / "bucket")
    leave_run(bucket, "20261122T064205Z-3f9a1c", files={})
    bucket.objects.put("index/20269922T064205.000Z-20269922T064205Z-3f9a1c.json", b"{}")
    bucket.objects.put("index/20261122T064205.000Z-20269922T064205Z-3f9a1d.json", b"{}")
    shown = ask(tmp_path / "bucket", "--month", "2026-11", "--json")
    assert shown.exit_code == 0, shown.exception
    assert len(json.loads(shown.output)["runs"]) == 1
