"""When the newest release is refused, the next older one runs, and every refusal is reported with its reason."""

from collections.abc import Callable

import pytest

from agent.base.errors import ReleaseError
from agent.release.operate import rollback
from tests.parts.held import held
from tests.release.conftest import LOCKED_JOBS, PROJECT, VERSION, Computer, kinds, reason_of

BROKEN = {"jobs.toml": "[[job]"}
BROKEN_LOCK = {"pyproject.toml": PROJECT, "uv.lock": "version = ", "jobs.toml": LOCKED_JOBS}


def _tag_of_a_file(computer: Computer) -> None:
    """Git itself does not take it for a release."""
    computer.git("tag", "v3.0", computer.repo.git("rev-parse", "HEAD:jobs.toml"))


@pytest.mark.parametrize(
    ("publish", "kind", "known", "words"),
    [
        (lambda computer: computer.publish("v3.0", BROKEN), "content", "content", "not valid TOML"),
        (_tag_of_a_file, "content", "content", "git"),
        (lambda computer: computer.publish("v3.0", BROKEN_LOCK), "install", "bad", "uv sync"),
    ],
    ids=["jobs", "no commit", "lock"],
)
async def test_on_a_first_boot_the_next_older_release_runs(
    computer: Computer, publish: Callable[[Computer], object], kind: str, known: str, words: str
) -> None:
    """It is on trial like any new one, and the record says what was wanted and why that does not run."""
    commit = computer.publish("v2.0")
    publish(computer)
    for expected in (kind, known):
        obtained = await computer.obtain()
        assert (obtained.release.ref, obtained.release.commit) == ("v2.0", commit)
        assert obtained.on_trial
        (refused,) = obtained.record.refused
        assert (refused.ref, refused.kind) == ("v3.0", expected)
        assert obtained.stale is not None
        assert obtained.stale.wanted == "v3.0"
        assert words in refused.reason
    told = computer.told("release.refused")
    assert [(event["ref"], event["level"]) for event in told] == [("v3.0", "warning")] * 2


async def test_a_replayed_signature_does_not_keep_a_first_boot_from_its_release(
    signed: Computer,
) -> None:
    """Nor do several tags in a row; each is reported."""
    signed.publish("v1.0")
    good = signed.publish("v2.0", {"good": "x"})
    signed.git("update-ref", "refs/tags/v3.0", "refs/tags/v1.0")
    signed.repo.release("v4.0", {"evil": "x"})
    obtained = await signed.run_well()
    assert obtained.release.commit == good
    assert obtained.record.verified_by is not None
    refused = [(each.ref, each.kind) for each in obtained.record.refused]
    assert refused == [("v4.0", "unverified"), ("v3.0", "unverified")]
    again = await signed.obtain()
    assert (again.release.commit, again.on_trial) == (good, False)
    assert kinds(again) == ["unverified"] * 2


async def test_nothing_older_than_what_ran_before_takes_the_place(computer: Computer) -> None:
    """Between the last good release and the newest there is one to try; below it there is none."""
    computer.publish("v1.0")
    good = await computer.ran("v2.0", {"good": "x"})
    computer.publish("v3.0", BROKEN)
    assert (await computer.obtain()).release.commit == good
    middle = computer.publish("v2.5")
    obtained = await computer.obtain()
    assert (obtained.release.commit, obtained.on_trial) == (middle, True)
    computer.git("tag", "--delete", "v2.5", "v2.0")
    assert (await computer.obtain()).release.commit == good


async def test_what_an_operator_went_back_to_stays(computer: Computer) -> None:
    """A release that lies between the two was passed over by a person."""
    good = await computer.ran("v1.0")
    computer.publish("v1.5", {"middle": "x"})
    await computer.ran("v2.0", {"newest": "x"})
    await computer.decide(rollback, None, version=VERSION, reason="")
    for _ in range(2):
        obtained = await computer.obtain()
        assert obtained.release.commit == good
        assert [each.ref for each in obtained.record.refused] == ["v2.0"]


async def test_when_no_release_can_run_every_reason_is_told(computer: Computer) -> None:
    """Of as many as are tried; how many were not is a warning in the log."""
    computer.publish("v0.1")
    for number in range(1, 7):
        computer.publish(f"v{number}.0", {"jobs.toml": f"broken {number}"})
    with pytest.raises(
        ReleaseError, match=r"no usable release: v6\.0 was rejected .*there is no earlier one"
    ) as caught:
        await computer.obtain()
    for number in (6, 5, 4, 3, 2):
        assert f"v{number}.0 was rejected (" in str(caught.value)
    assert [event["ref"] for event in computer.told("release.untried")] == ["v1.0"]


async def test_an_older_release_that_cannot_be_had_leaves_the_first_reason(
    computer: Computer,
) -> None:
    """A disk that refuses the next one ends the attempt; the last good release runs, and both are told."""
    good = await computer.ran("v1.0")
    commit = computer.publish("v2.0", {"next": "x"})
    computer.publish("v3.0", BROKEN)
    (place := computer.release_store.releases / commit).write_text("in the way")
    with held(place):
        obtained = await computer.obtain()
    assert obtained.release.commit == good
    assert "not valid TOML" in reason_of(obtained)
    assert any("v2.0 could not be fetched" in warning for warning in obtained.warnings)
