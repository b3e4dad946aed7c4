"""A machine from power-on to power-off, with nobody touching it: nobody logs in, nobody tells it anything.

The tests are stages of one machine's life, in their order: a machine keeps its disk from one boot to the next.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bucket.layout import file_key
from tests.machine.world import OFF_SECONDS, World, live, world
from tests.parts.faults import Throttle
from tests.parts.machine import Disk, Machine
from tests.parts.machine_release import (
    BAKED,
    FENCED,
    LEGACY,
    NOTES,
    QUOTES,
    SITE,
    WHICH,
    publish,
)
from tests.parts.waiting import wait_until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(2400)]

UPLOADS = 120
MANY = f"""
[[job]]
name = "many"
command = ["sh", "many.sh"]
timeout = "5m"
expect = {{ min_files = {UPLOADS} }}
"""


def slow_after(job: str) -> str:
    """Return a job that begins when the result of another is kept, tells the site, and takes long."""
    return f"""
[[job]]
name = "slow"
command = ["sh", "slow.sh"]
needs = ["{job}"]
timeout = "5m"
env = {{ BEGUN = "http://{SITE.removesuffix(":80")}/after-{job}" }}
"""


SCRIPTS = {
    "many.sh": f"""\
set -eu
n=0
while [ $n -lt {UPLOADS} ]; do
  n=$((n + 1))
  head -c 20000 /dev/urandom > "$MAYFLY_OUTPUT_DIR/$n.bin"
done
""",
    "slow.sh": """\
set -eu
curl --silent --max-time 20 "$BEGUN"
sleep 240
""",
}


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world of this machine; the table of what came of each case is printed at its end."""
    with world(tmp_path_factory.mktemp("world")) as one:
        yield one
    print("\n" + "\n".join(f"{case:34} {what}" for case, what in one.rows))


@pytest.fixture(scope="module")
def mayfly(
    disk: Disk, around: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """The machine whose life is told."""
    with around.machine(disk, tmp_path_factory.mktemp("mayfly")) as machine:
        yield machine


def test_boots_works_and_turns_itself_off(mayfly: Machine, around: World) -> None:
    """A release newer than the image's is pulled, all kinds of jobs run, and home finds their files in the bucket."""
    commit = publish(around.repo, "v1.1.0", QUOTES, NOTES, WHICH, LEGACY, FENCED)
    seconds = live(mayfly)
    (run,) = around.closed()
    assert (run.status, run.release["ref"], run.release["commit"]) == (
        "succeeded",
        "v1.1.0",
        commit,
    ), json.dumps(run.record, indent=1)
    assert run.release["stale"] is None
    assert run.statuses == {
        "quotes": "succeeded",
        "notes": "succeeded",
        "which": "succeeded",
        "legacy": "succeeded",
        "fenced": "succeeded",
    }
    assert run.record["browser"]["kind"] == "container"
    assert run.file("which", "which.txt") == b"v1.1.0\n"
    assert b"JST" in run.file("legacy", "title.txt")
    seen = json.loads(run.file("fenced", "seen.json"))
    assert seen["site"]
    assert "ERR_" in seen["page"], f"the agent's keys came from there, and a page sees {seen}"
    assert seen["job"] != "reached"
    around.verify()
    phases = " ".join(f"{phase['name']} {phase['seconds']:.0f}" for phase in run.record["phases"])
    around.tell("power-on to power-off", f"{seconds:.0f} s; {phases}")
    around.tell("metadata service", f"page: {seen['page'][:60]}; job: {seen['job']}")


def test_the_next_boot_runs_the_new_release(mayfly: Machine, around: World) -> None:
    """A new tag is all it takes: nobody rebuilds an image."""
    commit = publish(around.repo, "v1.2.0", WHICH)
    seconds = live(mayfly)
    (run,) = around.closed()
    release = run.release
    assert (release["commit"], release.get("stale")) == (commit, None)
    assert run.file("which", "which.txt") == b"v1.2.0\n"
    around.verify()
    around.tell("a new tag", f"{seconds:.0f} s, {release['ref']} ran")


def test_without_git_the_last_good_release_runs(mayfly: Machine, around: World) -> None:
    """The batch is not lost for a git server that is down, and the manifest says what ran instead, and why."""
    mayfly.services = around.services(git=False)
    seconds = live(mayfly)
    mayfly.services = around.services()
    (run,) = around.closed()
    assert (run.status, run.release["ref"]) == ("succeeded", "v1.2.0")
    assert run.release["stale"]["reason"]
    around.verify()
    around.tell("git unreachable", f"{seconds:.0f} s, stale: {run.release['stale']['reason']}")


def test_a_plug_pulled_in_the_middle_of_jobs_and_of_uploads_loses_nothing(
    mayfly: Machine, around: World
) -> None:
    """What was finished before each cut is in the bucket after the next whole boot, under its own run."""
    publish(around.repo, "v1.3.0", WHICH, slow_after("which"), **SCRIPTS)
    first = _cut(mayfly, around, when=lambda: around.visits("/after-which") > 0)
    publish(around.repo, "v1.4.0", WHICH, MANY, slow_after("many"), **SCRIPTS)
    around.proxy.inject(Throttle(2_000), method="PUT", path="/many/")
    second = _cut(mayfly, around, when=lambda: around.visits("/after-many") > 0)
    around.proxy.heal()
    assert second != first
    sent = set(around.bucket.objects.keys(file_key(second, "many", "")))
    publish(around.repo, "v1.5.0", WHICH)
    seconds = live(mayfly)
    runs = {run.id for run in around.closed()}
    assert {first, second} < runs
    for run in runs:
        around.verify(run)
    assert around.bucket.run(first).statuses == {"which": "succeeded", "slow": "interrupted"}
    assert around.bucket.run(first).file("which", "which.txt") == b"v1.3.0\n"
    many = set(around.bucket.objects.keys(file_key(second, "many", "")))
    assert sent < many
    assert len(many) == UPLOADS
    around.tell("plug pulled twice", f"{seconds:.0f} s for the third boot, {len(runs)} runs whole")


def test_without_git_the_first_boot_runs_what_was_baked_in(
    disk: Disk, around: World, tmp_path: Path
) -> None:
    """A machine that has never run anything can work on the day on which git is down."""
    with around.machine(disk, tmp_path / "fresh") as machine:
        machine.services = around.services(git=False)
        seconds = live(machine)
    (run,) = around.closed()
    assert (run.status, run.release["ref"]) == ("succeeded", BAKED), json.dumps(
        run.record, indent=1
    )
    assert run.release["stale"]["reason"]
    around.verify()
    around.tell("first boot, git unreachable", f"{seconds:.0f} s, {BAKED} ran")


def _cut(machine: Machine, around: World, *, when: Callable[[], bool]) -> str:
    """Boot a machine, pull its plug at a moment of its run, and return the run's id."""
    machine.boot()
    wait_until(
        lambda: when() or not machine.running, seconds=OFF_SECONDS, what="the moment for the cut"
    )
    assert machine.running, machine.tail()
    machine.kill()
    return max(around.bucket.runs)
