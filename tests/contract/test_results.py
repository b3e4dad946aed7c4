"""Words that a newer writer may add to."""

from typing import Any

import pytest
from pydantic import ValidationError

from agent.contract.descriptor import Role
from agent.contract.entries import Ended
from agent.contract.releases import TrialStage
from agent.contract.results import Fault, JobCause, JobStatus, OpenEnum, RunStatus
from tests.contract.examples import ended


def test_an_unknown_word_survives_and_counts_as_its_fallback() -> None:
    """A new cause is an error to an old reader, and still itself when that writes it again."""
    words = {"status": "evaporated", "cause": "login_expired"}
    read = Ended.model_validate(ended().model_dump(mode="json") | words)
    assert words.items() <= read.model_dump(mode="json").items()
    assert (read.status, str(read.cause)) == ("evaporated", "login_expired")
    assert read.status.known is JobStatus.UNKNOWN
    assert read.cause is not None
    assert read.cause.known is JobCause.ERROR
    assert read.cause.fault is Fault.UNKNOWN
    assert list(JobCause)[-1] is JobCause.ERROR, "a word that was read is no member"


@pytest.mark.parametrize(
    ("words", "fallback"),
    [
        (JobStatus, JobStatus.UNKNOWN),
        (JobCause, JobCause.ERROR),
        (RunStatus, RunStatus.UNKNOWN),
        (Role, Role.OTHER),
        (TrialStage, TrialStage.ENDED),
    ],
)
def test_a_known_word_is_its_member(words: type[OpenEnum], fallback: OpenEnum) -> None:
    """So that decisions can use `is`; every other one is treated as the last."""
    for member in words:
        assert words(member.value) is member
        assert member.known is member
    assert words("brand_new").known is fallback


@pytest.mark.parametrize("word", ["", "A", "a b", "a\n", "x" * 33, 7, None, ["failed"]])
def test_what_is_no_word(word: Any) -> None:
    """It is damage: nothing that a later writer would say."""
    with pytest.raises(ValidationError):
        ended(status=word)


def test_a_success_with_refused_files_is_incomplete() -> None:
    """It is told everywhere a failure is told."""
    assert ended(refused=1).incomplete
    assert not ended().incomplete
    assert not ended(status=JobStatus.FAILED, refused=1).incomplete
