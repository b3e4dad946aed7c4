"""Runs for a slot: of two machines one works, the other goes off; one that comes back looks what is left to do."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.contract.facts import Host
from agent.contract.ids import Batch
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter
from tests.bucket.layout import RUNS
from tests.bucket.sound import all_sound
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import IgnoreConditions
from tests.parts.metadata import Metadata
from tests.parts.recorder import Recorder
from tests.run.bench import Bench, finish, job

SLOT = "2026-11-22T18:00:00Z"
BATCH = "main/20261122T180000Z"
JOB = job("only", ["sh", "job.sh"])
SLOW = "sleep 60\n"
SCRIPT = 'date | tee "$MAYFLY_OUTPUT_DIR/file" > "$MAYFLY_STATE_DIR/file"\n'


@pytest.fixture
def other(bench: Bench, tmp_path: Path) -> Bench:
    """A second computer: its own state directory, the same repository and bucket."""
    folder = tmp_path / "other"
    folder.mkdir()
    bench.release("v1.0", JOB, {"job.sh": SCRIPT})
    return Bench(folder, bench.repo, bench.store, bench.environ, bench.settings)


def test_of_two_machines_one_works_whatever_the_store_makes_of_conditions(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy, other: Bench
) -> None:
    """Nothing is conditional: the store's own time decides. Of the other run there is nothing but its word."""
    other.store = bench.store
    s3_proxy.inject(IgnoreConditions())
    with bench.running("--slot", SLOT) as one, other.running("--slot", SLOT) as two:
        ran = [finish(process, code=0) for process in (one, two)]
    idle, worked = sorted(ran, key=lambda each: str(each.outcome["status"]))
    assert (idle.outcome["status"], worked.outcome["status"]) == ("stood_back", "succeeded")
    assert worked.run_id in idle.outcome["stood_back"]
    assert idle.outcome["jobs"] == []
    assert all_sound(bucket_on_s3) == [worked.run_id]
    run, silent = bucket_on_s3.run(worked.run_id), bucket_on_s3.run(idle.run_id)
    assert (run.batch, run.began["slot"], run.record["slot"]) == (BATCH, SLOT, SLOT)
    assert silent.stood_back is not None
    assert (silent.batch, silent.stood_back["run"], silent.told) == (BATCH, worked.run_id, {})
    assert bucket_on_s3.objects.keys(f"{RUNS}{idle.run_id}/") == []
    assert bench.spool == other.spool == []
    assert s3_proxy.count("PUT") > 0
    assert not any("if-none-match" in one.headers for one in s3_proxy.seen)


def test_a_slot_that_is_done_is_not_done_again(
    bench: Bench, bucket: Bucket, recorder: Recorder
) -> None:
    """A machine that is started once more goes off, unheard by the watchdog; for another slot or schedule it works."""
    bench.release("v1.0", JOB, {"job.sh": "exit 3\n"})
    bench.settings["notify.healthchecks"] = f"{recorder.url}/ping"
    bench.run("--slot", SLOT, code=8)
    # A ping whose answer is late is sent again.
    heard = [request.path.partition("?")[0] for request in recorder.requests]
    assert list(dict.fromkeys(heard)) == ["/ping/start", "/ping/8"]
    again = bench.run("--slot", "2026-11-23T03:00:00+09:00", code=0)
    assert again.outcome["status"] == "stood_back"
    assert "has done it" in again.outcome["stood_back"]
    assert again.events("run.stood_back")
    assert not again.events("job.started")
    assert len(recorder.requests) == len(heard), "a start without an end would be an alarm"
    bench.run("--slot", "2026-11-23T18:00:00Z", code=8)
    bench.run(code=8)
    bench.run("--slot", SLOT, code=8, schedule__name="other")
    slots = [run.began.get("slot") for run in bucket.working]
    assert slots == [SLOT, "2026-11-23T18:00:00Z", None, SLOT]
    batches = [run.batch for run in bucket.working if run.began.get("slot") == SLOT]
    assert batches == [BATCH, "other/20261122T180000Z"]


