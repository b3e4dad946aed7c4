"""Groups of shards as people and Prometheus see them: `mayfly status`, the history, the metrics."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.core.ids import run_id
from agent.core.results import JobCause, JobResult, JobStatus
from agent.core.shards import Shard
from consumer.answers import Rules, facts_of
from consumer.archive.follow import look
from consumer.archive.intake import MAX_JOBS
from consumer.archive.reader import Reader
from consumer.archive.recall import recall
from consumer.archive.writer import Writer
from consumer.cli.status import status
from consumer.facts.groups import GroupState
from consumer.history import recent
from tests.bucket.bucket import Bucket
from tests.bucket.leaving import leave_begun, leave_run
from tests.consumer.pulling import pull_into
from tests.consumer.serving import serving
from tests.consumer.test_cli import ask
from tests.run.bench import Bench

NOW = datetime.now(UTC).replace(microsecond=0)


def run_at(hours: float, number: int) -> str:
    """A run that began so many hours ago."""
    return run_id(NOW - timedelta(hours=hours), bytes([number, 7, 7]))


def job(name: str, status_: str = "succeeded", cause: JobCause | None = None) -> JobResult:
    """A job of a shard; one that succeeded left two files."""
    good = status_ == "succeeded"
    return JobResult(
        name=name, status=JobStatus(status_), cause=cause, files=2 * good, bytes=20 * good
    )


def leave_shard(
    bucket: Bucket,
    hours: float,
    part: Shard,
    jobs: Sequence[JobResult],
    *,
    interrupted: bool = False,
) -> str:
    """Leave a committed shard that began so many hours ago."""
    run = run_at(hours, part.shard)
    leave_run(bucket, run, files={}, jobs=jobs, part=part, interrupted=interrupted)
    return run


def leave_groups(bucket: Bucket) -> None:
    """Leave a whole group of yesterday, and one of today of which a shard was interrupted and one never came."""
    for number in range(2):
        leave_shard(bucket, 26, Shard("sunday", number, 2), [job(f"shop-{number}")])
    leave_shard(bucket, 5, Shard("monday", 0, 3), [job("shop-a"), job("report")])
    bad = [job("shop-b"), job("shop-c", "interrupted", JobCause.INTERRUPTED)]
    leave_shard(bucket, 5, Shard("monday", 1, 3), bad, interrupted=True)


def groups_in(output: str) -> list[dict[str, Any]]:
    """The groups of a `mayfly status --json`."""
    document: dict[str, Any] = json.loads(output)
    return [
        {name: one[name] for name in ("group", "state", "committed", "missing")}
        for one in document["groups"]
    ]


async def home_of(bucket: Bucket, path: Path) -> Reader:
    """A history that has read a bucket."""
    reader = bucket.reader()
    writer = Writer(path, reader.name)
    await look(reader, writer, NOW)
    writer.close()
    return Reader(path)


def test_status_shows_groups(folder: Bucket) -> None:
    """The newest comes first, with what is missing counted as `--shard` counts it."""
    leave_groups(folder)
    output = ask(status, environ=folder.environ).output
    lines = [line for line in output.splitlines() if line.startswith("group ")]
    assert lines == [
        "group monday: late, 1 of 3 shards committed; missing 2, 3",
        "group sunday: complete, 2 of 2 shards committed",
    ]
    leave_begun(folder, run_at(0.5, 2), part=Shard("monday", 2, 3))
    output = ask(status, environ=folder.environ).output
    assert "group monday: incomplete, 1 of 3 shards committed, 1 running, late after " in output
    assert groups_in(ask(status, "--json", environ=folder.environ).output)[0] == {
        "group": "monday",
        "state": "incomplete",
        "committed": 1,
        "missing": [1, 2],
    }


def test_status_judges_no_group_of_which_it_saw_a_part(folder: Bucket) -> None:
    """With fewer runs than there are, what is missing may be among the others."""
    leave_groups(folder)
    few = ask(status, "-n", "2", environ=folder.environ).output
    assert "group monday: not all runs looked at, 1 of 3 shards committed (-n looks at more)" in few
    (monday,) = groups_in(ask(status, "-n", "2", "--json", environ=folder.environ).output)
    assert monday["state"] is None


def test_status_without_groups_is_as_it_was(folder: Bucket) -> None:
    """Whoever has one machine hears nothing of groups."""
    leave_run(folder, run_at(3, 0))
    output = ask(status, environ=folder.environ).output
    assert not [line for line in output.splitlines() if line.startswith("group")]


async def test_the_history_knows_groups(bucket: Bucket, tmp_path: Path) -> None:
    """Group, shard and shards of runs and markers are the same from the history as from the bucket."""
    leave_groups(bucket)
    leave_begun(bucket, run_at(0.5, 2), part=Shard("monday", 2, 3))
    reader = await home_of(bucket, tmp_path / "history.sqlite")
    there = await recent(bucket.reader(), now=NOW, limit=10)
    assert recall(reader, NOW, 10) == there
    facts = facts_of(reader.past(), Rules(), NOW.timestamp())
    assert [(one.name, one.state) for one in facts.groups] == [
        ("sunday", GroupState.COMPLETE),
        ("monday", GroupState.INCOMPLETE),
    ]
    report, shop = facts.families
    assert (report.name, report.jobs, shop.name, shop.jobs, shop.succeeded) == (
        "report",
        1,
        "shop",
        3,
        2,
    )
    assert shop.failures == {JobCause.INTERRUPTED: 1}
    output = ask(status, "--json", "--history", str(tmp_path / "history.sqlite")).output
    assert groups_in(output)[0]["state"] == "incomplete"


async def test_forged_shards_are_refused(folder: Bucket, tmp_path: Path) -> None:
    """An entry and a marker that say what no agent says are counted, and are no groups."""
    leave_shard(folder, 5, Shard("monday", 3, 3), [job("shop-a")])
    leave_begun(folder, run_at(0.5, 2), part=Shard("\x1b[2J", 0, 1))
    reader = await home_of(folder, tmp_path / "history.sqlite")
    assert [row.problem for row in reader.refused(5)] == ["its shard is impossible"] * 2
    assert facts_of(reader.past(), Rules(), NOW.timestamp()).groups == ()


async def test_forged_kinds_are_refused(folder: Bucket, tmp_path: Path) -> None:
    """A kind is the name of a job: a label that no job can have is none, and an empty one says nothing."""
    forged = job("shop-a").model_copy(update={"family": "\x1b[2J"})
    leave_shard(folder, 5, Shard("monday", 0, 2), [forged])
    silent = [job(name).model_copy(update={"family": ""}) for name in ("shop-a", "shop-b")]
    leave_shard(folder, 5, Shard("monday", 1, 2), silent)
    reader = await home_of(folder, tmp_path / "history.sqlite")
    assert [row.problem for row in reader.refused(5)] == ["it lists a job with an impossible name"]
    facts = facts_of(reader.past(), Rules(), NOW.timestamp())
    assert [(kind.name, kind.jobs) for kind in facts.families] == [("shop", 2)]


def test_a_forged_group_writes_nothing_on_the_terminal(folder: Bucket) -> None:
    """Its name is no group's, and no byte of it is shown."""
    leave_begun(folder, run_at(0.5, 2), part=Shard("\x1b[2J", 0, 1))
    assert "\x1b" not in ask(status, environ=folder.environ).output


