"""Attacks on a machine that verifies, through the real `mayfly run`: the last good release does the day's work.

`MAYFLY_TEST_HUGE=1` makes the huge blob one of 2 GiB; every day it is just larger than a release may be.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.parts.heavy import tree_of_many, tree_of_zeros
from tests.parts.repo import Repo, Signer, make_signer
from tests.run.bench import Bench

JOB = """
[[job]]
name = "only"
command = ["sh", "job.sh"]
"""
HUGE = (2048 if os.environ.get("MAYFLY_TEST_HUGE") else 576) * 1024**2
SCRIPT = 'echo good > "$MAYFLY_OUTPUT_DIR/file"\n'
PROGRAMS = (
    *("gpg.ssh.program", "gpg.program", "gpg.ssh.defaultKeyCommand", "credential.helper"),
    *("core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.alternateRefsCommand"),
    *("core.askPass", "core.pager", "core.editor", "uploadpack.packObjectsHook"),
    *("filter.evil.smudge", "filter.evil.clean", "filter.evil.process", "diff.evil.textconv"),
)
"""Settings of git that name a program."""
HOOKS = (
    *("post-checkout", "post-merge", "post-rewrite", "post-index-change", "pre-auto-gc"),
    *("reference-transaction", "fsmonitor-watchman", "proc-receive", "sendemail-validate"),
)


class Stage:
    """A repository with two good releases, and what attacks on it need.

    Attributes:
        repo: The repository.
        ada: Who may publish.
        mallory: Who may not.
        evil: A program that leaves a canary.
        canary: The file that it leaves.
    """

    def __init__(self, bench: Bench) -> None:
        self.repo: Repo = bench.repo
        self.ada: Signer = make_signer(bench.folder)
        self.mallory: Signer = make_signer(bench.folder, "mallory@example.com")
        self.canary = bench.folder / "canary"
        self.evil = bench.folder / "evil.sh"
        self.evil.write_text(f"#!/bin/sh\ntouch {self.canary}\ncat\n")
        self.evil.chmod(0o755)
        signers = bench.folder / "allowed_signers"
        signers.write_text(self.ada.allowed_signers_line)
        bench.settings["release.allowed_signers"] = str(signers)
        files = {"jobs.toml": JOB, "job.sh": SCRIPT}
        self.repo.release("v0.9", files, signer=self.ada)
        self.good = self.repo.release("v1.0", {"README": "x"}, signer=self.ada)

    def tag(self, commit: str, signer: Signer | None) -> None:
        """Publish a commit as v2.0."""
        self.repo.tag("v2.0", at=commit, signer=signer, force=True)
        self.repo.push()

    def commit(self) -> str:
        """Commit a job that leaves a canary, and return to where it began."""
        self.repo.write("job.sh", f"touch {self.canary}\n")
        commit = self.repo.commit()
        self.repo.git("reset", "--quiet", "--hard", self.good)
        return commit

    @contextmanager
    def attacked(self, attack: "Callable[[Stage], None]") -> Iterator[None]:
        """Carry out an attack, and take it back."""
        attack(self)
        yield
        assert not self.canary.exists(), attack.__name__
        # Now git shall work here again without starting anything.
        (self.repo.bare / "config").write_text(self.config)
        shutil.rmtree(self.repo.bare / "hooks", ignore_errors=True)
        for name in ("v2.0", "v3.0"):
            if name in self.repo.git("tag", "--list").split():
                self.repo.git("tag", "--delete", name)
        for name, commit in self.tags.items():
            self.repo.git("update-ref", f"refs/tags/{name}", commit)
        self.repo.push()

    def remember(self) -> None:
        """Note what is good, so that `attacked` can restore it."""
        self.config = (self.repo.bare / "config").read_text()
        self.tags = {name: self.repo.git("rev-parse", name) for name in ("v0.9", "v1.0")}


def _unsigned(stage: Stage) -> None:
    stage.tag(stage.commit(), None)


def _foreign(stage: Stage) -> None:
    stage.tag(stage.commit(), stage.mallory)


def _replayed(stage: Stage) -> None:
    stage.repo.git("update-ref", "refs/tags/v3.0", "refs/tags/v0.9")
    stage.repo.push()


def _moved(stage: Stage) -> None:
    stage.repo.tag("v1.0", at=stage.commit(), signer=stage.ada, force=True)
    stage.repo.push()


def _downgraded(stage: Stage) -> None:
    stage.repo.git("tag", "--delete", "v1.0")
    stage.repo.push()


def _configured(stage: Stage) -> None:
    """A signature program, a monitor, hooks and filters in the repository's own configuration."""
    stage.repo.write(".gitattributes", "* filter=evil\n")
    _unsigned(stage)
    _poison(stage, stage.repo.bare)


def _poison(stage: Stage, repository: Path) -> None:
    """Have a repository's configuration and hooks start a program, whatever git does in it."""
    for key in PROGRAMS:
        stage.repo.git("config", "--file", str(repository / "config"), key, str(stage.evil))
    (repository / "hooks").mkdir(exist_ok=True)
    for name in HOOKS:
        (repository / "hooks" / name).write_text(stage.evil.read_text())
        (repository / "hooks" / name).chmod(0o755)


