"""Runs for a slot: of two machines one works, the other goes off; one that comes back looks what is left to do."""

import json
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.layout import CLAIMS
from tests.bucket.sound import all_sound
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import IgnoreConditions
from tests.parts.metadata import Metadata
from tests.parts.recorder import Recorder
from tests.run.bench import Bench, Ran, finish

SLOT = "2026-11-22T18:00:00Z"
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
    """One run is in the bucket, with its slot, and nothing of the other."""
    assert (worked.code, stood_back.code) == (0, 0)
    assert worked.run_id in stood_back.outcome["stood_back"]
    assert stood_back.outcome["jobs"] == []
    assert all_sound(bucket) == [worked.run_id]
    assert bucket.entries()[0]["slot"] == SLOT
    assert bucket.run(worked.run_id).record["slot"] == SLOT


def test_of_two_machines_one_works(bench: Bench, other: Bench, bucket: Bucket) -> None:
    """The other goes off at once, with exit code 0, says who works, and leaves nothing: no marker, no spool."""
    worked, stood_back = both(bench, other)
    assert_one_run(bucket, worked, stood_back)
    assert list(bucket.begun()) == [worked.run_id]
    assert bench.spool == other.spool == []
    ((slot, claim),) = bucket.claims().items()
    assert (slot, claim["run_id"]) == ("20261122T180000Z", worked.run_id)


@pytest.mark.parametrize("ignores", [False, True], ids=["conditions", "ignores conditions"])
def test_of_two_machines_one_works_with_a_store_behind_s3(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy, other: Bench, *, ignores: bool
) -> None:
    """With conditions and without; the loser takes its marker and its claim away."""
    other.store = bench.store
    if ignores:
        s3_proxy.inject(IgnoreConditions(), method="PUT")
    worked, stood_back = both(bench, other)
    assert_one_run(bucket_on_s3, worked, stood_back)
    assert list(bucket_on_s3.begun()) == [worked.run_id]
    below = f"20261122T180000Z/{worked.run_id}"
    assert list(bucket_on_s3.claims()) == [below if ignores else "20261122T180000Z"]
    record = bucket_on_s3.run(worked.run_id).record
    assert record["conditional_writes"] is not ignores


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
    assert [entry["slot"] for entry in bucket.entries()] == [SLOT, "2026-11-23T18:00:00Z", None]


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
    assert [(entry["status"], entry["slot"]) for entry in bucket.entries()] == [
        ("interrupted", SLOT),
        ("succeeded", SLOT),
    ]
    assert "has done it" in other.run("--slot", SLOT).outcome["stood_back"]


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
    assert lost.run_id in bucket.committed()


def test_without_the_bucket_a_run_works_without_a_claim(bench: Bench, bucket: Bucket) -> None:
    """Two runs of one slot are better than none; the manifest says that it may be so."""
    bench.release("v1.0", JOB, {"job.sh": SCRIPT})
    bucket.objects.put(CLAIMS.rstrip("/"), b"in the way")
    ran = bench.run("--slot", SLOT)
    assert ran.outcome["status"] == "succeeded"
    assert ran.events("slot.unsettled")
    record = bucket.run(ran.run_id).record
    assert record["slot"] == SLOT
    assert "another machine may have worked for the slot" in "\n".join(record["warnings"])


def test_a_watchdog_hears_nothing_of_a_run_that_stands_back(
    bench: Bench, recorder: Recorder
) -> None:
    """A start without an end would be an alarm."""
    bench.release("v1.0", JOB, {"job.sh": SCRIPT})
    bench.settings["notify.healthchecks"] = f"{recorder.url}/ping"
    assert bench.run("--slot", SLOT).code == 0
    said = [request.path.partition("?")[0] for request in recorder.wait_for(2)]
    assert said == ["/ping/start", "/ping"]
    assert bench.run("--slot", SLOT).outcome["status"] == "stood_back"
    assert len(recorder.requests) == 2


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


def test_a_machine_of_ec2_says_what_it_is_and_what_it_cost(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Instance, type, zone, image, life cycle and slot are in the manifest; the cost also in the index, and at home."""
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
    cost = record["cost"]
    assert cost == bucket.entries()[0]["cost"]
    assert 30 < cost["billed_seconds"] < 240
    assert cost["total_usd"] > 0
    marker = bucket.begun()[ran.run_id]
    assert marker["slot"] == SLOT
    month = consumer(bench, "cost")
    assert [run["run_id"] for run in month["runs"]] == [ran.run_id]
    assert bench.run("--slot", "tag").outcome["status"] == "stood_back"
    rows = consumer(bench, "status")
    assert len(rows["runs"] if isinstance(rows, dict) else rows) == 1


def test_the_same_machine_booted_again_takes_its_claim_over(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Even where its disk is gone: the claim bears its id and another boot's."""
    claim = {
        "run_id": "20261122T180004Z-3f9a1c",
        "claimed": SLOT,
        "deadline": "2199-01-01T00:00:00Z",
        "host": "x",
        "instance_id": "i-0123456789abcdef0",
        "boot_id": "an earlier one",
    }
    bucket.put_claim("20261122T180000Z", {**claim, "instance_id": "i-0fedcba9876543210"})
    assert bench.run("--slot", "tag").outcome["status"] == "stood_back"
    bucket.put_claim("20261122T180000Z", claim)
    ran = bench.run("--slot", "tag")
    assert ran.outcome["status"] == "succeeded"
    assert "20261122T180000Z/2" in bucket.claims()


@pytest.mark.long
def test_a_metadata_service_that_fails_costs_the_slot_and_no_run(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Without its answers the run works, without slot and cost, if it still said what the machine was launched with."""
    ec2.status, ec2.spared = 503, ("/latest/api/token", "/latest/user-data")
    began = time.monotonic()
    ran = bench.run("--slot", "tag")
    assert ran.code == 0
    assert time.monotonic() - began < 60
    record = bucket.run(ran.run_id).record
    assert (record["slot"], record["cost"], record["host"]["zone"]) == (None, None, None)


def test_elsewhere_nothing_is_asked(bench: Bench, bucket: Bucket, ec2: Metadata) -> None:
    """A laptop with the unit's own command line has no tag, no slot and no cost, and asks nobody."""
    bench.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    ran = bench.run("--slot", "tag")
    assert ran.code == 0
    assert ec2.requests == []
    record = bucket.run(ran.run_id).record
    assert (record["slot"], record["cost"]) == (None, None)
