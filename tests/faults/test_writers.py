"""Two agents on one state directory, and two that hold copies of one spool: one does the work, the other says why not.

`MAYFLY_RACES=20` for the long form.
"""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bucket.sound import Broken
from tests.faults.figures import Figures
from tests.faults.scenario import Scenario
from tests.parts.seaweed import S3Server
from tests.run.bench import Ran, finish

RACES = int(os.environ.get("MAYFLY_RACES", "0"))
LONG = 20
"""Races of which the figures are kept."""
LONG_SECONDS = 3600
MOMENTS = {
    "a job's end is noted": "agent.delivery.spool:SpooledRun.end:leave",
    "a package is sealed": "agent.delivery.spool:SpooledRun.seal:leave",
    "the manifest is sealed": "agent.delivery.delivery:Delivery._seal_manifest:leave",
}
KINDS = [(store, moment) for store in ("folder", "S3") for moment in MOMENTS]
"""Where the bucket is, and how far the run was when its spool was copied."""


def _at_once(one: Scenario, other: Scenario) -> tuple[Ran, Ran]:
    """Start a run on each of two computers, which may be the same, at the same moment."""
    gate = threading.Barrier(2)

    def run(scenario: Scenario) -> Ran:
        gate.wait(30)
        with scenario.bench.running() as process:
            return finish(process)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, (one, other))
    return first, second


def _beside(scenario: Scenario) -> Scenario:
    """Return a view of the same computer whose runs keep their stderr elsewhere."""
    folder = scenario.bench.folder / "beside"
    folder.mkdir(exist_ok=True)
    view = replace(scenario.bench, folder=folder)
    view.settings = {**view.settings, "paths.state": str(scenario.bench.state)}
    return replace(scenario, bench=view)


def _figures(point: str, title: str, *columns: str) -> Figures:
    return Figures(
        point=point,
        title=title,
        command=f"MAYFLY_RACES={RACES} pytest tests/faults/test_writers.py -s",
        columns=columns,
        long=RACES >= LONG,
    )


@pytest.mark.timeout(LONG_SECONDS)
@pytest.mark.long
def test_one_state_directory_has_one_agent_at_a_time(tmp_path: Path) -> None:
    """The second ends at once with exit code 2 and a remedy, and disturbs nothing."""
    scenario = Scenario.make(tmp_path / "computer", "agents", None, early=3.0)
    races = RACES or 2
    refused = 0
    for _ in range(races):
        scenario.release()
        rans = _at_once(scenario, _beside(scenario))
        codes = sorted(ran.code for ran in rans)
        assert codes in ([0, 2], [2, 3]), [ran.stderr[-1500:] for ran in rans]
        second = next(ran for ran in rans if ran.code == 2)
        assert "another run (process" in second.stderr
        assert "state directory of its own" in second.stderr
        refused += 1
    assert scenario.bench.spool == []
    assert scenario.examine() == Broken()
    figures = _figures(
        "7", "Two agents on one state directory", "races", "refused clearly", "lost or twice"
    )
    figures.row(races, refused, 0)
    figures.write()


def _copy(scenario: Scenario, folder: Path) -> Scenario:
    """Return a computer with a copy of another's state directory."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    copied = replace(scenario.bench, folder=folder)
    shutil.copytree(scenario.bench.state, copied.state, symlinks=True)
    copied.environ = {**copied.environ}
    return replace(scenario, bench=copied)


@pytest.mark.timeout(LONG_SECONDS)
@pytest.mark.long
def test_two_writers_of_one_run_say_the_same(tmp_path: Path, s3_server: S3Server) -> None:
    """A state directory is copied with a run in it, and both computers finish it: what each puts is the same."""
    columns = ("bucket, copied when", "races", "jobs or runs committed twice", "other faults")
    figures = _figures("7b", "Two computers with a copy of one spool", *columns)
    for number, (store, moment) in enumerate(KINDS if RACES else KINDS[1::3]):
        server = None if store == "folder" else s3_server
        scenario = Scenario.make(tmp_path / str(number), f"writers {number}", server)
        races = RACES or 1
        for _ in range(races):
            _copied_and_raced(scenario, MOMENTS[moment])
        broken = scenario.examine()
        rest = broken.lost + broken.wrong + broken.vanished
        figures.row(f"{store}, {moment}", races, broken.twice, rest)
        assert broken == Broken(), (store, moment)
    figures.write()


def _copied_and_raced(scenario: Scenario, where: str) -> None:
    """Kill a run, copy the computer, let both finish it at once."""
    scenario.release()
    assert scenario.crashing(where, 1)
    copy = _copy(scenario, scenario.bench.folder / "copy")
    rans = _at_once(scenario, copy)
    assert {ran.code for ran in rans} <= {0, 3}, [ran.stderr[-1500:] for ran in rans]
    for each in (scenario, copy):
        assert each.converge() <= 2
        assert not any((each.bench.state / "spool").glob("broken/*"))
