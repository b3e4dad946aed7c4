"""Runs for a slot: of two machines one works, the other goes off; one that comes back looks what is left to do."""

import json
import shutil
import signal
from collections.abc import Iterator
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
from tests.parts.faults import Answer, IgnoreConditions
from tests.parts.metadata import Metadata
from tests.parts.recorder import Recorder
from tests.run.bench import Bench, Ran, finish

SLOT = "2026-11-22T18:00:00Z"
BATCH = "main/20261122T180000Z"
JOB = """
[[job]]
name = "only"
command = ["sh", "job.sh"]
"""
SLOW = "sleep 60\n"
SCRIPT = 'date > "$MAYFLY_OUTPUT_DIR/file"\n'


@pytest.fixture
def other(bench: Bench, tmp_path: Path) -> Bench:
    """A second computer: its own state directory, the same repository and bucket."""
    folder = tmp_path / "other"
    folder.mkdir()
    bench.release("v1.0", JOB, {"job.sh": SCRIPT})
    return Bench(folder, bench.repo, bench.store, bench.environ, bench.settings)


def both(bench: Bench, other: Bench, slot: str = SLOT) -> tuple[Ran, Ran]:
    """Start a run on each computer at once; return that which worked and that which stood back."""
    with bench.running("--slot", slot) as one, other.running("--slot", slot) as two:
        ran = sorted((finish(one), finish(two)), key=lambda each: each.outcome["status"])
    assert [each.outcome["status"] for each in ran] == ["stood_back", "succeeded"], [
        each.stderr[-2000:] for each in ran
    ]
    return ran[1], ran[0]


def assert_one_run(bucket: Bucket, worked: Ran, stood_back: Ran) -> None:
    """One run worked, for its slot; of the other there is nothing but its word."""
    assert (worked.code, stood_back.code) == (0, 0)
    assert worked.run_id in stood_back.outcome["stood_back"]
    assert stood_back.outcome["jobs"] == []
    assert all_sound(bucket) == [worked.run_id]
    run, other = bucket.run(worked.run_id), bucket.run(stood_back.run_id)
    assert (run.batch, run.began["slot"], run.record["slot"]) == (BATCH, SLOT, SLOT)
    assert other.stood_back is not None
    assert (other.batch, other.stood_back["run"], other.told) == (BATCH, worked.run_id, {})
    assert bucket.objects.keys(f"{RUNS}{stood_back.run_id}/") == []


def test_of_two_machines_one_works_whatever_the_store_makes_of_conditions(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy, other: Bench
) -> None:
    """Nothing is conditional: the store's own time decides."""
    other.store = bench.store
    s3_proxy.inject(IgnoreConditions(), method="PUT")
    assert_one_run(bucket_on_s3, *both(bench, other))
    assert bench.spool == other.spool == []


def test_a_slot_that_is_done_is_not_done_again(bench: Bench, bucket: Bucket) -> None:
    """A machine that is started once more goes off; one for the next slot, or for none, works."""
    bench.release("v1.0", JOB, {"job.sh": "exit 3\n"})
    assert bench.run("--slot", SLOT).code == 8
    again = bench.run("--slot", "2026-11-23T03:00:00+09:00")
    assert (again.code, again.outcome["status"]) == (0, "stood_back")
    assert "has done it" in again.outcome["stood_back"]
    assert again.events("run.stood_back")
    assert not again.events("job.started")
    assert bench.run("--slot", "2026-11-23T18:00:00Z").code == 8
    assert bench.run().code == 8
    slots = [run.began.get("slot") for run in bucket.working]
    assert slots == [SLOT, "2026-11-23T18:00:00Z", None]


def test_two_schedules_in_one_bucket_never_meet(bench: Bench, bucket: Bucket) -> None:
    """The same slot of another schedule is another batch."""
    bench.release("v1.0", JOB, {"job.sh": SCRIPT})
    for name in ("daily", "other"):
        assert bench.run("--slot", SLOT, schedule__name=name).outcome["status"] == "succeeded"
    assert [run.batch for run in bucket.runs.values()] == [
        f"{name}/20261122T180000Z" for name in ("daily", "other")
    ]


@pytest.mark.long
def test_a_machine_that_died_takes_its_own_slot_over(
    bench: Bench, other: Bench, bucket: Bucket
) -> None:
    """It finishes what waits in its spool, and works again, because an interrupted run is no day's result."""
    bench.release("v1.1", JOB, {"job.sh": SLOW})
    with bench.running("--slot", SLOT) as process:
        bench.log.wait_for("job.started")
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    bench.release("v1.2", JOB, {"job.sh": SCRIPT})
    elsewhere = other.run("--slot", SLOT)
    assert "works for it" in elsewhere.outcome["stood_back"]
    ran = bench.run("--slot", SLOT)
    assert (ran.code, ran.outcome["status"]) == (0, "succeeded"), ran.stderr[-2000:]
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
    lost = bench.run()
    assert lost.code == 6
    bucket.root.unlink()
    assert other.run("--slot", SLOT).code == 0
    ran = bench.run("--slot", SLOT)
    assert ran.outcome["status"] == "stood_back"
    assert bench.spool == []
    assert lost.run_id in all_sound(bucket)