def test_the_day_of_a_job_is_that_of_the_slot(bench: Bench) -> None:
    """A run for 23:50 that begins after midnight does what was due at 23:50."""
    slot = datetime.now(UTC) - timedelta(days=1)
    due, other = (f"{day:%a}".lower() for day in (slot, slot + timedelta(days=1)))
    days = {"due": due, "other": other}
    command = "echo 1 > $MAYFLY_OUTPUT_DIR/file"
    jobs = [job(name, command, on=day, env={"TZ": "UTC"}) for name, day in days.items()]
    bench.release("v1.0", "".join(jobs))
    ran = bench.run("--slot", slot.isoformat(timespec="seconds"), code=0)
    assert {one["name"]: one["status"] for one in ran.outcome["jobs"]} == {
        "due": "succeeded",
        "other": "skipped",
    }
    assert f"it runs on {other}, and the run is for {due} in UTC" in ran.job("other")["message"]


def test_a_run_for_a_job_that_is_not_there_is_unheard(bench: Bench, recorder: Recorder) -> None:
    """A misspelt name is its person's concern: a start without an end would alarm the watchdog."""
    bench.release("v1.0", JOB, {"job.sh": "true\n"})
    bench.settings["notify.healthchecks"] = f"{recorder.url}/ping"
    bench.run("--job", "typo", code=2)
    assert recorder.requests == []


@pytest.mark.long
def test_a_machine_that_died_takes_its_own_slot_over(
    bench: Bench, other: Bench, bucket: Bucket
) -> None:
    """It finishes what waits in its spool, and works again, because an interrupted run is no day's result."""
    bench.release("v1.1", JOB, {"job.sh": SLOW})
    with bench.running("--slot", SLOT):
        bench.log.wait_for("job.started")
    bench.release("v1.2", JOB, {"job.sh": SCRIPT})
    elsewhere = other.run("--slot", SLOT)
    assert "works for it" in elsewhere.outcome["stood_back"]
    ran = bench.run("--slot", SLOT, code=0)
    assert ran.outcome["status"] == "succeeded"
    all_sound(bucket)
    assert [run.status for run in bucket.working] == ["interrupted", "succeeded"]
    assert {run.batch for run in bucket.runs.values()} == {BATCH}
    assert "has done it" in other.run("--slot", SLOT).outcome["stood_back"]


@pytest.mark.long
def test_what_waits_is_delivered_before_the_machine_goes_off(
    bench: Bench, other: Bench, bucket: Bucket
) -> None:
    """The spool of a machine whose slot was done elsewhere meanwhile is emptied all the same."""
    bucket.root.write_text("no folder")
    lost = bench.run(code=6)
    bucket.root.unlink()
    other.run("--slot", SLOT, code=0)
    ran = bench.run("--slot", SLOT)
    assert ran.outcome["status"] == "stood_back"
    assert bench.spool == []
    assert lost.run_id in all_sound(bucket)


@pytest.mark.parametrize("slot", ["2026-11-22T18:00:00", "tomorrow", ""])
def test_a_slot_without_a_zone_is_refused(bench: Bench, slot: str) -> None:
    """It would be another moment on another machine."""
    ran = bench.run("--slot", slot, code=2)
    assert "no time with a zone" in ran.stderr


@pytest.fixture
def ec2(bench: Bench, ec2: Metadata, aws: dict[str, str]) -> Metadata:
    """The bench's computer is an EC2 machine, started now, for the slot."""
    ec2.tags["mayfly-slot"] = SLOT
    ec2.said["meta-data/public-ipv4"] = "192.0.2.1"
    bench.environ = aws | bench.environ
    bench.settings["cost.hourly"] = "0.05"
    bench.release("v1.0", JOB, {"job.sh": SCRIPT})
    return ec2


