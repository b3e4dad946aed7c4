"""Two real processes race for slots: one winner each time, in a store with conditions, and in one that ignores them.

`MAYFLY_TEST_SEEDS=200` for two hundred races of each kind; a few are enough for every day.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from collections import defaultdict

import pytest

from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Delay, Fault, IgnoreConditions
from tests.parts.seaweed import S3Server

RACES = int(os.environ.get("MAYFLY_TEST_SEEDS", "10"))
SETTLE = 2.0
START_SECONDS = 6.0
"""Until both processes have started, on a machine that has other things to do."""


def race(
    server: S3Server,
    bucket: str,
    endpoints: list[str],
    *,
    conditional: bool,
    races: int = RACES,
    settle: float = SETTLE,
    spread: float = 0.05,
) -> dict[str, list[dict[str, str]]]:
    """Let one process for each endpoint claim the same slots; return the answers by slot."""
    slots = [f"20261122T{number:06d}Z" for number in range(races)]
    seed = uuid.uuid4().hex[:8]
    print(
        f"seed {seed}, {races} races, conditional={conditional}, settle={settle}, spread={spread}"
    )
    common = {"url": f"s3://{bucket}/prod", "slots": slots, "seed": seed, "settle": settle}
    common |= {"conditional": conditional, "spread": spread, "begin": time.time() + START_SECONDS}
    runners = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.run.claim_slots",
                json.dumps({**common, "endpoint": endpoint, "runner": f"host-{number}"}),
            ],
            env={**os.environ, **server.environ},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, endpoint in enumerate(endpoints)
    ]
    answers = defaultdict(list)
    for runner in runners:
        stdout, _ = runner.communicate(timeout=60 + races * (settle + 5))
        assert runner.returncode == 0
        for line in stdout.splitlines():
            answer = json.loads(line)
            answers[answer["slot"]].append(answer)
    assert len(answers) == races
    return answers


def assert_one_winner(answers: dict[str, list[dict[str, str]]], claimants: int) -> None:
    """Of each slot's claimants one works; each other names one: the winner, or one it saw that lost to it."""
    for slot, said in answers.items():
        assert len(said) == claimants, (slot, said)
        runs = [one["run"] for one in said]
        winners = [one["run"] for one in said if not one["why_not"]]
        assert len(winners) == 1, (slot, said)
        for one in said:
            reason = one["why_not"]
            assert not reason or any(run in reason for run in runs if run != one["run"]), said


@pytest.mark.long
def test_races_in_a_store_with_conditions(s3_server: S3Server, s3_bucket: str) -> None:
    """SeaweedFS refuses the second claim: one winner each time, without any wait."""
    answers = race(s3_server, s3_bucket, [s3_server.url] * 2, conditional=True, settle=0.0)
    assert_one_winner(answers, 2)


@pytest.mark.long
def test_races_in_a_store_that_ignores_conditions(
    s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy
) -> None:
    """Both claims are taken with 200: the store's own order decides, the same for both."""
    s3_proxy.inject(IgnoreConditions(), method="PUT")
    answers = race(s3_server, s3_bucket, [s3_proxy.url] * 2, conditional=False)
    assert_one_winner(answers, 2)


@pytest.mark.parametrize(
    ("method", "fault", "conditional"),
    [
        ("PUT", Delay(4), False),
        ("GET", Delay(3), False),
        ("PUT", Delay(4), True),
    ],
    ids=["late puts", "late looks", "late puts on condition"],
)
@pytest.mark.long
def test_a_claimant_whose_requests_are_late(
    s3_server: S3Server, s3_bucket: str, method: str, fault: Fault, *, conditional: bool
) -> None:
    """Seconds between a machine and the store, more than both wait for each other, change nothing."""
    with FaultProxy(s3_server) as slow:
        slow.inject(fault, method=method)
        answers = race(
            s3_server,
            s3_bucket,
            [s3_server.url, slow.url],
            conditional=conditional,
            races=5,
            spread=1.0,
        )
    assert_one_winner(answers, 2)


def test_five_at_once(s3_server: S3Server, s3_bucket: str) -> None:
    """However many machines a schedule starts."""
    answers = race(s3_server, s3_bucket, [s3_server.url] * 5, conditional=False, races=5)
    assert_one_winner(answers, 5)
