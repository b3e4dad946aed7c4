"""Every night a fresh disk, for a month: which release ran, with good, broken, moved, replayed and dying ones."""

import json
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.parts.repo import Signer, make_signer
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench

JOB = """
[[job]]
name = "only"
secrets = ["TOKEN"]
command = ["sh", "only.sh"]
"""
WORKS = 'cat version > "$MAYFLY_OUTPUT_DIR/file"\n'
CANARY = "hunter2-canary"
RUN_SECONDS = 20


@dataclass
class Machine:
    """A machine whose disk is the image's, each night anew.

    Attributes:
        bench: The computer.
        ada: Who signs.
        image: The state directory as the image has it.
        nights: How many there were.
    """

    bench: Bench
    ada: Signer
    image: Path
    nights: int = 0

    def publish(self, version: str, script: str = WORKS, *, signed: bool = True) -> None:
        """Publish a release."""
        files = {"jobs.toml": JOB, "only.sh": script, "version": version}
        self.bench.repo.release(version, files, signer=self.ada if signed else None)

    def git(self, *arguments: str) -> None:
        """Change what the repository offers."""
        self.bench.repo.git(*arguments)
        self.bench.repo.push()

    def fresh(self) -> None:
        """Begin with the image's disk."""
        shutil.rmtree(self.bench.state, ignore_errors=True)
        shutil.copytree(self.image, self.bench.state, symlinks=True)

    def night(self, what: str, expected: str) -> None:
        """Do a run on a fresh disk, and note which release ran."""
        self.fresh()
        ran = self.bench.run()
        assert ran.code == 0, ran.stderr[-3000:]
        run = self.bench.bucket.run(ran.run_id)
        release = run.release
        why = release["stale"]["reason"] if release.get("stale") else ""
        self.note(what, release["ref"], why)
        assert release["ref"] == expected, (what, release)
        assert run.file("only", "file") == expected.encode()

    def dies(self, what: str) -> None:
        """Lose the machine in the middle of its job."""
        self.fresh()
        with self.bench.running(limits__run=f"{RUN_SECONDS}s", limits__handoff="2s") as process:
            self.bench.log.wait_for("job.started")
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        self.note(what, "(the machine vanished)")

    def note(self, what: str, ran: str, why: str = "") -> None:
        """Print a row of the table of all nights."""
        self.nights += 1
        print(f"| {self.nights} | {what} | {ran} | {why[:90]} |")

    def without_git(self, what: str, expected: str) -> None:
        """Do a run while the git server is away."""
        bare = self.bench.repo.bare
        away = bare.rename(bare.with_suffix(".away"))
        self.night(what, expected)
        away.rename(bare)

    def operator(self, *arguments: str) -> str:
        """Decide on another computer, which has the bucket's keys and nothing else."""
        settings = {"paths.state": str(self.bench.folder / "laptop")}
        if "store.endpoint" in self.bench.settings:
            settings["store.endpoint"] = self.bench.settings["store.endpoint"]
        options = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
        done = self.bench.mayfly("release", *arguments, *options, "--store", self.bench.store)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=["folder", "s3"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """A machine whose image has v1.0, and that runs what Ada signed."""
    bench = Bench.make(tmp_path)
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        bench.deliver_to(Bucket.on_s3(server, request.getfixturevalue("s3_bucket")))
    ada = make_signer(tmp_path)
    signers = tmp_path / "allowed_signers"
    signers.write_text(ada.allowed_signers_line)
    bench.settings["release.allowed_signers"] = str(signers)
    (tmp_path / "secrets.env").write_text(f"TOKEN={CANARY}\n")
    (tmp_path / "secrets.env").chmod(0o600)
    bench.settings["secrets.source"] = str(tmp_path / "secrets.env")
    machine = Machine(bench, ada, tmp_path / "image")
    machine.publish("v1.0")
    pairs = {"release.repository": bench.repo.bare, "paths.state": bench.state, **bench.settings}
    options = [text for key, value in pairs.items() for text in ("--set", f"{key}={value}")]
    done = bench.mayfly("prepare", *options)
    assert done.returncode == 0, done.stderr
    bench.state.rename(machine.image)
    return machine


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thirty_nights_on_a_fresh_disk(machine: Machine) -> None:
    """The newest good release runs, in every night in which git can be reached; else the image's."""
    print("\n| night | what happened | ran | why not the newest |\n| --- | --- | --- | --- |")
    _left_alone(machine)
    _operated(machine)
    assert machine.nights >= 30
    _sound(machine)


def _left_alone(machine: Machine) -> None:
    night, publish, git = machine.night, machine.publish, machine.git
    night("the image's is the newest", "v1.0")
    publish("v1.1")
    night("v1.1 is published", "v1.1")
    night("nothing new", "v1.1")
    publish("v1.2", "echo denied: $TOKEN >&2; exit 3\n")
    night("v1.2 is broken", "v1.1")
    night("v1.2 is not tried again", "v1.1")
    machine.without_git("git is away", "v1.0")
    night("git is back", "v1.1")
    git("tag", "--delete", "v1.1")
    night("the tag of v1.1 is gone", "v1.1")
    machine.bench.repo.release("v1.3", {"jobs.toml": "broken"}, signer=machine.ada)
    night("v1.3 has a broken jobs.toml", "v1.1")
    publish("v1.4")
    night("v1.4 is published", "v1.4")
    git("tag", "v2.0", "refs/tags/v1.0")
    night("v1.0's tag lies under v2.0", "v1.4")
    night("it still does", "v1.4")
    git("tag", "--delete", "v2.0")
    machine.bench.repo.commit()
    machine.bench.repo.tag("v1.4", force=True, signer=machine.ada)
    machine.bench.repo.push()
    night("v1.4 was moved", "v1.4")
    night("it is still another commit", "v1.4")
    git("tag", "--delete", "v1.4", "v1.3", "v1.2")
    night("only v1.0 is offered", "v1.4")
    publish("v1.5", signed=False)
    night("v1.5 is not signed", "v1.4")
    publish("v1.6", "sleep 120\n")
    machine.dies("v1.6 takes the machine down")
    machine.dies("again")
    machine.dies("a third time")
    time.sleep(RUN_SECONDS)  # until the last of these runs counts as dead
    night("v1.6 is given up", "v1.4")
    night("v1.6 is bad", "v1.4")
    machine.without_git("git is away", "v1.0")


def _operated(machine: Machine) -> None:
    night, publish, operator = machine.night, machine.publish, machine.operator
    operator("pin", "v1.1", "--reason", "v1.4 lacks a column")
    night("v1.1 is pinned on a laptop", "v1.1")
    night("it stays pinned", "v1.1")
    operator("unpin")
    night("unpinned", "v1.4")
    publish("v1.7")
    night("v1.7 is published", "v1.7")
    night("nothing new", "v1.7")
    operator("rollback", "--to", "v1.4", "--reason", "v1.7 is slow")
    night("rolled back on a laptop", "v1.4")
    night("it stays so", "v1.4")
    publish("v1.8")
    night("v1.8 is published", "v1.8")
    night("nothing new", "v1.8")
    machine.without_git("git is away", "v1.0")
    night("git is back", "v1.8")


def _sound(machine: Machine) -> None:
    """Look at what the bucket has: one listing says it all, and no secret is in it."""
    objects = machine.bench.bucket.objects
    texts = [objects.get(key) for key in objects.keys("releases/")]
    keys = list(objects.credentials.values())
    assert not any(key.encode() in text for text in texts for key in [*keys, CANARY])
    assert any(b"denied: " in text for text in texts)
    said = json.loads(machine.operator("list", "--json"))
    rows = {row["ref"]: row for row in said["releases"]}
    assert (rows["v1.8"]["good"], said["pin"], said["problems"]) == (True, None, [])
    assert "v1.7 is slow" in rows["v1.7"]["bad"]["reason"]
    assert "started 3 times" in rows["v1.6"]["bad"]["reason"]