def consumer(bench: Bench, *arguments: str) -> Any:
    """Return what a command at home says of the bucket."""
    done = bench.at_home(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
def test_a_metadata_service_that_fails_costs_the_slot_and_no_run(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Jobs that run twice are better than a night without any; the manifest has the doubt, and no cost.

    What the machine was launched with is still said: without that nothing runs.
    """
    ec2.status, ec2.spared = 503, ("/latest/api/token", "/latest/user-data")
    record = bucket.run(bench.run("--slot", "tag", code=0).run_id).record
    assert (record["slot"], record["cost"], record["host"].get("zone")) == (None, None, None)
    assert any("for which slot the machine is" in warning for warning in record["warnings"])


def test_a_machine_of_ec2_says_what_it_is_and_what_it_cost(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Instance, type, zone, image, life cycle, slot are in the manifest; the cost is in the entry and at home."""
    ran = bench.run("--slot", "tag", code=0)
    record = bucket.run(ran.run_id).record
    facts = ("instance_id", "instance_type", "zone", "image", "life_cycle")
    assert [record["host"][fact] for fact in facts] == [
        "i-0123456789abcdef0",
        "t3.medium",
        "ap-northeast-3a",
        "ami-0123456789abcdef0",
        "spot",
    ]
    assert record["slot"] == SLOT
    cost, closed = record["cost"], bucket.run(ran.run_id).closed
    assert closed is not None
    assert cost == closed["cost"]
    assert 30 < cost["billed_seconds"] < 240
    assert cost["total_usd"] > 0
    began = bucket.run(ran.run_id).began
    assert (began["slot"], began["host"]["instance_id"]) == (SLOT, "i-0123456789abcdef0")
    month = consumer(bench, "cost")
    assert [run["run"] for run in month["runs"]] == [ran.run_id]
    assert bench.run("--slot", "tag").outcome["status"] == "stood_back"
    rows = consumer(bench, "status")
    assert len(rows["runs"] if isinstance(rows, dict) else rows) == 1


def test_a_run_s_start_does_not_wait_for_its_price(bench: Bench, ec2: Metadata) -> None:
    """What the machine costs is asked once the jobs run: EC2's client is more work than a job's start."""
    bench.environ["AWS_ENDPOINT_URL_EC2"] = "nonsense"
    # Longer than EC2's client takes to be made, and much shorter than what it is put off.
    bench.release("v1.1", JOB, {"job.sh": "sleep 1\n"})
    ran = bench.run("--slot", "tag")
    (ended,), (asked,) = ran.events("job.ended"), ran.events("cost.no_spot_price")
    assert ended["timestamp"] < asked["timestamp"]


def test_the_same_machine_booted_again_takes_its_claim_over(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Even where its disk is gone: the claim bears its id and another boot's."""
    for instance, status in (
        ("i-0fedcba9876543210", "stood_back"),
        ("i-0123456789abcdef0", "succeeded"),
    ):
        shutil.rmtree(bucket.root, ignore_errors=True)
        slot = Batch.of_slot("main", datetime.fromisoformat(SLOT))
        other = RunWriter(bucket.objects, datetime.now(UTC) - timedelta(minutes=1), slot)
        host = Host(name="x", instance_id=instance, boot_id="an earlier one")
        other.append(began=other.began(host=host))
        assert bench.run("--slot", "tag").outcome["status"] == status
        assert bucket.newest.batch == BATCH


def test_elsewhere_nothing_is_asked(bench: Bench, bucket: Bucket, ec2: Metadata) -> None:
    """A laptop with the unit's own command line has no tag, no slot and no cost, and asks nobody."""
    bench.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    ran = bench.run("--slot", "tag", code=0)
    assert ec2.requests == []
    record = bucket.run(ran.run_id).record
    assert (record["slot"], record["cost"]) == (None, None)
