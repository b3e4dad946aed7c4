"""What is taken from a bucket that anybody may have written: sound, possible, printable, or a reason."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.batch.fold import Arrived, fold
from agent.contract.entries import Entry, Invalid, Object, write_entry
from agent.contract.ids import Batch
from agent.contract.layout import EntryKey, JobKey, ManifestKey
from agent.contract.names import bucket_path
from agent.contract.package import Package
from agent.contract.results import JobStatus
from consumer.entries import (
    MOST_JOBS,
    MOST_RUNS,
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
    said = document()
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


def test_a_slot_of_years_to_come_is_forged_whoever_says_it() -> None:
    """An entry need not have a beginning; its batch would be the newest for ever, and hide what is."""
    key = replace(KEY, batch=replace(BATCH, name="89990101T000000Z"))
    said = {**document(), "batch": key.batch.name}
    for part in ("began", "closed"):
        del said[part]
        found = read(said, key)
        assert isinstance(found, Invalid)
        assert "time to come" in found.reason


DAYS_LATER = (AT + timedelta(days=2)).isoformat()
YEARS_LATER = (STARTED + timedelta(days=3000)).isoformat()


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("began.started", DAYS_LATER, "before its start"),
        ("began.started", "1999-01-01T00:00:00Z", "greater than"),
        ("began.started", (STARTED - timedelta(days=2)).isoformat(), "another time than its id"),
        ("began.deadline", YEARS_LATER, "months after"),
        ("began.deadline", (STARTED - timedelta(days=1)).isoformat(), "before its start"),
        ("began.slot", DAYS_LATER, "slot is at a time to come"),
        ("began.slot", (STARTED - timedelta(hours=3)).isoformat(), "slot is another one"),
        ("began.group", "g", "shard is another one"),
        ("began.shard", -1, "greater than or equal"),
        ("closed.finished", DAYS_LATER, "time to come"),
        ("closed.finished", (STARTED - timedelta(days=2)).isoformat(), "before it began"),
        ("closed.status", "Succeeded!", "pattern"),
        ("closed.cost.total_usd", 1e9, "less than or equal"),
        ("closed.manifest.key", "runs/../index/x", "not an object of its run"),
        ("closed.pending", ["x"] * 10_001, "at most"),
        ("jobs.0.name", "../../etc", "pattern"),
        ("jobs.0.name", "notes", "listed twice"),
        ("jobs.0.bytes", 2**63, "less than or equal"),
        ("jobs.0.files", -1, "greater than or equal"),
        ("jobs.0.seconds", float("nan"), "line 1"),
        (
            "jobs.0.package.key",
            "runs/20200101T000000Z-000000/jobs/quotes/datapackage.json",
            "its run",
        ),
        ("jobs.0.package.sha256", "x", "pattern"),
        ("jobs.0.package", None, "has no package"),
        ("jobs.0.message", "x" * 2001, "at most"),
        ("jobs", [], None),
        ("run", "20261122T180003Z-ffffff", "not an object of its run"),
        ("nonce", "ffffffff", "another entry"),
        ("batch", "20261123T180000Z", "another entry"),
        ("version", 0, "greater than"),
        ("stood_back", {"reason": "x"}, "stood back"),
    ],
)
def test_what_is_forged_has_a_reason(path: str, value: object, reason: str | None) -> None:
    """Which can be shown to a person."""
    said = read(changed(path, value))
    if reason is None:
        assert isinstance(said, Entry)
        return
    assert isinstance(said, Invalid), said
    assert reason in said.reason
    assert said.reason.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe{}",
        b"\0" * 100,
        b" " * (2 * 1024**2 + 1),
        b'{"run":"\\ud800"}',
        "\N{RIGHT-TO-LEFT OVERRIDE}".encode(),
    ],
)
def test_what_is_no_entry_has_a_reason(text: bytes) -> None:
    """Cut short, too deep, too large, or something else altogether."""
    said = read(text)
    assert isinstance(said, Invalid)
    assert said.reason
    assert said.reason.isprintable()


def test_a_run_from_the_future_is_nothing_whatever_it_says() -> None:
    """The id alone would be sorted before everybody else's, for years."""
    run = "20991122T180003Z-3f9a1c"
    key = EntryKey(BATCH, run, NONCE, 0)
    own = {"schedule": BATCH.schedule, "batch": BATCH.name, "run": run, "nonce": NONCE}
    said = read({**own, "version": 1, "written": STARTED.isoformat()}, key)
    assert said == Invalid("its run begins at a time to come")


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
    said = changed("new", {"words": ""})
    *steps, last = path.split(".")
    place: Any = said
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    place[last] = HOSTILE
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


