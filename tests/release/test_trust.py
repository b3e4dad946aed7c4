"""Attacks on a release whose signers are known: each is refused with its reason, and the last good release runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import ReleaseError
from agent.release.obtain import Obtained
from agent.release.store import bake
from tests.parts.repo import Repo, Signer, make_signer
from tests.release.conftest import JOBS, Computer, reason_of

pytestmark = pytest.mark.usefixtures("git_server")


async def test_a_signed_tag_runs_and_its_signer_is_recorded(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """The manifest has the principal and the fingerprint of the key, also when nothing had to be fetched."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS}, signer=ada)
    for _ in range(2):
        record = (await computer.run_well(allowed_signers=signers)).record
        assert record.trust == "signed"
        assert record.verified_by is not None
        assert record.verified_by.principal == "ada@example.com"
        assert record.verified_by.key.startswith("SHA256:")
        assert (record.stale, record.refused) == (None, ())
    assert len(computer.told("release.installed")) == 1


async def test_without_signers_nothing_is_verified_and_the_record_says_so(
    computer: Computer, repo_builder: Repo
) -> None:
    """Only a machine warns about it, and only until somebody has said that it is meant."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    obtained = await computer.run_well(trust="none")
    assert (obtained.record.trust, obtained.record.verified_by) == ("none", None)
    assert obtained.warnings == ()
    assert (await computer.obtain()).warnings == ()
    computer.machine = True
    assert "not verified" in (await computer.obtain()).warnings[0]
    assert (await computer.obtain(trust="none")).warnings == ()


def _unsigned(repo: Repo, _mallory: Signer, _ada: Signer) -> None:
    repo.release("v2.0", {"evil": "x"})


def _lightweight(repo: Repo, _mallory: Signer, _ada: Signer) -> None:
    repo.write("evil", "x")
    repo.commit()
    repo.tag("v2.0", annotated=False)
    repo.push()


def _foreign(repo: Repo, mallory: Signer, _ada: Signer) -> None:
    repo.release("v2.0", {"evil": "x"}, signer=mallory)


def _replayed(repo: Repo, _mallory: Signer, _ada: Signer) -> None:
    repo.git("update-ref", "refs/tags/v3.0", "refs/tags/v1.0")
    repo.push()


def _replayed_on_another_commit(repo: Repo, _mallory: Signer, _ada: Signer) -> None:
    """A tag object of one's own that carries the signature of another."""
    repo.write("evil", "x")
    commit = repo.commit()
    old = repo.git("cat-file", "tag", "v1.0")
    headers = f"object {commit}\ntype commit\ntag v2.0\n"
    text = headers + old[old.index("tagger ") :] + "\n"
    file = repo.work / ".forged"
    file.write_text(text)
    oid = repo.git("hash-object", "-w", "-t", "tag", str(file))
    file.unlink()
    repo.git("update-ref", "refs/tags/v2.0", oid)
    repo.push()


def _moved(repo: Repo, _mallory: Signer, ada: Signer) -> None:
    repo.write("evil", "x")
    repo.commit()
    repo.tag("v1.0", signer=ada, force=True)
    repo.push()


def _downgrade(repo: Repo, _mallory: Signer, _ada: Signer) -> None:
    repo.git("tag", "--delete", "v1.0")
    repo.push()


def _other_namespace(repo: Repo, _mallory: Signer, ada: Signer) -> None:
    """A signature over the same text that was made for something else than git."""
    repo.write("evil", "x")
    commit = repo.commit()
    text = f"object {commit}\ntype commit\ntag v2.0\ntagger A <a@x> 1767225900 +0000\n\nx\n"
    file = repo.work / ".tag"
    file.write_text(text)
    command = ("ssh-keygen", "-q", "-Y", "sign", "-f", str(ada.key), "-n", "file", str(file))
    repo.git("-c", f"alias.sign=!{' '.join(command)}", "sign")
    signature = file.with_name(".tag.sig").read_text()
    file.write_text(text + signature)
    oid = repo.git("hash-object", "-w", "-t", "tag", str(file))
    file.unlink()
    repo.git("update-ref", "refs/tags/v2.0", oid)
    repo.push()