def _planted(stage: Stage, mode: str, path: str, oid: str) -> None:
    """A signed release with an entry that no release may have."""
    stage.repo.git("update-index", "--add", "--cacheinfo", f"{mode},{oid},{path}")
    tree = stage.repo.git("write-tree")
    stage.repo.git("reset", "--quiet", "--hard", stage.good)
    stage.tag(stage.repo.git("commit-tree", "-m", "Planted", tree), stage.ada)


def _submodule(stage: Stage) -> None:
    _planted(stage, "160000", "lib", stage.good)


def _link(stage: Stage) -> None:
    target = stage.repo.write(".git/target", "../../../../etc/passwd")
    _planted(stage, "120000", "link", stage.repo.git("hash-object", "-w", str(target)))


def _heavy(stage: Stage, tree: str) -> None:
    stage.tag(stage.repo.git("commit-tree", "-m", "Heavy", tree), stage.ada)


def _huge(stage: Stage) -> None:
    _heavy(stage, tree_of_zeros(stage.repo, HUGE))


def _crowded(stage: Stage) -> None:
    _heavy(stage, tree_of_many(stage.repo, 100_000))


ATTACKS: dict[str, tuple[Callable[[Stage], None], str, str]] = {
    "an unsigned tag": (_unsigned, "unverified", "not signed"),
    "a foreign key": (_foreign, "unverified", "not in release.allowed_signers"),
    "a tag object under a higher name": (_replayed, "unverified", 'made as "v0.9"'),
    "a moved tag": (_moved, "moved", "was moved"),
    "a downgrade": (_downgraded, "downgrade", "older than v1.0"),
    "a hostile configuration": (_configured, "unverified", "not signed"),
    "a submodule": (_submodule, "content", "is a submodule"),
    "a link out of the tree": (_link, "content", "link out of the release"),
    "a huge blob": (_huge, "content", "more than 536.9 MB"),
    "a hundred thousand files": (_crowded, "content", "100000 files, more than 20000"),
}


@pytest.mark.timeout(900)
@pytest.mark.long
def test_every_attack_is_refused_and_the_files_arrive(bench: Bench, bucket: Bucket) -> None:
    """One after the other on one machine: what was refused and why is in each manifest; no canary ever appears."""
    stage = Stage(bench)
    assert bench.run().code == 0
    stage.remember()
    for name, (attack, kind, words) in ATTACKS.items():
        with stage.attacked(attack):
            ran = bench.run()
        assert ran.code == 0, f"{name}: {ran.stderr[-2000:]}"
        manifest = sound(bucket, ran.run_id)
        assert manifest.results == {"only/file"}
        release = manifest.release
        assert (release["commit"], release["trust"]) == (stage.good, "signed"), name
        assert release["verified_by"]["principal"] == "ada@example.com"
        (refused,) = release["refused"]
        assert (refused["kind"], words in refused["reason"]) == (kind, True), (name, refused)
        assert bucket.run(ran.run_id).files["only/file"] == b"good\n"
    after = bucket.run(bench.run().run_id).release
    assert (after["commit"], after["stale"], after["refused"]) == (stage.good, None, [])


def test_a_branch_that_is_forced_back_is_refused(bench: Bench, bucket: Bucket) -> None:
    """An older commit, also a signed one, does not run again; the last good one does, and the manifest says why."""
    stage = Stage(bench)
    bench.settings["release.branch"] = "main"
    files = {"jobs.toml": JOB, "job.sh": SCRIPT}
    commits = []
    for number in range(2):
        for path, text in {**files, "number": str(number)}.items():
            stage.repo.write(path, text)
        commits.append(stage.repo.commit_signed(stage.ada))
        stage.repo.push()
        assert bench.run().code == 0
    stage.repo.git("reset", "--quiet", "--hard", commits[0])
    stage.repo.push()
    ran = bench.run()
    manifest = sound(bucket, ran.run_id)
    release = manifest.release
    (refused,) = release["refused"]
    assert (ran.code, release["commit"], refused["kind"]) == (0, commits[1], "downgrade")
    assert "forced back" in refused["reason"]
    assert bucket.run(ran.run_id).files["only/file"] == b"good\n"


def test_a_good_release_from_a_poisoned_repository_runs_and_starts_nothing(
    bench: Bench, bucket: Bucket
) -> None:
    """Attributes in the release, configuration and hooks of both repositories, and git's own at home: no canary."""
    stage = Stage(bench)
    assert bench.run().code == 0
    text = "$Id$ $Format:%H$\n"
    attributes = "* filter=evil diff=evil ident export-subst text eol=crlf\n"
    files = {
        ".gitattributes": attributes,
        ".lfsconfig": f"[lfs]\n\turl = {stage.evil}\n",
        "t": text,
    }
    commit = stage.repo.release("v2.0", files, signer=stage.ada)
    for repository in (stage.repo.bare, bench.state / "mirror.git"):
        _poison(stage, repository)
    (stage.repo.bare / "config").rename(bench.folder / ".gitconfig")
    shutil.copy(bench.folder / ".gitconfig", stage.repo.bare / "config")
    ran = bench.run()
    assert ran.code == 0, ran.stderr[-2000:]
    release = bucket.run(ran.run_id).release
    assert (release["commit"], release["refused"], release["trust"]) == (commit, [], "signed")
    assert (bench.good / "tree" / "t").read_text() == text
    assert not stage.canary.exists()
