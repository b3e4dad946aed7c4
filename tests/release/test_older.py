"""When the newest release is refused, the next older one runs, and every refusal is reported with its reason."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.base.errors import ReleaseError
from agent.release.operate import rollback
from tests.parts.repo import Repo, Signer
from tests.release.conftest import JOBS, LOCKED_JOBS, PROJECT, VERSION, Computer, reason_of

pytestmark = pytest.mark.usefixtures("git_server")

BROKEN_LOCK = {"pyproject.toml": PROJECT, "uv.lock": "version = ", "jobs.toml": LOCKED_JOBS}


def _replayed(repo: Repo) -> None:
    """The signed tag object of an older release under a newer name."""
    repo.git("update-ref", "refs/tags/v3.0", "refs/tags/v1.0")
    repo.push()


def _broken(repo: Repo) -> None:
    repo.release("v3.0", {"jobs.toml": "[[job]"})


def _no_commit(repo: Repo) -> None:
    """A tag of a file; git itself does not take it for a release."""
    repo.git("tag", "v3.0", repo.git("rev-parse", "HEAD:jobs.toml"))
    repo.push()


def _uninstallable(repo: Repo) -> None:
    repo.release("v3.0", BROKEN_LOCK)


NEWEST: dict[str, tuple[Callable[[Repo], None], str, str]] = {
    "jobs": (_broken, "content", "not valid TOML"),
    "no commit": (_no_commit, "content", "git"),
    "lock": (_uninstallable, "install", "uv sync"),
}


@pytest.mark.parametrize("name", NEWEST)
async def test_on_a_first_boot_the_next_older_release_runs(
    computer: Computer, repo_builder: Repo, name: str
) -> None:
    """It is on trial like any new one, and the record says what was wanted and why that does not run."""
    publish, kind, words = NEWEST[name]
    commit = repo_builder.release("v2.0", {"jobs.toml": JOBS})
    publish(repo_builder)
    for known in (kind, "bad" if kind == "install" else kind):
        obtained = await computer.obtain()
        assert (obtained.release.ref, obtained.release.commit) == ("v2.0", commit)
        assert obtained.on_trial
        (refused,) = obtained.record.refused
        assert (refused.ref, refused.kind) == ("v3.0", known)
        assert obtained.stale is not None
        assert obtained.stale.wanted == "v3.0"
        assert words in refused.reason
    told = computer.told("release.refused")
    assert [(event["ref"], event["level"]) for event in told] == [("v3.0", "warning")] * 2


async def test_a_replayed_signature_does_not_keep_a_first_boot_from_its_release(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """Nor do several tags in a row; each is reported."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS}, signer=ada)
    good = repo_builder.release("v2.0", {"good": "x"}, signer=ada)
    _replayed(repo_builder)
    repo_builder.release("v4.0", {"evil": "x"})
    obtained = await computer.run_well(allowed_signers=signers)
    assert obtained.release.commit == good
    assert obtained.record.verified_by is not None
    assert [(each.ref, each.kind) for each in obtained.record.refused] == [
        ("v4.0", "unverified"),
        ("v3.0", "unverified"),
    ]
    again = await computer.obtain(allowed_signers=signers)
    assert (again.release.commit, again.on_trial) == (good, False)
    assert len(again.record.refused) == 2


async def test_nothing_older_than_what_ran_before_takes_the_place(
    computer: Computer, repo_builder: Repo
) -> None:
    """Between the last good release and the newest there is one to try; below it there is none."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    good = await computer.ran(repo_builder, "v2.0", {"good": "x"})
    _broken(repo_builder)
    assert (await computer.obtain()).release.commit == good
    middle = repo_builder.release("v2.5", {"jobs.toml": JOBS})
    obtained = await computer.obtain()
    assert (obtained.release.commit, obtained.on_trial) == (middle, True)
    repo_builder.git("tag", "--delete", "v2.5", "v2.0")
    repo_builder.push()
    assert (await computer.obtain()).release.commit == good


async def test_what_an_operator_went_back_to_stays(computer: Computer, repo_builder: Repo) -> None:
    """A release that lies between the two was passed over by a person."""
    good = await computer.ran(repo_builder, "v1.0")
    repo_builder.release("v1.5", {"middle": "x"})
    await computer.ran(repo_builder, "v2.0", {"newest": "x"})
    await computer.decide(rollback, None, version=VERSION, reason="")
    for _ in range(2):
        obtained = await computer.obtain()
        assert obtained.release.commit == good
        assert [each.ref for each in obtained.record.refused] == ["v2.0"]


async def test_when_no_release_can_run_every_reason_is_told(
    computer: Computer, repo_builder: Repo
) -> None:
    """Of as many as are tried; how many were not is a warning in the log."""
    repo_builder.release("v0.1", {"jobs.toml": JOBS})
    for number in range(1, 7):
        repo_builder.release(f"v{number}.0", {"jobs.toml": f"broken {number}"})
    with pytest.raises(
        ReleaseError, match=r"no usable release: v6\.0 was rejected .*there is no earlier one"
    ) as caught:
        await computer.obtain()
    for number in (6, 5, 4, 3, 2):
        assert f"v{number}.0 was rejected (" in str(caught.value)
    assert [event["ref"] for event in computer.told("release.untried")] == ["v1.0"]


async def test_an_older_release_that_cannot_be_had_leaves_the_first_reason(
    computer: Computer, repo_builder: Repo
) -> None:
    """A disk that refuses the next one ends the attempt; the last good release runs, and both are told."""
    good = await computer.ran(repo_builder, "v1.0")
    commit = repo_builder.release("v2.0", {"next": "x"})
    _broken(repo_builder)
    (computer.release_store.releases / f"{commit}").write_text("in the way")
    obtained = await computer.obtain()
    assert obtained.release.commit == good
    assert "not valid TOML" in reason_of(obtained)
    assert any("v2.0 could not be fetched" in warning for warning in obtained.warnings)
