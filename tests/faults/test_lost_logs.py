"""A run that is gone with its disk can be read up to a minute before its end, and what had ended has come home.

`MAYFLY_LOST_LOGS=20` for the whole; by default two machines are killed.
"""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bucket.sound import Broken
from tests.consumer.pulling import pull_into
from tests.faults.figures import Figures
from tests.faults.scenario import Scenario

KILLS = int(os.environ.get("MAYFLY_LOST_LOGS", "2"))
LONG = 20
SHORTEST, LONGEST = 75.0, 135.0
"""Seconds from a run's start to its machine's end: more than one part of the log has left, and not all of it."""


def _lost(folder: Path, seed: int) -> Scenario:
    """Kill a run that says something every second, and wipe its disk."""
    scenario = Scenario.make(folder, f"lost {seed}", None, early=LONGEST * 2)
    scenario.release()
    with scenario.bench.running() as process:
        time.sleep(random.Random(seed).uniform(SHORTEST, LONGEST))
        process.send_signal(signal.SIGKILL)
        process.wait()
        scenario.wipe()
    return scenario


def _not_at_home(scenario: Scenario) -> set[tuple[str, str]]:
    """Pull, and return the jobs that had ended long before, and did not come."""
    home = scenario.bench.folder / "home"
    assert pull_into(home, scenario.bench.bucket).code in {0, 3}
    return {(run, job) for run, job in scenario.wiped.due if not (home / job / run).is_dir()}


@pytest.mark.timeout(3600)
@pytest.mark.long
def test_the_log_of_a_run_that_is_lost(tmp_path: Path) -> None:
    """Line by line as it was written, but for the last minute; and jobs that had ended are at home."""
    with ThreadPoolExecutor(min(KILLS, 5)) as pool:
        done = list(pool.map(lambda seed: _lost(tmp_path / str(seed), seed), range(1, KILLS + 1)))
    figures = Figures(
        point="1e",
        title="Runs that are gone with their disk after one to two minutes",
        command=f"MAYFLY_LOST_LOGS={KILLS} pytest tests/faults/test_lost_logs.py -s",
        columns=(
            *("machines", "lines of logs read", "lines older than a minute that are lacking"),
            *("jobs that had ended", "of these not at home", "other faults"),
        ),
        seed=1,
        long=KILLS >= LONG,
    )
    broken = sum((scenario.examine() for scenario in done), Broken())
    wiped = [scenario.wiped for scenario in done]
    missing = [job for scenario in done for job in _not_at_home(scenario)]
    rest = broken.lost + broken.twice + broken.wrong + broken.vanished
    figures.row(
        KILLS,
        sum(one.read for one in wiped),
        sum(one.unreadable for one in wiped),
        sum(len(one.due) for one in wiped),
        len(missing),
        rest,
    )
    figures.write()
    assert sum(one.unreadable for one in wiped) == 0
    assert missing == []
    assert broken == Broken()
    assert all(one.due for one in wiped)
    assert all(scenario.finished for scenario in done)