async def test_a_shard_of_a_million_values_is_credible(folder: Bucket, tmp_path: Path) -> None:
    """A thousand and some jobs in one run, as a thousand shards of a million values have, are all known."""
    many = [job(f"shop-{number}") for number in range(1100)]
    assert len(many) < MAX_JOBS
    leave_shard(folder, 5, Shard("monday", 0, 1000), many)
    reader = await home_of(folder, tmp_path / "history.sqlite")
    facts = facts_of(reader.past(), Rules(), NOW.timestamp())
    (shop,) = facts.families
    assert (shop.name, shop.jobs, shop.files) == ("shop", 1100, 2200)


def test_metrics_are_of_the_newest_group(bucket: Bucket, tmp_path: Path) -> None:
    """Its name is in one series; jobs are summed up by kind; the last shard makes it complete."""
    leave_groups(bucket)
    with serving(tmp_path / "home", bucket.environ) as service:
        found = service.metrics()
        assert found['mayfly_group_info{group="monday"}'] == 1
        assert found["mayfly_group_shards_expected"] == 3
        assert found["mayfly_group_shards_committed"] == 1
        assert (found["mayfly_group_late"], found["mayfly_group_complete"]) == (1, 0)
        assert found["mayfly_groups_late"] == 1
        assert found['mayfly_group_jobs{family="shop"}'] == 3
        assert found['mayfly_group_files{family="shop"}'] == 4
        assert found['mayfly_group_job_failures{cause="interrupted",family="shop"}'] == 1
        assert found['mayfly_group_bytes{family="report"}'] == 20
        leave_shard(bucket, 1, Shard("monday", 1, 3), [job("shop-c"), job("shop-b", "skipped")])
        leave_shard(bucket, 1, Shard("monday", 2, 3), [job("shop-d")])
        service.looked()
        found = service.metrics()
    assert (found["mayfly_group_late"], found["mayfly_group_complete"]) == (0, 1)
    assert found["mayfly_groups_late"] == 0
    assert found['mayfly_group_jobs_succeeded{family="shop"}'] == 4
    assert found['mayfly_group_job_failures{cause="interrupted",family="shop"}'] == 0
    assert not [name for name in found if "sunday" in name]


