"""Attacks on a machine that verifies, through the real `mayfly run`: the last good release does the day's work.

`tests/release/` has each attack by itself. `MAYFLY_TEST_HUGE=1` makes the huge blob one of 2 GiB; every day it is just
larger than a release may be.
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket, Run
from tests.bucket.sound import sound
from tests.parts.command import script
from tests.parts.heavy import tree_of_zeros
from tests.parts.repo import Signer, make_signer
from tests.run.bench import Bench, job

HUGE = (2048 if os.environ.get("MAYFLY_TEST_HUGE") else 576) * 1024**2
SCRIPT = 'echo good > "$MAYFLY_OUTPUT_DIR/file"\n'
FILES = {"jobs.toml": job("only", ["sh", "job.sh"]), "job.sh": SCRIPT}
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


@pytest.fixture
def ada(bench: Bench) -> Signer:
    """Who may publish."""
    signer = make_signer(bench.folder)
    signers = bench.folder / "allowed_signers"
    signers.write_text(signer.allowed_signers_line)
    bench.settings["release.allowed_signers"] = str(signers)
    return signer


def refused(bench: Bench, bucket: Bucket, good: str, kind: str, words: str) -> Run:
    """Do a run, in which the last good release does the work because a newer one is refused."""
    run = sound(bucket, bench.run(code=0).run_id)
    assert run.files == {"only/file": b"good\n"}
    assert (run.release["commit"], run.release["trust"]) == (good, "signed")
    assert run.release["verified_by"]["principal"] == "ada@example.com"
    (one,) = run.release["refused"]
    assert (one["kind"], words in one["reason"]) == (kind, True), one
    return run


@pytest.mark.long
def test_a_huge_release_is_refused_and_the_files_arrive(
    bench: Bench, bucket: Bucket, ada: Signer
) -> None:
    """It is a small pack, with a signature; what was refused and why is in the manifest until it is gone."""
    good = bench.repo.release("v1.0", FILES, signer=ada)
    bench.run(code=0)
    heavy = bench.repo.git("commit-tree", "-m", "Heavy", tree_of_zeros(bench.repo, HUGE))
    bench.repo.tag("v2.0", at=heavy, signer=ada)
    bench.repo.push()
    refused(bench, bucket, good, "content", "more than 536.9 MB")
    bench.repo.git("tag", "--delete", "v2.0")
    bench.repo.push()
    after = bucket.run(bench.run().run_id).release
    assert (after["commit"], after["stale"], after["refused"]) == (good, None, [])


def test_a_poisoned_repository_starts_nothing(bench: Bench, bucket: Bucket, ada: Signer) -> None:
    """Attributes in a release, configuration and hooks of both repositories, and git's own at home: no canary."""
    canary = bench.folder / "canary"
    evil = script(bench.folder / "evil.sh", f"#!/bin/sh\ntouch {canary}\ncat\n")
    bench.repo.release("v1.0", FILES, signer=ada)
    bench.run(code=0)
    text = "$Id$ $Format:%H$\n"
    hostile = {
        ".gitattributes": "* filter=evil diff=evil ident export-subst text eol=crlf\n",
        ".lfsconfig": f"[lfs]\n\turl = {evil}\n",
        "t": text,
    }
    good = bench.repo.release("v2.0", hostile, signer=ada)
    bench.repo.write("job.sh", f"touch {canary}\n")
    unsigned = bench.repo.commit()
    bench.repo.push()
    for repository in (bench.repo.bare, bench.state / "mirror.git"):
        for key in PROGRAMS:
            bench.repo.git("config", "--file", str(repository / "config"), key, str(evil))
        (repository / "hooks").mkdir(exist_ok=True)
        for name in HOOKS:
            shutil.copy(evil, repository / "hooks" / name)
    shutil.copy(bench.repo.bare / "config", bench.folder / ".gitconfig")
    run = sound(bucket, bench.run(code=0).run_id)
    release = run.release
    assert (release["commit"], release["refused"], release["trust"]) == (good, [], "signed")
    assert (bench.good / "tree" / "t").read_text() == text
    # A tag that git here did not make: it would have started what is to be found out.
    Path(bench.repo.bare, "refs", "tags", "v3.0").write_text(f"{unsigned}\n")
    refused(bench, bucket, good, "unverified", "lightweight")
    assert not canary.exists()
