"""Real processes race for batches, in a real store's own time: of those that begin at once one works."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from agent.batch.fold import State, fold
from agent.batch.log import LogReader
from agent.contract.results import RunStatus
from tests.batch.claim_batches import AT_ONCE, ROUND_SECONDS, open_bucket, purpose_of
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Delay, Fault
from tests.parts.seaweed import S3Server

START_SECONDS = 6.0
"""Until the processes have started, on a machine that has other things to do."""
Answers = dict[int, list[dict[str, Any]]]


def race(
    server: S3Server,
    bucket: str,
    endpoints: list[str],
    *,
    races: int,
    spread: float = 0.05,
    twins: Path | None = None,
) -> tuple[dict[str, Any], Answers]:
    """Let one process for each endpoint claim the same batches; return the race, and the answers by batch.

    Where two of them are `twins`, they wait for each other in that folder before they end.
    """
    common: dict[str, Any] = {
        "url": f"s3://{bucket}/prod",
        "races": races,
        "seed": uuid.uuid4().hex[:8],
        "spread": spread,
        "shards": twins is not None,
        "folder": str(twins),
        "begin": time.time() + START_SECONDS,
    }
    print(common)
    runners = []
    for number, endpoint in enumerate(endpoints):
        own = json.dumps({**common, "endpoint": endpoint, "runner": f"host-{number}"})
        command = [sys.executable, "-m", "tests.batch.claim_batches", own]
        environ = {**os.environ, **server.environ}
        runners.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True))
    rounds = 1 + races // AT_ONCE
    answers: Answers = defaultdict(list)
    for runner in runners:
        stdout, _ = runner.communicate(timeout=120 + rounds * 3 * (ROUND_SECONDS + spread))
        assert runner.returncode == 0
        for line in stdout.splitlines():
            answer = json.loads(line)
            answers[answer["number"]].append(answer)
    assert len(answers) == races
    return {**common, "endpoint": server.url}, answers


async def logs_of(server: S3Server, race: dict[str, Any]) -> list[State]:
    """Return what the log of each batch says when all is over."""
    bucket = open_bucket(race, server.environ)
    states = []
    for number in range(race["races"]):
        batch = purpose_of(number, shards=race["shards"]).batch("")
        states.append(fold(batch, await LogReader(bucket, batch).look()))
    return states


async def assert_one_works(
    server: S3Server, race: dict[str, Any], answers: Answers, claimants: int
) -> None:
    """Of each batch's claimants one works, and the log says of every other that it stood back."""
    for said in answers.values():
        assert len(said) == claimants, said
        assert [one["works"] for one in said].count(True) == 1, said
        assert not any(one["warning"] for one in said), said
    for state in await logs_of(server, race):
        assert Counter(run.status(run.first) for run in state.runs.values()) == {
            RunStatus.SUCCEEDED: 1,
            RunStatus.STOOD_BACK: claimants - 1,
        }
        assert state.done_by is not None
        assert state.successes["x"].run == state.done_by.id


@pytest.mark.long
async def test_of_three_processes_one_works(s3_server: S3Server, s3_bucket: str) -> None:
    """In two hundred races, however close: no condition of the store decides."""
    ran, answers = race(s3_server, s3_bucket, [s3_server.url] * 3, races=200)
    await assert_one_works(s3_server, ran, answers, 3)


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("PUT", "/batches/", Delay(4)),
        ("PUT", "", Delay(4)),
        ("GET", "list-type=2", Delay(3)),
        ("GET", "", Delay(3)),
    ],
    ids=["late entries", "late puts", "late listings", "late looks"],
)
@pytest.mark.long
async def test_a_claimant_whose_requests_are_late(
    s3_server: S3Server, s3_bucket: str, method: str, path: str, fault: Fault
) -> None:
    """Seconds between a machine and the store change nothing: two hundred races in all."""
    with FaultProxy(s3_server) as slow:
        slow.inject(fault, method=method, path=path)
        ends = [s3_server.url, slow.url]
        ran, answers = race(s3_server, s3_bucket, ends, races=50, spread=3.0)
        assert slow.met > 0
    await assert_one_works(s3_server, ran, answers, 2)


async def test_a_job_of_two_twins_counts_once(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    """A shard that an engine has started twice: both work, nobody waits, and all readers name the same success."""
    ran, answers = race(s3_server, s3_bucket, [s3_server.url] * 2, races=10, twins=tmp_path)
    assert all(one["works"] for said in answers.values() for one in said)
    for state, again in zip(
        await logs_of(s3_server, ran), await logs_of(s3_server, ran), strict=True
    ):
        results = [run.results["x"] for run in state.runs.values()]
        counted = state.successes["x"]
        assert counted.at == min(one.at for one in results)
        assert again.successes["x"] == counted
