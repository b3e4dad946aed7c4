"""Nights of the deployment: a schedule's own words launch a machine, nobody touches it, and it is gone.

The tests are in the order of their nights: releases are published one after the other.
"""

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest

from tests.aws.stack import SCHEDULED, Stack
from tests.aws.test_person_rights import DOCUMENTS, PACKER
from tests.bucket.bucket import Run
from tests.cloud.releases import BEGUN, BROKEN, CONTAINED, SLOW, TOKEN, WHICH, publish
from tests.cloud.world import NIGHT_SECONDS, World
from tests.parts.aws import ACCOUNT
from tests.parts.ec2_rights import Ec2Rights
from tests.parts.rights import allowed
from tests.parts.waiting import wait_until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def stack(around: World, image: str) -> Stack:
    """The stack in its default mode."""
    return around.stack(image)


def slot(night: int) -> str:
    """Return the scheduled time of a night."""
    return f"2026-11-{night:02}T18:00:00Z"


def sent(stack: Stack, schedule: str, night: int) -> Any:
    """Return what a schedule sends in a night."""
    return json.loads(json.dumps(stack.input_of(schedule)).replace(SCHEDULED, slot(night)))


def until_on(around: World, name: str) -> None:
    """Wait until a machine's power is on."""
    wait_until(lambda: around.room.is_on(name), seconds=120, what="the machine to be on")


def launch(stack: Stack, night: int) -> str:
    """Do what the schedule does, with its rights; return the machine's id."""
    with stack.ec2_of("SchedulerRole") as schedule:
        answer = schedule.run_instances(**sent(stack, "LaunchSchedule", night))
    return str(answer["Instances"][0]["InstanceId"])


def night(around: World, name: str, state: str = "terminated") -> Run:
    """Wait until a machine has done its work and is off; return its one run."""
    around.room.wait_state(name, state, NIGHT_SECONDS)
    assert not around.room.is_on(name)
    runs = around.new_runs()
    said = [line for line in around.room.console(name).splitlines() if '"event"' in line]
    assert len(runs) == 1, "\n".join(said)[-6000:]
    return runs[0]


def test_packer_builds_the_image_in_ec2(around: World, image: str) -> None:
    """Source image, key pair, machine, provisioning, image, encrypted copy; the machine that built it is gone."""
    ec2 = around.room.client("ec2")
    (found,) = ec2.describe_images(ImageIds=[image])["Images"]
    if found["Name"].startswith("registered-"):
        pytest.skip("the image was made before")
    assert found["Name"].startswith("mayfly-0.0.0-x86_64-")
    pages = ec2.describe_instances()["Reservations"]
    states = {one["State"]["Name"] for page in pages for one in page["Instances"]}
    assert states == {"terminated"}


def test_packers_calls_are_those_of_its_policy(around: World, image: str) -> None:
    """Each is allowed by the policy that the documentation names, for what the call was about."""
    if not around.asked_by_packer:
        pytest.skip("the image was made before")
    aws = around.room
    rights = Ec2Rights(aws.client("ec2"), aws.client("iam"), ACCOUNT, lambda _: {})
    refused = []
    asked = set()
    for one in around.asked_by_packer:
        for call in rights.calls(one):
            asked.add(call.action)
            decision = allowed(DOCUMENTS["ami"], call)
            print(f"{call.action} {call.resource}: {decision.statement or 'refused'}")
            if not decision.allowed:
                refused.append(call)
    assert refused == []
    assert asked <= PACKER


def test_a_scheduled_night(around: World, stack: Stack) -> None:
    """Region, role, secrets and slot come from the machine's own services, the release from git; then it is gone."""
    commit = publish(around.repo, "v1.1.0", WHICH, CONTAINED)
    name = launch(stack, 1)
    assert launch(stack, 1) == name, "an attempt that is repeated is not another launch"
    run = night(around, name)
    assert (run.status, run.release["commit"]) == ("succeeded", commit), json.dumps(run.record)
    assert run.record["slot"] == slot(1)
    files = run.files
    assert files["which/which.txt"] == b"v1.1.0\n"
    assert files["which/token.txt"].decode().strip() == hashlib.sha256(TOKEN.encode()).hexdigest()
    assert files["which/aws.txt"] == b""
    seen = json.loads(files["contained/seen.json"])
    assert seen["variables"] == []
    assert seen["metadata"] != "reached"


def test_a_night_with_a_broken_release(around: World, image: str) -> None:
    """A fleet's machine, which has never run anything, does the night's work with the release before."""
    commit = publish(around.repo, "v1.1.1", WHICH)
    publish(around.repo, "v1.2.0", BROKEN)
    stack = around.stack(image, Spread="yes")
    name = stack.guard(sent(stack, "LaunchSchedule", 2))["launched"]
    run = night(around, name)
    assert (run.status, run.record["slot"]) == ("succeeded", slot(2)), json.dumps(run.record)
    assert run.release["commit"] == commit
    assert "v1.2.0" in json.dumps(run.release)


def test_a_night_in_which_ec2_wants_the_machine_back(around: World, stack: Stack) -> None:
    """What was done is in the bucket, what was under way is called interrupted, and EC2 finds the machine off."""
    publish(around.repo, "v1.3.0", WHICH, SLOW)
    name = launch(stack, 3)
    until_on(around, name)
    wait_until(
        lambda: around.asked_git(BEGUN) or not around.room.is_on(name),
        seconds=NIGHT_SECONDS,
        what="the slow job",
    )
    around.room.notify(name)
    run = night(around, name)
    assert run.status == "interrupted", json.dumps(run.record)
    assert run.statuses == {"which": "succeeded", "slow": "interrupted"}


def test_the_guard_ends_a_machine_that_hangs(around: World, stack: Stack) -> None:
    """The guard's own code, by its own schedule's input and rights: not before the deadline, and then for good."""
    name = launch(stack, 4)
    until_on(around, name)
    around.room.freeze(name)
    event = stack.input_of("GuardSchedule")
    assert stack.guard(event, age=lambda _: timedelta(minutes=179)) == {"ended": []}
    assert around.room.is_on(name)
    assert stack.guard(event, age=lambda _: timedelta(minutes=181)) == {"ended": [name]}
    around.room.wait_state(name, "terminated", 300)
    assert not around.room.is_on(name)


def test_a_stopped_machine_is_started_for_its_slot(around: World, image: str) -> None:
    """It runs once when the stack is made, and stops; the schedules tag and start it, and it stops again."""
    commit = publish(around.repo, "v1.4.0", WHICH)
    stack = around.stack(image, Mode="stopped")
    name = stack.outputs["Instance"]
    first = night(around, name, "stopped")
    assert (first.status, first.record["slot"]) == ("succeeded", None)
    with stack.ec2_of("SchedulerRole") as schedule:
        schedule.create_tags(**sent(stack, "SlotSchedule", 5))
        schedule.start_instances(**stack.input_of("StartSchedule"))
    until_on(around, name)
    second = night(around, name, "stopped")
    assert (second.status, second.record["slot"]) == ("succeeded", slot(5))
    assert first.release["commit"] == second.release["commit"] == commit
