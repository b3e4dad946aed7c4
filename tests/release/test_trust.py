"""Attacks on a release whose signers are known: each is refused with its reason, and the last good release runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.base.errors import ReleaseError
from agent.release.obtain import Obtained
from agent.release.store import bake
from tests.parts.repo import Repo, Signer, make_signer
from tests.release.conftest import JOBS, Computer, kinds, reason_of

TAGGER = "tagger A <a@x> 1767225900 +0000"


async def test_without_signers_nothing_is_verified_and_the_record_says_so(
    computer: Computer,
) -> None:
    """Only a machine warns about it, until somebody said that it is meant; a step back runs, and is told."""
    computer.publish("v0.9")
    computer.publish("v1.0", {"more": "x"})
    obtained = await computer.run_well(trust="none")
    assert (obtained.record.trust, obtained.record.verified_by) == ("none", None)
    assert obtained.warnings == ()
    assert (await computer.obtain()).warnings == ()
    computer.context["machine"] = True
    assert "not verified" in (await computer.obtain()).warnings[0]
    assert (await computer.obtain(trust="none")).warnings == ()
    computer.git("tag", "--delete", "v1.0")
    obtained = await computer.obtain(trust="none")
    assert obtained.release.ref == "v0.9"
    assert "older than v1.0" in obtained.warnings[0]


def _unsigned(signed: Computer) -> None:
    signed.repo.release("v2.0", {"evil": "x"})


def _lightweight(signed: Computer) -> None:
    signed.commit({"evil": "x"})
    signed.git("tag", "v2.0")


def _foreign(signed: Computer) -> None:
    signed.signer = make_signer(signed.state.parent, "mallory@example.com")
    signed.publish("v2.0", {"evil": "x"})


def _replayed(signed: Computer) -> None:
    signed.git("update-ref", "refs/tags/v3.0", "refs/tags/v1.0")


def _replayed_on_another_commit(signed: Computer) -> None:
    """A tag object of one's own that carries the signature of another."""
    old = signed.repo.git("cat-file", "tag", "v1.0")
    commit = signed.commit({"evil": "x"})
    _tag_of(signed.repo, f"{_headers(commit)}{old[old.index('tagger ') :]}\n")


def _moved(signed: Computer) -> None:
    signed.commit({"evil": "x"})
    signed.move("v1.0")


def _downgrade(signed: Computer) -> None:
    signed.git("tag", "--delete", "v1.0")


def _other_namespace(signed: Computer) -> None:
    """A signature over the same text that was made for something else than git."""
    assert signed.signer is not None
    text = f"{_headers(signed.commit({'evil': 'x'}))}{TAGGER}\n\nx\n"
    file = signed.repo.work / ".tag"
    file.write_text(text)
    key = signed.signer.key
    command = ("ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", "file", str(file))
    signed.repo.git("-c", f"alias.sign=!{' '.join(command)}", "sign")
    _tag_of(signed.repo, text + file.with_name(".tag.sig").read_text())


def _headers(commit: str) -> str:
    return f"object {commit}\ntype commit\ntag v2.0\n"


def _tag_of(repo: Repo, text: str) -> None:
    """Push a tag object that git itself would not make as v2.0."""
    file = repo.work / ".forged"
    file.write_text(text)
    oid = repo.git("hash-object", "-w", "-t", "tag", str(file))
    file.unlink()
    repo.git("update-ref", "refs/tags/v2.0", oid)
    repo.push()


@pytest.mark.parametrize(
    ("attack", "kind", "words"),
    [
        (_unsigned, "unverified", "the tag is not signed"),
        (_lightweight, "unverified", "lightweight"),
        (_foreign, "unverified", "a key that is not in release.allowed_signers"),
        (_replayed, "unverified", 'made as "v1.0"'),
        (_replayed_on_another_commit, "unverified", "no valid ssh signature"),
        (_moved, "moved", "was moved"),
        (_downgrade, "downgrade", "older than v1.0"),
        (_other_namespace, "unverified", "the tag"),
    ],
)
async def test_an_attack_is_refused_and_the_last_good_release_runs(
    signed: Computer, attack: Callable[[Computer], None], kind: str, words: str
) -> None:
    """The record says what was refused, at which step and why; nothing of it was written to disk."""
    signed.publish("v0.9")
    good = await signed.ran("v1.0", {"good": "x"})
    attack(signed)
    for _ in range(2):
        _refused(await signed.obtain(), good, kind, words)
    assert not list(signed.release_store.releases.glob("*/tree/evil"))


def _refused(obtained: Obtained, good: str, kind: str, words: str) -> None:
    assert obtained.release.commit == good
    (refused,) = obtained.record.refused
    assert refused.kind == kind
    assert words in refused.reason
    assert reason_of(obtained) == refused.reason
    assert obtained.record.verified_by is not None


