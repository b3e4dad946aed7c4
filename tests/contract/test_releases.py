"""Entries of what is known of releases: strict when written, tolerant and distrustful when read."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest

from agent.contract.entries import MOST_BYTES, Invalid, write_entry
from agent.contract.layout import ReleaseKey
from agent.contract.releases import (
    Bad,
    Contact,
    Fact,
    Good,
    Learnt,
    Passed,
    Pin,
    ReleaseEntry,
    Seen,
    Snapshot,
    Trial,
    TrialStage,
    Version,
    facts_of,
    read_release_entry,
)

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
RUN, NONCE = "20261122T180000Z-3f9a1c", "00c0ffee"
KEY = ReleaseKey("v*", RUN, NONCE, 0, snapshot=True)
COMMIT = "a" * 40
VERSION = {"line": "https://git.example/x tags v*", "tag": True, "ref": "v1", "commit": COMMIT}
LEARNT = Learnt(
    seen=Seen(repository="https://git.example/x", tag="v1", commit=COMMIT),
    trial=Trial(commit=COMMIT, ref="v1", stage=TrialStage.STARTED, deadline=NOW),
    good=Good.model_validate({**VERSION, "fetched": NOW, "signed": "bm8=", "jobs": ["one"]}),
    bad=Bad(commit="b" * 64, ref="v2", reason="job one: exit code 3", agent="0.2.0"),
    lowest=Version.model_validate(VERSION),
    pin=Pin(ref="v1", commit=COMMIT, reason="v2 is slow"),
    passed=Passed(commit=COMMIT, jobs=("one",)),
    contact=Contact(reached=NOW),
)


def full_entry() -> ReleaseEntry:
    """Return an entry with all parts."""
    fact = Fact(at=NOW, written=NOW, run=RUN, by="a", pin=Pin())
    return ReleaseEntry(
        channel="v*",
        run=RUN,
        nonce=NONCE,
        written=NOW,
        by="machine",
        learnt=(LEARNT,),
        snapshot=Snapshot(facts=(fact,), covers=(f"{RUN}-{NONCE}.3",), since=NOW),
    )


def changed(**changes: Any) -> bytes:
    """Return the full entry as JSON, with changes that no writer of ours would make."""
    return json.dumps(json.loads(write_entry(full_entry())) | changes).encode()


def test_what_is_written_is_read_back() -> None:
    """All of it, and it fits the published schema."""
    text = write_entry(full_entry())
    assert read_release_entry(KEY, text) == full_entry()
    jsonschema.validate(json.loads(text), ReleaseEntry.model_json_schema())


def test_a_fact_knows_when_it_arrived_and_who_wrote_it() -> None:
    """What a snapshot holds keeps its own time."""
    later = NOW + timedelta(hours=1)
    own, kept = facts_of(full_entry(), later)
    assert (own.at, own.run, own.by, own.good) == (later, RUN, "machine", LEARNT.good)
    assert (kept.at, kept.by) == (NOW, "a")


def test_what_a_newer_writer_says_survives() -> None:
    """A part, a field and a word that nobody here knows; what is not understood is not held against a release."""
    document = json.loads(write_entry(full_entry()))
    document["version"] = 9
    document["learnt"][0] |= {"weather": {"sun": True}}
    document["learnt"][0]["trial"] |= {"stage": "dreaming", "mood": 1}
    read = read_release_entry(KEY, json.dumps(document).encode())
    assert isinstance(read, ReleaseEntry)
    trial = read.learnt[0].trial
    assert trial is not None
    assert trial.stage.known is TrialStage.ENDED
    fact = facts_of(read, NOW)[0]
    assert fact.model_extra == {"weather": {"sun": True}}
    assert json.loads(fact.model_dump_json())["trial"]["mood"] == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "EOF"),
        (write_entry(full_entry())[:-30], "EOF"),
        (b"x" * (MOST_BYTES + 1), "more than"),
        (changed(channel="main"), "another entry"),
        (changed(run="20261122T180000Z-aaaaaa"), "another entry"),
        (changed(snapshot=None), "another entry"),
        (changed(learnt=[], snapshot=None), "has no content"),
        (changed(written="2026-11-22T18:00:00"), "written"),
        (changed(written="9999-01-01T00:00:00Z"), "written"),
        (changed(learnt=[{"passed": {"commit": "--upload-pack"}}]), "commit"),
        (changed(learnt=[{"pin": {"ref": ""}}]), "ref"),
        (changed(learnt=[{"good": {**VERSION, "fetched": "now"}}]), "fetched"),
    ],
)
def test_damage_and_forgery_are_invalid(text: bytes, reason: str) -> None:
    """None of it is an exception, and each has a reason."""
    read = read_release_entry(KEY, text)
    assert isinstance(read, Invalid)
    assert reason in read.reason
