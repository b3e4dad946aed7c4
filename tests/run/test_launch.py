"""A machine that was launched with a configuration: two launches of one image, and faults that reach home."""

import json

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.parts.metadata import Metadata
from tests.run.bench import Bench, job


@pytest.fixture
def machine(bench: Bench, ec2: Metadata) -> Metadata:
    """The metadata service of a machine that has a release to run."""
    bench.release("v1", job("plain", "echo x > $MAYFLY_OUTPUT_DIR/file"))
    return ec2


def test_one_image_serves_two_launches(bench: Bench, machine: Metadata) -> None:
    """A test and a production: the same machine, each with its own bucket."""
    bench.store = ""
    for name in ("test", "prod"):
        bucket = Bucket.in_folder(bench.folder / name)
        machine.said["user-data"] = f'[store]\nurl = "{bucket.environ["MAYFLY_STORE_URL"]}"'
        assert [*bucket.run(bench.run(code=0).run_id).told] == ["plain"]


def test_a_fault_of_the_launch_reaches_the_manifest(bench: Bench, machine: Metadata) -> None:
    """Nothing runs; home reads why, in the bucket that the image knows; the exit code says configuration."""
    machine.said["user-data"] = "[limits]\nrnu = 1"
    ran = bench.run(code=4)
    run = sound(bench.bucket, ran.run_id)
    assert (run.status, run.jobs) == ("failed", [])
    assert [text for text in run.warnings if "user data: limits.rnu: unknown key" in text]
    assert [event["reason"] for event in ran.events("configuration.refused")]


@pytest.mark.long
def test_a_launch_that_cannot_be_read_runs_nothing(bench: Bench, machine: Metadata) -> None:
    """The service answers nothing of use: the image alone might be for another bucket."""
    machine.status = 500
    ran = bench.run(code=4)
    assert "user data: cannot be read" in str(ran.outcome["warnings"])


def test_check_says_where_each_value_comes_from(bench: Bench, machine: Metadata) -> None:
    """Also as JSON."""
    machine.said["user-data"] = "[limits]\njobs = 3"
    said = bench.mayfly("check", "--explain", "--json", "--set", "limits.run=90")
    values = {value["key"]: value for value in json.loads(said.stdout)["settings"]}
    assert values["limits.jobs"] == {"key": "limits.jobs", "value": 3, "source": "user data"}
    assert values["limits.run"]["source"] == "--set limits.run"
    assert values["limits.grace"]["source"] == "default"