def test_a_newer_writer_s_words_survive() -> None:
    """Parts, fields, causes and kinds of status that this reader does not know."""
    said = changed("jobs.0.cause", "captcha")
    said["jobs"][0]["status"] = "postponed"
    said["jobs"][0]["screenshots"] = 3
    said["checked"] = {"by": "a newer part"}
    said["closed"]["status"] = "paused"
    entry = read(said)
    assert isinstance(entry, Entry), entry
    assert entry.jobs[0].status.known is JobStatus.UNKNOWN
    kept = json.loads(written(entry))
    assert kept["jobs"][0]["screenshots"] == 3
    assert (kept["jobs"][0]["cause"], kept["jobs"][0]["status"]) == ("captcha", "postponed")
    assert kept["checked"] == {"by": "a newer part"}
    assert kept["closed"]["status"] == "paused"
    assert read_again(KEY, written(entry)) == entry


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
        assert read_again(KEY, written(said)) == said
    else:
        assert said.reason.isprintable()


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_whatever_bytes_there_are_have_a_reason(text: bytes) -> None:
    """No bytes at random are an entry."""
    assert isinstance(read(text), Invalid)


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


def taken(
    said: Document, change: Callable[[Object], Object] = lambda one: one
) -> Package | Invalid:
    """Return what home takes from a package that an entry commits."""
    text = json.dumps(said).encode()
    committed = Object(key=JOB.text, bytes=len(text), sha256=sha256(text).hexdigest())
    return read_package(JOB, change(committed), text)


NAMED = "Episode #1"


def test_a_package_is_taken() -> None:
    """With what its files were called where they could not be called so here."""
    path = f"files/{bucket_path(NAMED)}"
    said = taken(package("files/a/b.json", "logs/attempt-1.log", path, n2=NAMED))
    assert isinstance(said, Package), said


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (package("files/../../x"), "segment"),
        (package("/etc/passwd"), "not relative"),
        (package("files/a", "files/a"), "listed twice"),
        (package("files/a", "files/a/b"), "a folder of it is a file"),
        (package("state/x"), "no file of a job"),
        (package("datapackage.json"), "no file of a job"),
        (package("files/a#1"), "digits"),
        (package("files/a\u0000b"), "control"),
        (package("files/" + "x" * 241), "files/xxx"),
        (package("files/a", n0="../../x"), "impossible"),
        (package("files/a", n0="%2E%2E/x"), "impossible"),
        (package("files/a", n0="b"), "another file's"),
        (package(f"files/{bucket_path(NAMED)}", n0="Episode #2"), "another file's"),
        (package(f"logs/{bucket_path(NAMED)}", n0=NAMED), "another file's"),
        (package(), "at least 1"),
        (package("files/a") | {"mayfly:job": {"run": RUN}}, "Field required"),
        ({"resources": []}, "Field required"),
    ],
)
def test_a_forged_package_has_a_reason(said: Document, reason: str) -> None:
    """Paths that lead elsewhere, names that meet, and what is no package."""
    found = taken(said)
    assert isinstance(found, Invalid), found
    assert reason in found.reason
    assert found.reason.isprintable()


def test_a_package_is_what_its_entry_committed() -> None:
    """Byte by byte, and at its own place."""
    whole = package("files/a")
    for change, reason in (
        ({"bytes": 3}, "its entry says 3"),
        ({"sha256": "0" * 64}, "not what its entry committed"),
        ({"key": JobKey(RUN, "notes").text}, "another place"),
        ({"bytes": 2**50}, "its entry says"),
    ):
        found = taken(whole, lambda one, change=change: one.model_copy(update=change))  # type: ignore[misc]
        assert isinstance(found, Invalid)
        assert reason in found.reason


def test_a_bomb_of_values_is_not_unpacked() -> None:
    """Three million of them fit into six megabytes, and take hundreds in memory."""
    text = b'{"resources":[' + b"0," * 3_000_000 + b"0]}"
    committed = Object(key=JOB.text, bytes=len(text), sha256=sha256(text).hexdigest())
    found = read_package(JOB, committed, text)
    assert isinstance(found, Invalid)
    assert "values" in found.reason


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


def test_entries_of_other_batches_are_none_of_this_one() -> None:
    """Copied to another place, an entry says something else than its key."""
    other = EntryKey(Batch.of_run("main", RUN), RUN, NONCE, 0)
    assert isinstance(read(document(), other), Invalid)
