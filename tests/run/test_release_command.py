"""`mayfly release`: what an operator sees and does, each through the real command and the runs after it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bucket.bucket import Bucket
from tests.parts.repo import Repo, Signer, make_signer
from tests.run.bench import Bench, job


def jobs(version: str) -> str:
    """Return a jobs file of a version."""
    return job("only", f"echo {version} > $MAYFLY_OUTPUT_DIR/file")


def mayfly(
    bench: Bench, *arguments: str, at: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run `mayfly release ...` on the workbench."""
    git = {"GIT_AUTHOR_DATE": "", "GIT_CONFIG_NOSYSTEM": "1"}
    options = ("--set", f"paths.state={bench.state}", "--store", bench.store)
    return bench.mayfly("release", *arguments, *options, at=at, **git)


def listed(bench: Bench) -> dict[str, dict[str, Any]]:
    """Return what `mayfly release list` knows, by ref."""
    done = mayfly(bench, "list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["ref"]: row for row in json.loads(done.stdout)["releases"]}


def ran(bench: Bench, bucket: Bucket) -> tuple[str, dict[str, Any]]:
    """Do a run, and return the release's ref and what the manifest says of it."""
    release = bucket.run(bench.run(code=0).run_id).release
    return release["ref"], release


def versions(bench: Bench, *names: str) -> None:
    """Publish versions, and run each."""
    for name in names:
        bench.release(name, jobs(name))
        bench.run(code=0)


def test_an_operator_goes_back_and_the_next_release_goes_on(bench: Bench, bucket: Bucket) -> None:
    """After a rollback the older release runs, and the manifest says why; a newer one is taken again."""
    versions(bench, "v1.0", "v2.0")
    assert listed(bench)["v2.0"]["good"]
    done = mayfly(bench, "rollback")
    assert done.returncode == 0, done.stderr
    assert "v1.0" in done.stdout.splitlines()[0]
    ref, release = ran(bench, bucket)
    assert ref == "v1.0"
    assert "an operator went back" in release["stale"]["reason"]
    rows = listed(bench)
    assert (rows["v1.0"]["good"], rows["v2.0"]["bad"]["operator"]) == (True, True)
    bench.release("v3.0", jobs("v3.0"))
    assert ran(bench, bucket)[0] == "v3.0"


def test_a_repository_of_longer_names_is_operated_alike(bench: Bench, bucket: Bucket) -> None:
    """In git's SHA-256 format releases run, are listed, found by the beginning of a commit, and left again."""
    bench.repo = Repo(bench.folder, object_format="sha256")
    versions(bench, "v1.0", "v2.0")
    commit = listed(bench)["v1.0"]["commit"]
    assert len(commit) == 64
    assert mayfly(bench, "rollback", "--to", commit[:12]).returncode == 0
    ref, release = ran(bench, bucket)
    assert (ref, release["commit"]) == ("v1.0", commit)


def test_a_pinned_release_runs_until_it_is_unpinned(bench: Bench, bucket: Bucket) -> None:
    """One that is here needs no git; one that is not is fetched; a commit will do for a name."""
    versions(bench, "v1.0")
    bench.release("v1.5", jobs("v1.5"))
    versions(bench, "v2.0")
    commit = listed(bench)["v1.0"]["commit"]
    assert mayfly(bench, "pin", commit[:10]).returncode == 0
    bare = bench.repo.bare.rename(bench.repo.bare.with_suffix(".away"))
    assert ran(bench, bucket)[0] == "v1.0"
    bare.rename(bench.repo.bare)
    assert "the next run looks for it" in mayfly(bench, "pin", "v1.5").stdout
    assert ran(bench, bucket)[0] == "v1.5"
    assert "unpinned v1.5" in mayfly(bench, "unpin").stdout
    assert ran(bench, bucket)[0] == "v2.0"
    assert "nothing was pinned" in mayfly(bench, "unpin").stdout


def test_what_cannot_be_done_says_so(bench: Bench) -> None:
    """Nothing to go back to, an unknown release, a run under way: usage errors, with what is known."""
    assert mayfly(bench, "list").stdout == "no release is known yet\n"
    assert mayfly(bench, "rollback").returncode == 2
    versions(bench, "v1.0")
    assert "no earlier good release" in mayfly(bench, "rollback").stderr
    assert 'no other release "v9"' in mayfly(bench, "rollback", "--to", "v9").stderr
    assert mayfly(bench, "show", "v9").returncode == 2
    assert "v1.0" in mayfly(bench, "show", "v1.0").stdout
    assert "good" in mayfly(bench, "list").stdout


@pytest.fixture
def author(bench: Bench) -> Signer:
    """Somebody with a key, an identity, and a clean working tree that has jobs."""
    bench.repo.write("jobs.toml", jobs("1"))
    bench.repo.commit()
    bench.repo.git("config", "user.name", "Ada")
    bench.repo.git("config", "user.email", "ada@example.com")
    return make_signer(bench.folder)


def test_a_new_release_is_signed_verified_pushed_and_run(
    bench: Bench, bucket: Bucket, author: Signer
) -> None:
    """From the working tree to a machine that verifies: the command says who signed, and the machine agrees."""
    signers = bench.folder / "allowed_signers"
    signers.write_text(author.allowed_signers_line)
    bench.repo.git("config", "user.signingKey", str(author.key))
    new = ("new", "v1.0", "--allowed-signers", str(signers), "--push", "--json")
    done = mayfly(bench, *new, at=bench.repo.work)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["pushed"], made["signer"]["principal"]) == (True, "ada@example.com")
    bench.settings["release.allowed_signers"] = str(signers)
    ref, release = ran(bench, bucket)
    assert (ref, release["commit"], release["trust"]) == ("v1.0", made["commit"], "signed")
    assert release["verified_by"] == made["signer"]


def test_a_new_release_that_no_machine_would_run_is_not_made(bench: Bench, author: Signer) -> None:
    """Changes, faults, an old number, a name nobody follows, a foreign key: each is said, and no tag is left."""
    work, key = bench.repo.work, ("--key", str(author.key))
    foreign = bench.folder / "foreign_signers"
    foreign.write_text(make_signer(bench.folder, "bob@example.com").allowed_signers_line)
    assert "no key to sign with" in mayfly(bench, "new", "v1.0", at=work).stderr
    done = mayfly(bench, "new", "v1.0", *key, "--allowed-signers", str(foreign), at=work)
    assert (done.returncode, "machines would reject it" in done.stderr) == (5, True)
    assert bench.repo.git("tag", "--list") == ""
    (work / "more").write_text("x")
    assert "has changes: more" in mayfly(bench, "new", "v1.0", *key, at=work).stderr
    bench.repo.commit()
    assert "which machines follow" in mayfly(bench, "new", "1.0", *key, at=work).stderr
    done = mayfly(bench, "new", "v1.0", *key, at=work)
    assert done.returncode == 0, done.stderr
    assert author.allowed_signers_line.strip() in done.stdout
    assert "git push origin v1.0" in done.stdout
    assert "v1.0 already" in mayfly(bench, "new", "v1.0", *key, at=work).stderr
    assert "is older than v1.0" in mayfly(bench, "new", "v0.9", *key, at=work).stderr
    bench.repo.write("jobs.toml", job("X", "true"))
    bench.repo.commit()
    done = mayfly(bench, "new", "v1.1", *key, at=work)
    assert (done.returncode, "job[X].name" in done.stderr) == (4, True)