async def test_no_program_that_others_name_verifies_a_release(
    signed: Computer, tmp_path: Path
) -> None:
    """Neither gpg for a tag with an OpenPGP signature, nor one in the mirror's configuration, which calls all good."""
    await signed.ran("v1.0")
    canary = tmp_path / "canary"
    programs = tmp_path / "programs"
    programs.mkdir()
    line = 'Good "git" signature for ada@example.com with ED25519 key SHA256:abc'
    for name in ("gpg", "gpgsm", "evil"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {canary}\necho '{line}'\n")
        (programs / name).chmod(0o755)
    signed.environ["PATH"] = f"{programs}:{signed.environ['PATH']}"
    evil = programs / "evil"
    config = (
        f'[gpg "ssh"]\n\tprogram = {evil}\n\tallowedSignersFile = /dev/null\n'
        f"[gpg]\n\tprogram = {evil}\n[core]\n\tfsmonitor = {evil}\n\thooksPath = {tmp_path}\n"
    )
    for name in ("config", ".gitconfig"):
        with (signed.release_store.mirror / name).open("a") as stream:
            stream.write(config)
    signed.repo.release("v3.0", {"evil": "x"})
    signature = "-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n"
    _tag_of(signed.repo, f"{_headers(signed.repo.commit())}{TAGGER}\n\nx\n{signature}")
    assert kinds(await signed.obtain()) == ["unverified", "unverified"]
    assert not canary.exists()


async def test_without_the_file_only_what_was_verified_before_runs(
    signed: Computer, signers: Path
) -> None:
    """The reason names the file and what to do; a release that was never verified does not run."""
    signed.publish("v1.0")
    away = signers.rename(signers.with_name("away"))
    with pytest.raises(ReleaseError, match="allowed_signers") as caught:
        await signed.obtain()
    assert "one line a signer" in caught.value.remedy
    away.rename(signers)
    await signed.run_well()
    signed.publish("v2.0", {"more": "x"})
    signers.unlink()
    obtained = await signed.obtain()
    assert obtained.release.ref == "v1.0"
    assert "allowed_signers" in obtained.record.refused[0].reason


async def test_what_ran_before_signatures_were_asked_for_is_verified_first(
    computer: Computer, ada: Signer, signers: Path
) -> None:
    """Turning verification on takes a signed release that is on disk as it is, and refuses an unsigned one."""
    computer.signer = ada
    await computer.ran("v1.0")
    assert (await computer.run_well(allowed_signers=signers)).record.verified_by is not None
    assert len(computer.told("release.installed")) == 1
    computer.signer = None
    await computer.ran("v2.0", {"more": "x"})
    with pytest.raises(ReleaseError, match="the tag is not signed"):
        await computer.obtain(allowed_signers=signers)


async def test_what_is_on_the_disk_is_verified_without_a_network(
    signed: Computer, signers: Path, tmp_path: Path
) -> None:
    """In every run: its signer is recorded; one that was changed is refused; who is taken out is out at once."""
    signed.publish("v1.0")
    release = (await signed.run_well()).release
    for repository in (signed.repository, str(tmp_path / "nowhere")):
        signed.repository = repository
        record = (await signed.obtain()).record
        assert (record.trust, record.refused) == ("signed", ())
        assert record.verified_by is not None
        assert record.verified_by.principal == "ada@example.com"
        assert record.verified_by.key.startswith("SHA256:")
    assert len(signed.told("release.installed")) == 1
    object_ = release.marker.signed_object
    assert object_ is not None
    marker = release.root / "release.json"
    text = marker.read_text()
    forged = replace(object_, data=object_.data.replace(b"Release v1.0", b"Release v1.O"))
    changed = text.replace(object_.text, forged.text)
    assert changed != text
    marker.write_text(changed)
    with pytest.raises(ReleaseError, match="no valid ssh signature"):
        await signed.obtain()
    marker.write_text(text)
    signers.write_text(make_signer(tmp_path, "bob@example.com").allowed_signers_line)
    with pytest.raises(ReleaseError, match=r"not in release\.allowed_signers"):
        await signed.obtain()


@pytest.mark.parametrize(
    ("option", "runs"),
    [
        ('valid-before="20270101"', True),
        ('valid-before="20251231"', False),
        ('valid-after="20270101"', False),
    ],
)
async def test_a_key_counts_while_it_is_valid(
    signed: Computer, ada: Signer, signers: Path, option: str, *, runs: bool
) -> None:
    """What counts is the time of the tag, so that old releases stay good when a key runs out."""
    signed.publish("v1.0")
    name, _, rest = ada.allowed_signers_line.partition(" ")
    signers.write_text(f"{name} {option},{rest}")
    if runs:
        assert (await signed.obtain()).record.verified_by is not None
    else:
        with pytest.raises(ReleaseError, match=r"signed|no valid"):
            await signed.obtain()


async def test_a_branch_goes_by_its_commits_and_not_back(signed: Computer) -> None:
    """The head must be signed; forced back to an older commit, also a signed one, it is refused."""
    signed.settings["branch"] = "main"
    first = signed.commit({"jobs.toml": JOBS})
    assert (await signed.run_well()).release.commit == first
    second = signed.commit({"more": "x"})
    assert (await signed.run_well()).release.commit == second
    signed.git("reset", "--quiet", "--hard", first)
    _refused(await signed.obtain(), second, "downgrade", "forced back")
    signed.git("reset", "--quiet", "--hard", second)
    signed.signer = None
    signed.commit({"more": "y"})
    _refused(await signed.obtain(), second, "unverified", "the commit is not signed")


async def test_the_floor_is_that_of_the_last_good_release_or_the_image(signed: Computer) -> None:
    """Where nothing is known any more, nothing older than the image's release runs all the same."""
    await signed.ran("v1.0")
    good = signed.publish("v2.0", {"more": "x"})
    obtained = await signed.run_well()
    signed.git("tag", "--delete", "v2.0")
    _refused(await signed.obtain(), good, "downgrade", "older than v2.0")
    bake(signed.release_store, obtained.release)
    signed.release_store.copy.unlink()
    _refused(await signed.obtain(), good, "downgrade", "older than v2.0")