@pytest.mark.parametrize(("limit", "late"), [("1h", 1), ("10h", 0)])
def test_a_limit_may_be_said(folder: Bucket, tmp_path: Path, limit: str, late: int) -> None:
    """`--group-limit` counts from the begin of a group."""
    leave_groups(folder)
    with serving(tmp_path / "home", folder.environ, "--group-limit", limit) as service:
        assert service.metrics()["mayfly_group_late"] == late


def test_without_groups_there_are_no_such_series(folder: Bucket, tmp_path: Path) -> None:
    """What is unknown is absent, not zero."""
    leave_run(folder, run_at(3, 0))
    with serving(tmp_path / "home", folder.environ) as service:
        assert not [name for name in service.metrics() if "group" in name]


def test_shards_of_the_real_agent_are_a_group(tmp_path: Path) -> None:
    """From a matrix in a jobs.toml to one family of a complete group, which a pull waits for."""
    bench = Bench.make(tmp_path)
    bench.release(
        "v1.0.0",
        """
        [[job]]
        name = "shop"
        command = ["sh", "-c", "echo $MAYFLY_MATRIX_CITY > $MAYFLY_OUTPUT_DIR/city"]
        matrix = { city = ["akasaka", "umeda", "tenjin", "Ginza"] }
        [[job]]
        name = "shop-list"
        command = ["sh", "-c", "echo all > $MAYFLY_OUTPUT_DIR/list"]
        """,
    )
    bucket, dest = Bucket.in_folder(tmp_path / "bucket"), tmp_path / "dest"
    assert bench.run("--shard", "1/2", "--group", "monday").code == 0
    assert pull_into(dest, bucket, "--complete-groups").document["placed"] == []
    assert bench.run("--shard", "2/2", "--group", "monday").code == 0
    names = {row["job"] for row in pull_into(dest, bucket, "--complete-groups").document["placed"]}
    assert len(names) == 5
    with serving(tmp_path / "home", bucket.environ) as service:
        found = service.metrics()
    assert found["mayfly_group_complete"] == 1
    assert found['mayfly_group_jobs{family="shop-list"}'] == 1
    assert found['mayfly_group_jobs_succeeded{family="shop"}'] == 4
    assert found['mayfly_group_files{family="shop"}'] == 4
