"""Words that a newer writer may add to."""

import pytest
from pydantic import BaseModel, ValidationError

from agent.contract.descriptor import Role
from agent.contract.results import Fault, JobCause, JobStatus, OpenEnum, RunStatus
from tests.contract.examples import ended


class Holder(BaseModel):
    """Something that has words."""

    status: JobStatus
    cause: JobCause | None = None


def test_an_unknown_word_survives_and_counts_as_its_fallback() -> None:
    """A new cause is an error to an old reader, and still itself when that writes it again."""
    text = '{"status":"evaporated","cause":"login_expired"}'
    read = Holder.model_validate_json(text)
    assert read.model_dump_json() == text
    assert (read.status, str(read.cause)) == ("evaporated", "login_expired")
    assert read.status.known is JobStatus.UNKNOWN
    assert read.cause is not None
    assert read.cause.known is JobCause.ERROR
    assert read.cause.fault is Fault.UNKNOWN
    assert list(JobCause)[-1] is JobCause.ERROR, "a word that was read is no member"


@pytest.mark.parametrize("words", [JobStatus, JobCause, RunStatus, Role])
def test_a_known_word_is_its_member(words: type[OpenEnum]) -> None:
    """So that decisions can use `is`."""
    for member in words:
        assert words(member.value) is member
        assert member.known is member
        assert words("brand_new").known is words.fallback()


@pytest.mark.parametrize("word", ["", "A", "a b", "a\n", "x" * 33, 7, None, ["failed"]])
def test_what_is_no_word(word: object) -> None:
    """It is damage: nothing that a later writer would say."""
    with pytest.raises(ValidationError):
        Holder.model_validate({"status": word})


def test_each_cause_says_whose_fault_it_is() -> None:
    """The table by which a release on trial is judged; a new cause cannot be forgotten in it."""
    assert {cause.value: cause.fault.value for cause in JobCause} == {
        "page_changed": "unknown",
        "blocked": "site",
        "site_unreachable": "site",
        "browser": "machine",
        "timeout": "unknown",
        "out_of_memory": "unknown",
        "out_of_disk": "machine",
        "interrupted": "machine",
        "expectation": "unknown",
        "release": "release",
        "error": "unknown",
    }


def test_a_success_with_refused_files_is_incomplete() -> None:
    """It is told everywhere a failure is told."""
    assert ended(refused=1).incomplete
    assert not ended().incomplete
    assert not ended(status=JobStatus.FAILED, refused=1).incomplete
