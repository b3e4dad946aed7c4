"""Entries: strict when written, tolerant and distrustful when read."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.entries import (
    MOST_BYTES,
    MOST_JOBS,
    MOST_OUTPUTS,
    MOST_PLANNED,
    MOST_VALUES,
    Closed,
    Entry,
    Invalid,
    LeftOut,
    Output,
    Planned,
    StoodBack,
    read_entry,
    write_entry,
)
from agent.contract.layout import JobKey, LogKey, ManifestKey, StateKey
from agent.contract.results import JobCause, JobStatus, RunStatus
from tests.contract.examples import (
    KEY,
    RUN,
    STARTED,
    an_object,
    began,
    closed,
    ended,
    entry,
    full_entry,
)

OTHER = "20261122T180009Z-aaaaaa"


def changed(**changes: Any) -> bytes:
    """Return the full entry as JSON, with top-level changes that no writer of ours would make."""
    return json.dumps(json.loads(write_entry(full_entry())) | changes).encode()


def test_what_is_written_is_read_back() -> None:
    """All of it, whatever parts there are, in the same bytes each time, and as the published schema says."""
    for one in (full_entry(), entry(began=began()), entry(jobs=(ended(),))):
        assert read_entry(KEY, write_entry(one)) == one
        jsonschema.validate(json.loads(write_entry(one)), Entry.model_json_schema())
    assert write_entry(full_entry()) == write_entry(full_entry())


def test_what_a_newer_writer_says_is_read_and_survives() -> None:
    """New parts, fields, and words, at every level; today a new cause costs nobody the entry."""
    document = json.loads(write_entry(full_entry()))
    document["version"] = 7
    document["weather"] = {"sun": True, "wind": None}
    document["jobs"][1] |= {"status": "evaporated", "cause": "login_expired", "mood": ["good"]}
    document["began"]["host"]["kernel"] = "6.12"
    document["closed"]["status"] = "composted"
    read = read_entry(KEY, json.dumps(document).encode())
    assert isinstance(read, Entry)
    assert read.jobs[1].status.known is JobStatus.UNKNOWN
    assert read.jobs[1].cause is not None
    assert read.jobs[1].cause.known is JobCause.ERROR
    assert read.closed is not None
    assert read.closed.status.known is RunStatus.UNKNOWN
    assert json.loads(read.model_dump_json(exclude_unset=True)) == document
    jsonschema.validate(document, Entry.model_json_schema())
    assert isinstance(read_entry(KEY, write_entry(read)), Entry)


def began_until(deadline: str) -> bytes:
    """Return the full entry with another deadline."""
    return changed(began=json.loads(began().model_dump_json()) | {"deadline": deadline})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "EOF"),
        (b"{", "EOF"),
        (b"[]", "dictionary"),
        (b"null", "dictionary"),
        (b'{"run": "x"}', "schedule"),
        (b"\xff\xfe", "expected value"),
        (b"[" * 100_000, "recursion"),
        (b" " * (MOST_BYTES + 1), "more than"),
        (changed(weather=[[]] * MOST_VALUES), "more than 100000 values"),
        (changed(weather=[{"sun": []}] * (MOST_VALUES // 2)), "more than 100000 values"),
        (b'"' + b'\\"' * 1_000_000, "EOF"),
        (changed(weather=float("nan")), "expected value"),
        (changed(run=OTHER), "is not an object of its run"),
        (changed(run=OTHER, jobs=[], log=[], closed=None), "another entry than its key says"),
        (changed(batch="20261123T180000Z"), "another entry than its key says"),
        (changed(schedule="weekly"), "another entry than its key says"),
        (changed(nonce="11111111"), "another entry than its key says"),
        (changed(jobs=[{"name": "x"}]), "jobs.0.status"),
        (changed(written="2026-11-22T18:00:03"), "written"),
        (changed(version=0), "version"),
        (changed(written="9999-12-31T23:59:59Z"), "written"),
        (began_until("2026-11-22T17:00:00Z"), "its deadline is before its start"),
        (began_until("2027-11-22T17:00:00Z"), "months after it"),
        (changed(stood_back={"reason": "x"}), "stood back"),
        (changed(jobs=[json.loads(ended().model_dump_json())] * 2), "listed twice"),
        (
            changed(jobs=[json.loads(ended(f"j{n}").model_dump_json()) for n in range(201)]),
            "at most 200 items",
        ),
    ],
)
def test_damage_is_a_value(text: bytes, reason: str) -> None:
    """Cut short, forged, of another kind, too large: each says why, and none raises."""
    read = read_entry(KEY, text)
    assert isinstance(read, Invalid)
    assert reason.lower() in read.reason.lower()
    assert len(read.reason) <= 200


@given(st.binary(max_size=200))
def test_no_bytes_raise(text: bytes) -> None:
    """Whatever a store gives back."""
    assert isinstance(read_entry(KEY, text), Invalid)


@given(st.data())
def test_a_cut_or_changed_entry_never_raises(data: st.DataObject) -> None:
    """Bytes lost, bytes changed: it is an entry, or it is not."""
    text = write_entry(full_entry())
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    read_entry(KEY, text[:start] + data.draw(st.binary(max_size=3)) + text[end:])


@pytest.mark.parametrize(
    "parts",
    [
        {"jobs": (ended(package=an_object(JobKey(OTHER, "quotes").text)),)},
        {"jobs": (ended(package=an_object(JobKey(RUN, "notes").text)),)},
        {"jobs": (ended(package=an_object(JobKey(RUN, "quotes", "files/x").text)),)},
        {"jobs": (ended(package=an_object("../etc/passwd")),)},
        {"jobs": (ended(state=an_object(StateKey("notes", RUN).text)),)},
        {"jobs": (ended(state=an_object(StateKey("quotes", OTHER).text)),)},
        {"log": (an_object(LogKey(OTHER, 0).text),)},
        {"closed": closed(manifest=an_object(ManifestKey(OTHER).text))},
    ],
)
def test_an_entry_names_objects_of_its_own_run_alone(parts: dict[str, Any]) -> None:
    """Else a forged entry could have home fetch, or keep alive, what is another's."""
    with pytest.raises(ValueError, match="is not an object of its run"):
        entry(**parts)


