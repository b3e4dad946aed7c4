"""What is taken from a bucket that anybody may have written: sound, possible, printable, or a reason."""

import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.batch.fold import Arrived, fold
from agent.contract.entries import Entry, Invalid, Object, write_entry
from agent.contract.layout import EntryKey, JobKey, ManifestKey
from agent.contract.names import bucket_path
from agent.contract.package import Package
from consumer.entries import (
    MOST_JOBS,
    MOST_RUNS,
    misplaced,
    read_again,
    read_entry,
    read_manifest,
    read_package,
    within_bounds,
    written,
)
from tests.contract import examples
from tests.contract.examples import BATCH, KEY, NONCE, RUN, STARTED

AT = STARTED + timedelta(minutes=3)
Document = dict[str, Any]


def read(document: Document | bytes, key: EntryKey = KEY, at: datetime = AT) -> Entry | Invalid:
    """Return what home takes from a document."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_entry(key, at, text)


def document() -> Document:
    """Return an entry as JSON."""
    said: Document = json.loads(write_entry(examples.full_entry()))
    return said


def changed(path: str, value: object) -> Document:
    """Return an entry in which one thing is another."""
    said = {**document(), "new": {}}
    *steps, last = path.split(".")
    place: Any = said
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    place[int(last) if last.isdigit() else last] = value
    return said


def test_what_an_agent_writes_is_taken() -> None:
    """Whole, and the same when it is read from what home keeps."""
    entry = read(document())
    assert entry == examples.full_entry()
    assert isinstance(entry, Entry)
    assert read_again(KEY, written(entry)) == entry


def test_what_a_newer_writer_says_besides_is_kept_and_not_held() -> None:
    """The document at home has it; of a log that is folded nobody asks for it."""
    document = changed("began.host.kernel", [[]] * 1000)
    entry = read(document)
    assert isinstance(entry, Entry)
    kept = written(entry)
    assert json.loads(kept)["began"]["host"]["kernel"] == [[]] * 1000
    assert read_again(KEY, kept) == examples.full_entry()


def test_what_names_years_to_come_is_forged_whatever_it_says() -> None:
    """An entry need not have a beginning; its run or its batch would be the newest for ever, and hide what is."""
    key = replace(KEY, batch=replace(BATCH, name="89990101T000000Z"))
    said = {**document(), "batch": key.batch.name}
    for part in ("began", "closed"):
        del said[part]
        found = read(said, key)
        assert isinstance(found, Invalid)
        assert "time to come" in found.reason
    key = replace(KEY, run="20991122T180003Z-3f9a1c")
    own = {"schedule": BATCH.schedule, "batch": BATCH.name, "run": key.run, "nonce": NONCE}
    found = read({**own, "version": 1, "written": STARTED.isoformat()}, key)
    assert found == Invalid("its run begins at a time to come")


DAYS_LATER = (AT + timedelta(days=2)).isoformat()


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("began.started", (STARTED - timedelta(days=2)).isoformat(), "another time than its id"),
        ("began.slot", DAYS_LATER, "slot is at a time to come"),
        ("began.slot", (STARTED - timedelta(hours=3)).isoformat(), "slot is another one"),
        ("began.group", "g", "shard is another one"),
        ("began.shard", -1, "greater than or equal"),
        ("closed.finished", DAYS_LATER, "time to come"),
        ("closed.finished", (STARTED - timedelta(days=2)).isoformat(), "before it began"),
        ("closed.status", "Succeeded!", "pattern"),
        ("closed.cost.total_usd", 1e9, "less than or equal"),
        ("closed.pending", ["x"] * 10_001, "at most"),
        ("jobs.0.name", "../../etc", "pattern"),
        ("jobs.0.bytes", 2**63, "less than or equal"),
        ("jobs.0.files", -1, "greater than or equal"),
        ("jobs.0.package.sha256", "x", "pattern"),
        ("jobs.0.message", "x" * 2001, "at most"),
    ],
)
def test_what_is_forged_has_a_reason(path: str, value: object, reason: str) -> None:
    """Which can be shown to a person; `tests/contract` has what the contract alone refuses."""
    said = read(changed(path, value))
    assert isinstance(said, Invalid), said
    assert reason in said.reason
    assert said.reason.isprintable()


HOSTILE = "\x1b]0;owned\x07<script>\u202egnp.exe\x7f\x9b31m\nsecond line"


@pytest.mark.parametrize(
    "path",
    [
        "jobs.0.message",
        "began.host.name",
        "planned.release.ref",
        "closed.interruption",
        "new.words",
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_texts_are_printable_when_they_leave(path: str, *, ascii_only: bool) -> None:
    """No page, terminal or log sees an escape sequence, whichever field it was in."""
    said = changed(path, HOSTILE)
    entry = read(json.dumps(said, ensure_ascii=ascii_only).encode())
    assert isinstance(entry, Entry), entry
    texts = [*_texts(json.loads(written(entry)))]
    assert any("<script>" in text for text in texts)
    assert all(text.isprintable() for text in texts)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for one in pair for text in _texts(one)]
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
PATHS = [
    "began",
    "jobs",
    "jobs.0",
    "jobs.0.outputs",
    "closed",
    "closed.cost",
    "log.0",
    "written",
    "run",
    "x",
]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(PATHS), json_values)
def test_whatever_is_put_anywhere_is_taken_or_has_a_reason(path: str, value: object) -> None:
    """Never an exception; and what is taken is taken again from what home keeps."""
    said = read(changed(path, value))
    if isinstance(said, Entry):
        assert read(written(said)) == said
        assert read_again(KEY, written(said)) == read_entry(KEY, AT, written(said), "ignore")
    else:
        assert said.reason.isprintable()


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
@example(b'{"run":"\\ud800"}')
@example("\N{RIGHT-TO-LEFT OVERRIDE}".encode())
def test_whatever_bytes_there_are_have_a_reason(text: bytes) -> None:
    """No bytes at random are an entry."""
    said = read(text)
    assert isinstance(said, Invalid)
    assert said.reason
    assert said.reason.isprintable()


# Whole logs.


def arrived(run: int, seconds: int, jobs: tuple[str, ...] = ()) -> Arrived:
    """Return an entry of a run, with results."""
    name = f"20261122T180003Z-{run:06x}"
    key = EntryKey(BATCH, name, NONCE, 0)
    results = [
        examples.ended(
            job,
            package=examples.an_object(JobKey(name, job).text),
            state=None,
        )
        for job in jobs
    ]
    entry = examples.entry(run=name, jobs=tuple(results))
    return Arrived(key, STARTED + timedelta(seconds=seconds), entry)


def test_a_flood_takes_nothing_away_from_what_came_before() -> None:
    """Runs and jobs beyond what a batch can have are left out, whichever way they are listed."""
    own = arrived(0, 0, ("quotes",))
    forged = [arrived(1 + n, 1, tuple(f"j{n}-{m}" for m in range(200))) for n in range(60)]
    kept = within_bounds([*reversed(forged), own])
    state = fold(BATCH, kept)
    assert state.successes["quotes"].run == own.key.run
    assert len(state.successes) <= MOST_JOBS
    assert any("jobs" in reason for reason in state.invalid.values())
    runs = [arrived(n, n) for n in range(MOST_RUNS + 50)]
    assert {one.key.run for one in within_bounds(runs[::-1])} == {
        one.key.run for one in runs[:MOST_RUNS]
    }


# Packages and manifests.

JOB = JobKey(RUN, "quotes")


def package(*paths: str, **original: str) -> Document:
    """Return a package of files."""
    resources = [
        {
            "name": f"r{number}",
            "path": path,
            "bytes": 1,
            "hash": f"sha256:{'0' * 64}",
            "mediatype": "text/plain",
            "mayfly:role": "result",
            **({"mayfly:path": original[f"n{number}"]} if f"n{number}" in original else {}),
        }
        for number, path in enumerate(paths)
    ]
    return {
        "$schema": "https://datapackage.org/profiles/2.0/datapackage.json",
        "id": "x",
        "name": "x",
        "created": STARTED.isoformat(),
        "version": "v1",
        "resources": resources,
        "mayfly:job": {
            "run": RUN,
            "name": "quotes",
            "status": "succeeded",
            "finished": STARTED.isoformat(),
        },
    }


def taken(text: bytes, **changes: Any) -> Package | Invalid:
    """Return what home takes of a package; the entry that commits it says something else in `changes`."""
    committed = Object(key=JOB.text, bytes=len(text), sha256=sha256(text).hexdigest())
    return read_package(JOB, committed.model_copy(update=changes), text)


NAMED = "Episode #1"
WHOLE = json.dumps(package("files/a")).encode()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (package("files/a", "files/a/b"), "a folder of it is a file"),
        (package(f"files/{bucket_path(NAMED)}", n0="Episode #2"), "another file's"),
        (package(f"logs/{bucket_path(NAMED)}", n0=NAMED), "another file's"),
    ],
)
def test_a_forged_package_has_a_reason(said: Document, reason: str) -> None:
    """Names that meet, and names of other files; `test_pull_hostile` has those that lead elsewhere."""
    found = taken(json.dumps(said).encode())
    assert isinstance(found, Invalid), found
    assert reason in found.reason
    assert found.reason.isprintable()


BOMB = b'{"resources":[' + b"0," * 3_000_000 + b"0]}"
"""Three million values fit into six megabytes, and take hundreds in memory."""


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        (WHOLE, {"bytes": 3}, "its entry says 3"),
        (WHOLE, {"bytes": 2**50}, "its entry says"),
        (WHOLE, {"sha256": "0" * 64}, "not what its entry committed"),
        (WHOLE, {"key": JobKey(RUN, "notes").text}, "another place"),
        (BOMB, {}, "values"),
    ],
    ids=["short", "long", "other-content", "other-place", "bomb"],
)
def test_a_package_is_what_its_entry_committed(
    text: bytes, changes: dict[str, Any], reason: str
) -> None:
    """Byte by byte, at its own place, and no bomb."""
    found = taken(text, **changes)
    assert isinstance(found, Invalid)
    assert reason in found.reason


def test_a_manifest_names_packages_and_nothing_else() -> None:
    """As the contract says; it is compared with its entry in the same way."""
    key = ManifestKey(RUN)
    text = b"{}"
    committed = Object(key=key.text, bytes=2, sha256=sha256(text).hexdigest())
    found = read_manifest(key, committed, text)
    assert isinstance(found, Invalid)
    assert "Field required" in found.reason
    found = read_manifest(key, committed.model_copy(update={"bytes": 3}), text)
    assert found == Invalid("it has 2 bytes, its entry says 3")


PARTS = st.sampled_from(["a", "b", "a b", "a.b"])


@given(paths=st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), max_size=8))
def test_a_path_has_a_place_of_its_own(paths: list[str]) -> None:
    """A file is listed once, and is no folder of another."""
    twice = len(paths) > len(set(paths))
    inside = any(f"{one}/" == other[: len(one) + 1] for one in paths for other in paths)
    found = set(misplaced(paths))
    assert bool(found) == (twice or inside)
    assert found <= set(paths)


def test_deep_paths_take_no_more_memory_than_their_text() -> None:
    """Two hundred names below 340 folders each are 140 kB; with the names of all their folders they were 30 MB."""
    paths = [f"files/{n}/{'a/' * 340}x" for n in range(200)]
    tracemalloc.start()
    try:
        assert list(misplaced(paths)) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1024**2
