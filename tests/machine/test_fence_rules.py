"""The rules of the fence, in a network of their own on this machine: put up at a boot, again, and after damage."""

import os
import shlex
from pathlib import Path

import pytest

from tests.parts.command import completed
from tests.parts.machine_disk import ROOT
from tests.parts.missing import MissingPartError, program

FENCE = shlex.quote(str(ROOT / "systemd" / "fence.sh"))
SAVED = "for table in iptables ip6tables; do $table -S; done"
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def fenced(script: str) -> str:
    """Return what a script says in an empty network; `fence` is the fence."""
    if os.geteuid() != 0:
        raise MissingPartError("a network of its own", "run the tests as root")
    program("iptables")
    text = f'set -e; fence() {{ {FENCE} "$@"; }}; {script}'
    command = [program("unshare"), "--net", "bash", "-c", text]
    done = completed(command, environ={**os.environ, "PATH": PATH}, at=Path("/"))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_fence_is_up_after_one_call_and_the_same_after_two() -> None:
    """Both families, all three ways to the service; the second call, as at the engine's restart, adds nothing."""
    once, twice = fenced(
        f"fence; fence --check; {SAVED}; echo ---; fence; fence --check; {SAVED}"
    ).split("---\n")
    assert once == twice
    assert once.count("-j MAYFLY-FENCE") == 6
    assert "-d 169.254.169.254/32 -j REJECT" in once
    assert "-d fd00:ec2::254/128 -j REJECT" in once


@pytest.mark.parametrize(
    "damage",
    [
        "iptables -F MAYFLY-FENCE",
        "iptables -D FORWARD -j MAYFLY-FENCE",
        "ip6tables -D OUTPUT -m owner --uid-owner 1000-4294967294 -j MAYFLY-FENCE",
        "ip6tables -F DOCKER-USER",
    ],
)
def test_what_is_missing_is_noticed_and_put_back(damage: str) -> None:
    """A hole is a failed check, and the next call closes it."""
    said = fenced(
        f"fence; {damage}; if fence --check; then echo whole; fi; fence; fence --check; {SAVED}"
    )
    assert "whole" not in said
    assert said.count("-j MAYFLY-FENCE") == 6


def test_what_others_have_in_the_engines_chain_stays_behind_the_fence() -> None:
    """Dockerd ends its chain with a rule of its own, and a person may have one; ours comes first."""
    said = fenced(
        "iptables -N DOCKER-USER; iptables -A DOCKER-USER -s 192.0.2.1 -j ACCEPT;"
        " iptables -A DOCKER-USER -j RETURN; fence; fence; iptables -S DOCKER-USER"
    )
    assert said.splitlines() == [
        "-N DOCKER-USER",
        "-A DOCKER-USER -j MAYFLY-FENCE",
        "-A DOCKER-USER -s 192.0.2.1/32 -j ACCEPT",
        "-A DOCKER-USER -j RETURN",
    ]