def test_only_what_was_skipped_has_no_package() -> None:
    """Everything else has a log at least."""
    assert entry(jobs=(ended(status=JobStatus.SKIPPED, package=None, state=None),)).jobs
    with pytest.raises(ValueError, match="quotes has no package"):
        entry(jobs=(ended(package=None),))


def test_a_writer_cannot_exceed_a_bound() -> None:
    """A copy that was never checked is found when it is written; the longest messages of all results fit."""
    jobs = tuple(ended(f"job-{number}", message="x" * 2000) for number in range(MOST_JOBS))
    assert len(write_entry(entry(jobs=jobs))) < MOST_BYTES // 2
    many = (*jobs, ended("one-more"))
    with pytest.raises(ValueError, match="at most 200 items"):
        write_entry(entry().model_copy(update={"jobs": many}))
    large = Closed(status=RunStatus.FAILED, finished=STARTED, weather="x" * MOST_BYTES)
    with pytest.raises(ValueError, match="the most is"):
        write_entry(entry(closed=large))


def test_an_entry_with_the_most_of_everything_has_room() -> None:
    """Whatever is in its texts; values that only forgeries have are not written either."""
    names = tuple(f"j{number}" for number in range(MOST_PLANNED))
    left_out = tuple(LeftOut(name=name, reason="[,{") for name in names)
    outputs = (Output(files=1, items=1, seconds=1.0),) * MOST_OUTPUTS
    jobs = tuple(ended(name, message=",[{" * 600, outputs=outputs) for name in names[:MOST_JOBS])
    full = entry(
        began=began(),
        planned=Planned(count=MOST_PLANNED, jobs=names, left_out=left_out),
        jobs=jobs,
        log=(an_object(LogKey(RUN, 0).text),) * 1000,
        closed=closed(pending=names),
    )
    assert read_entry(KEY, write_entry(full)) == full
    with pytest.raises(ValueError, match="values"):
        write_entry(entry(weather=[[]] * MOST_VALUES))


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"began": began()}, "began"),
        ({"began": began(), "jobs": (ended(),)}, "jobs"),
        ({"began": began(), "jobs": (ended(),), "closed": closed()}, "closed"),
        ({"jobs": (ended(),)}, "jobs"),
        ({"stood_back": StoodBack(reason="another works")}, "stood_back"),
        ({"log": (an_object(LogKey(RUN, 0).text),)}, "log"),
        ({"weather": "fine"}, "other"),
    ],
)
def test_a_pointer_says_what_is_waited_for_most(parts: dict[str, Any], kind: str) -> None:
    """One word for an entry of several parts."""
    assert entry(**parts).kind == kind
