"""The machine's log in CloudWatch: put when the machine goes off, where the stack keeps one."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.parts.aws import KEYS, REGION, Aws
from tests.parts.command import completed, script
from tests.parts.metadata import Metadata

SCRIPT = Path(__file__).parents[2] / "systemd/cloudwatch.sh"
MACHINE = "i-0123456789abcdef0"


def power_off(
    aws: Aws, folder: Path, entries: list[dict[str, Any]], tags: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run what runs when the machine goes off, with a journal of some entries."""
    journal = folder / "journal"
    journal.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    script(folder / "journalctl", f'#!/bin/sh\nexec cat "{journal}"\n')
    zone = f"{REGION}a"
    with Metadata(credentials=KEYS, tags=tags, instance_id=MACHINE, zone=zone) as machine:
        environ = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "METADATA": machine.url,
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": machine.url,
            "AWS_EC2_METADATA_DISABLED": "false",
        }
        return completed([str(SCRIPT)], environ=environ)


def entry(second: int, message: Any) -> dict[str, Any]:
    """What journalctl prints of one message."""
    # Within what the service takes: neither two weeks old nor of the future.
    return {"__REALTIME_TIMESTAMP": str((NOW + second) * 10**6), "MESSAGE": message}


NOW = int(time.time()) - 3600


@pytest.fixture
def group(aws_stand_in: Aws) -> str:
    """A log group of the stack."""
    name = f"/mayfly/{uuid.uuid4().hex[:6]}"
    aws_stand_in.client("logs").create_log_group(logGroupName=name)
    return name


def kept(aws: Aws, group: str) -> list[str]:
    """What CloudWatch has of the machine."""
    found = aws.client("logs").get_log_events(
        logGroupName=group, logStreamName=MACHINE, startFromHead=True
    )
    return [event["message"] for event in found["events"]]


def test_the_log_is_put_in_order_and_added_to(
    aws_stand_in: Aws, group: str, tmp_path: Path
) -> None:
    """A machine that is kept has one stream for all its boots; what is no text is left out."""
    entries = [entry(2, "second"), entry(1, "first"), entry(3, [1, 2]), entry(4, "四")]
    for _ in range(2):
        done = power_off(aws_stand_in, tmp_path, entries, {"mayfly-log": group})
        assert (done.returncode, done.stderr) == (0, "")
    assert sorted(kept(aws_stand_in, group)) == sorted(["first", "second", "四"] * 2)


def test_of_a_long_log_the_end_is_kept(aws_stand_in: Aws, group: str, tmp_path: Path) -> None:
    """One request takes a megabyte: the end says why a machine failed."""
    entries = [entry(number, f"{number} " + "x" * 50_000) for number in range(40)]
    done = power_off(aws_stand_in, tmp_path, entries, {"mayfly-log": group})
    assert (done.returncode, done.stderr) == (0, "")
    found = [int(message.split()[0]) for message in kept(aws_stand_in, group)]
    assert found == list(range(40 - len(found), 40))
    assert len(found) == 19


@pytest.mark.parametrize("tags", [{}, {"mayfly-log": "-"}], ids=["no tag", "none"])
def test_without_a_group_nothing_is_asked(
    aws_stand_in: Aws, tmp_path: Path, tags: dict[str, str]
) -> None:
    """No client is made: the machine is paid for by the second."""
    done = power_off(aws_stand_in, tmp_path, [{"no": "journal"}], tags)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