Attack = Callable[[Repo, Signer, Signer], None]
ATTACKS: dict[str, tuple[Attack, str, str]] = {
    "unsigned": (_unsigned, "unverified", "the tag is not signed"),
    "lightweight": (_lightweight, "unverified", "lightweight"),
    "foreign": (_foreign, "unverified", "a key that is not in release.allowed_signers"),
    "replayed": (_replayed, "unverified", 'made as "v1.0"'),
    "forged": (_replayed_on_another_commit, "unverified", "no valid ssh signature"),
    "moved": (_moved, "moved", "was moved"),
    "downgrade": (_downgrade, "downgrade", "older than v1.0"),
    "namespace": (_other_namespace, "unverified", "the tag"),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_is_refused_and_the_last_good_release_runs(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path, name: str
) -> None:
    """The record says what was refused, at which step and why; nothing of it was written to disk."""
    attack, kind, words = ATTACKS[name]
    repo_builder.release("v0.9", {"jobs.toml": JOBS}, signer=ada)
    good = await computer.ran(
        repo_builder, "v1.0", {"good": "x"}, signer=ada, allowed_signers=signers
    )
    attack(repo_builder, make_signer(signers.parent, "mallory@example.com"), ada)
    for _ in range(2):
        obtained = await computer.obtain(allowed_signers=signers)
        _refused(obtained, good, kind, words)
    assert not list(computer.release_store.releases.glob("*/tree/evil"))


def _refused(obtained: Obtained, good: str, kind: str, words: str) -> None:
    assert obtained.release.commit == good
    (refused,) = obtained.record.refused
    assert refused.kind == kind
    assert words in refused.reason
    assert reason_of(obtained) == refused.reason
    assert obtained.record.verified_by is not None


async def test_a_tag_of_another_kind_of_signature_starts_no_program(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path, tmp_path: Path
) -> None:
    """A tag with an OpenPGP signature would have git call gpg; nothing of the sort is started."""
    await computer.ran(repo_builder, "v1.0", signer=ada, allowed_signers=signers)
    canary = tmp_path / "canary"
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gpg", "gpgsm"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (programs / name).chmod(0o755)
    computer.environ["PATH"] = f"{programs}:{computer.environ['PATH']}"
    commit = repo_builder.commit()
    text = f"object {commit}\ntype commit\ntag v2.0\ntagger A <a@x> 1767225900 +0000\n\nx\n"
    text += "-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n"
    (repo_builder.work / ".tag").write_text(text)
    oid = repo_builder.git("hash-object", "-w", "-t", "tag", ".tag")
    repo_builder.git("update-ref", "refs/tags/v2.0", oid)
    repo_builder.push()
    obtained = await computer.obtain(allowed_signers=signers)
    assert obtained.record.refused[0].kind == "unverified"
    assert not canary.exists()


async def test_a_mirror_that_was_tampered_with_verifies_as_before(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path, tmp_path: Path
) -> None:
    """A program in the mirror's configuration that calls every signature good is never started."""
    await computer.ran(repo_builder, "v1.0", signer=ada, allowed_signers=signers)
    canary = tmp_path / "canary"
    evil = tmp_path / "evil"
    line = 'Good "git" signature for ada@example.com with ED25519 key SHA256:abc'
    evil.write_text(f"#!/bin/sh\ntouch {canary}\necho '{line}'\n")
    evil.chmod(0o755)
    config = (
        f'[gpg "ssh"]\n\tprogram = {evil}\n\tallowedSignersFile = /dev/null\n'
        f"[gpg]\n\tprogram = {evil}\n[core]\n\tfsmonitor = {evil}\n\thooksPath = {tmp_path}\n"
    )
    for name in ("config", ".gitconfig"):
        with (computer.release_store.mirror / name).open("a") as stream:
            stream.write(config)
    repo_builder.release("v2.0", {"evil": "x"})
    obtained = await computer.obtain(allowed_signers=signers)
    assert obtained.record.refused[0].kind == "unverified"
    assert not canary.exists()


@pytest.mark.parametrize(
    "content", [None, b"", b"# nobody\n\n"], ids=["missing", "empty", "nobody"]
)
async def test_without_the_file_only_what_was_verified_before_runs(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path, content: bytes | None
) -> None:
    """The reason names the file and what to do; a release that was never verified does not run."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS}, signer=ada)
    lines = signers.read_bytes()
    signers.unlink()
    if content is not None:
        signers.write_bytes(content)
    with pytest.raises(ReleaseError, match="allowed_signers") as caught:
        await computer.obtain(allowed_signers=signers)
    assert "one line a signer" in caught.value.remedy
    signers.write_bytes(lines)
    await computer.run_well(allowed_signers=signers)
    repo_builder.release("v2.0", {"more": "x"}, signer=ada)
    signers.unlink()
    obtained = await computer.obtain(allowed_signers=signers)
    assert obtained.release.ref == "v1.0"
    assert "allowed_signers" in obtained.record.refused[0].reason


async def test_what_ran_before_signatures_were_asked_for_is_verified_first(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """Turning verification on takes a signed release that is on disk as it is, and refuses an unsigned one."""
    await computer.ran(repo_builder, "v1.0", signer=ada)
    assert (await computer.run_well(allowed_signers=signers)).record.verified_by is not None
    assert len(computer.told("release.installed")) == 1
    await computer.ran(repo_builder, "v2.0", {"more": "x"})
    with pytest.raises(ReleaseError, match="the tag is not signed"):
        await computer.obtain(allowed_signers=signers)


async def test_a_signer_who_is_taken_out_is_out_at_once(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path, tmp_path: Path
) -> None:
    """Also the last good release is verified again before every run, without a network."""
    await computer.ran(repo_builder, "v1.0", signer=ada, allowed_signers=signers)
    signers.write_text(make_signer(tmp_path, "bob@example.com").allowed_signers_line)
    with pytest.raises(ReleaseError, match=r"not in release\.allowed_signers"):
        await computer.obtain(allowed_signers=signers, repository=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("option", "runs"),
    [
        ('valid-before="20270101"', True),
        ('valid-before="20251231"', False),
        ('valid-after="20270101"', False),
    ],
)
async def test_a_key_counts_while_it_is_valid(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path, option: str, *, runs: bool
) -> None:
    """What counts is the time of the tag, so that old releases stay good when a key runs out."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS}, signer=ada)
    name, _, rest = ada.allowed_signers_line.partition(" ")
    signers.write_text(f"{name} {option},{rest}")
    if runs:
        assert (await computer.obtain(allowed_signers=signers)).record.verified_by is not None
    else:
        with pytest.raises(ReleaseError, match=r"signed|no valid"):
            await computer.obtain(allowed_signers=signers)


async def test_a_branch_goes_by_its_commits_and_not_back(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """The head must be signed; forced back to an older commit, also a signed one, it is refused."""
    follow: dict[str, Any] = {"branch": "main", "allowed_signers": signers}
    repo_builder.write("jobs.toml", JOBS)
    first = repo_builder.commit_signed(ada)
    repo_builder.push()
    assert (await computer.run_well(**follow)).release.commit == first
    repo_builder.write("more", "x")
    second = repo_builder.commit_signed(ada)
    repo_builder.push()
    assert (await computer.run_well(**follow)).release.commit == second
    repo_builder.git("reset", "--quiet", "--hard", first)
    repo_builder.push()
    _refused(await computer.obtain(**follow), second, "downgrade", "forced back")
    repo_builder.git("reset", "--quiet", "--hard", second)
    repo_builder.write("more", "y")
    repo_builder.commit()
    repo_builder.push()
    _refused(await computer.obtain(**follow), second, "unverified", "the commit is not signed")


async def test_the_floor_is_that_of_the_last_good_release_or_the_image(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """Where nothing is known any more, nothing older than the image's release runs all the same."""
    await computer.ran(repo_builder, "v1.0", signer=ada, allowed_signers=signers)
    good = repo_builder.release("v2.0", {"more": "x"}, signer=ada)
    obtained = await computer.run_well(allowed_signers=signers)
    repo_builder.git("tag", "--delete", "v2.0")
    repo_builder.push()
    _refused(await computer.obtain(allowed_signers=signers), good, "downgrade", "older than v2.0")
    bake(computer.release_store, obtained.release)
    computer.release_store.copy.unlink()
    _refused(await computer.obtain(allowed_signers=signers), good, "downgrade", "older than v2.0")


async def test_without_verification_a_step_back_runs_and_is_told(
    computer: Computer, repo_builder: Repo
) -> None:
    """Who deletes a tag where nothing is signed means it; the warning says what ran before."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    await computer.ran(repo_builder, "v2.0", {"more": "x"})
    repo_builder.git("tag", "--delete", "v2.0")
    repo_builder.push()
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    assert "older than v2.0" in obtained.warnings[0]


async def test_the_signed_object_is_kept_with_the_release(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """It is verified again when the mirror is gone; one that was changed on disk is refused."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS}, signer=ada)
    release = (await computer.run_well(allowed_signers=signers)).release
    nowhere: dict[str, Any] = {
        "allowed_signers": signers,
        "repository": str(computer.state / "nowhere"),
    }
    await computer.obtain(**nowhere)
    signed = release.marker.signed_object
    assert signed is not None
    marker = release.root / "release.json"
    text = marker.read_text()
    forged = replace(signed, data=signed.data.replace(b"Release v1.0", b"Release v1.O"))
    changed = text.replace(signed.text, forged.text)
    assert changed != text
    marker.write_text(changed)
    with pytest.raises(ReleaseError, match="no valid ssh signature"):
        await computer.obtain(**nowhere)