@pytest.mark.long
def test_without_an_answer_a_run_works_without_a_claim(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """Two runs of one slot are better than none; the manifest says that it may be so."""
    bench.release("v1.0", JOB, {"job.sh": SCRIPT})
    s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path="batches")
    ran = bench.run("--slot", SLOT)
    s3_proxy.heal()
    assert ran.outcome["status"] == "succeeded"
    (run,) = bucket_on_s3.runs.values()
    assert run.record["slot"] == SLOT
    assert "another run may work for 20261122T180000Z" in "\n".join(run.warnings)


def test_a_watchdog_hears_nothing_of_a_run_that_stands_back(
    bench: Bench, recorder: Recorder
) -> None:
    """A start without an end would be an alarm."""
    bench.release("v1.0", JOB, {"job.sh": SCRIPT})
    bench.settings["notify.healthchecks"] = f"{recorder.url}/ping"
    assert bench.run("--slot", SLOT).code == 0
    # A ping whose answer is late is sent again.
    heard = [request.path.partition("?")[0] for request in recorder.requests]
    assert list(dict.fromkeys(heard)) == ["/ping/start", "/ping"]
    assert bench.run("--slot", SLOT).outcome["status"] == "stood_back"
    assert len(recorder.requests) == len(heard)


@pytest.mark.parametrize("slot", ["2026-11-22T18:00:00", "tomorrow", ""])
def test_a_slot_without_a_zone_is_refused(bench: Bench, slot: str) -> None:
    """It would be another moment on another machine."""
    ran = bench.run("--slot", slot)
    assert ran.code == 2
    assert "no time with a zone" in ran.stderr


# EC2.


@pytest.fixture
def ec2(bench: Bench, aws: dict[str, str]) -> Iterator[Metadata]:
    """The bench's computer is an EC2 machine, started now, for the slot."""
    with Metadata(tags={"mayfly-slot": SLOT}) as service:
        service.said["meta-data/public-ipv4"] = "192.0.2.1"
        bench.environ |= aws
        bench.environ |= {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url,
            "AWS_EC2_METADATA_DISABLED": "false",
        }
        bench.settings["cost.hourly"] = "0.05"
        bench.release("v1.0", JOB, {"job.sh": SCRIPT})
        yield service


def consumer(bench: Bench, *arguments: str) -> Any:
    """Return what a command at home says of the bucket."""
    done = bench.mayfly(*arguments, "--json", "--store", bench.store)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
def test_a_machine_that_cannot_read_its_tag_works_and_says_so(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Jobs that run twice are better than a night without any; the manifest has the doubt."""
    ec2.status, ec2.spared = 503, ("/latest/api/token", "/latest/user-data")
    ran = bench.run("--slot", "tag")
    assert ran.code == 0, ran.stderr[-2000:]
    record = bucket.run(ran.run_id).record
    assert record["slot"] is None
    assert any("for which slot the machine is" in warning for warning in record["warnings"])


def test_a_machine_of_ec2_says_what_it_is_and_what_it_cost(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Instance, type, zone, image, life cycle, slot are in the manifest; the cost is in the entry and at home."""
    pending = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    ec2.said["dynamic/instance-identity/document"] = json.dumps({"pendingTime": pending})
    ran = bench.run("--slot", "tag")
    assert ran.code == 0, ran.stderr[-2000:]
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


@pytest.mark.long
def test_a_metadata_service_that_fails_costs_the_slot_and_no_run(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Without its answers the run works, without slot and cost, if it still said what the machine was launched with."""
    ec2.status, ec2.spared = 503, ("/latest/api/token", "/latest/user-data")
    ran = bench.run("--slot", "tag")
    assert ran.code == 0
    record = bucket.run(ran.run_id).record
    assert (record["slot"], record["cost"], record["host"].get("zone")) == (None, None, None)


def test_elsewhere_nothing_is_asked(bench: Bench, bucket: Bucket, ec2: Metadata) -> None:
    """A laptop with the unit's own command line has no tag, no slot and no cost, and asks nobody."""
    bench.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    ran = bench.run("--slot", "tag")
    assert ran.code == 0
    assert ec2.requests == []
    record = bucket.run(ran.run_id).record
    assert (record["slot"], record["cost"]) == (None, None)
