"""The history believes nothing that cannot be: forged entries, markers and manifests are refused and counted."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.archive.intake import MAX_TEXT, text_of
from tests.bucket.bucket import Bucket
from tests.bucket.layout import manifest_key
from tests.bucket.leaving import RUN, leave_begun, leave_run
from tests.consumer.following import NOW, Home, failed, run_at

CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"jobs": [{"name": "../x", "status": "failed"}]}, "it lists a job with an impossible name"),
    (
        {"jobs": [{"name": f"j{n}", "status": "failed"} for n in range(10_001)]},
        "it lists 10001 jobs",
    ),
    ({"started": "2026-11-01T00:00:00Z"}, "it began at another time than its id says"),
    ({"finished": "2026-12-24T00:00:00Z"}, "it was committed before it began or ended"),
    ({"bytes": 10**400}, "its numbers are impossible"),
    ({"manifest": {"key": manifest_key(RUN), "bytes": 2, "sha256": "0" * 64}}, "its manifest is l"),
    ({"status": "great"}, "status: "),
]


@pytest.mark.parametrize(("change", "problem"), CHANGES)
async def test_an_entry_that_cannot_be_true_is_refused_and_counted(
    local: Home, folder: Bucket, change: dict[str, Any], problem: str
) -> None:
    """It costs nobody but itself."""
    leave_run(folder, RUN, files={})
    folder.amend(RUN, **change)
    leave_run(folder, run_at(2), files={})
    found = await local.looks()
    assert (found.runs, len(found.refused)) == (1, 1)
    assert found.refused[0].problem.startswith(problem)
    assert local.reader.past().refused == 1


async def test_a_run_of_a_time_to_come_pushes_nobody_out(local: Home, folder: Bucket) -> None:
    """An id of the year 2199 under a stamp of today, or in a marker, would make all others old."""
    far = "21990101T000000Z-000000"
    leave_run(folder, far, files={})
    folder.move_entry(far, NOW)
    leave_begun(folder, "21990101T000000Z-000001")
    leave_begun(folder, RUN, deadline=datetime(2100, 1, 1, tzinfo=UTC))
    await local.looks()
    assert sorted(local.refused()) == [
        "it begins at a time to come",
        "it was committed before it began or ended",
        "its deadline is impossible",
    ]
    leave_run(folder, run_at(12), files={})
    assert (await local.looks()).runs == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{}", "its manifest is about another run"),
        (b"[]", "its manifest is no JSON object"),
        (b"[" * 5000, "its manifest is no JSON"),
        (b"\xff", "its manifest is no JSON"),
        (b'{"mayfly:run": []}', "its manifest is about another run"),
        (b"[" + b"[]," * 300_000 + b"[]]", "its manifest has more values than are read here"),
    ],
)
async def test_a_manifest_that_is_none_refuses_its_run(
    local: Home, folder: Bucket, text: bytes, problem: str
) -> None:
    """An entry is believed together with the manifest that it commits."""
    leave_run(folder, RUN, files={})
    folder.commit(RUN, text)
    await local.looks()
    assert local.refused() == [problem]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
ENTRY = [
    "version", "run_id", "status", "started", "finished", "release", "commit", "stale", "files",
    "bytes", "jobs", "manifest", "cost",
]  # fmt: skip
JOB = ["name", "status", "cause", "message", "files", "bytes", "items", "seconds"]


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    entry=st.dictionaries(st.sampled_from(ENTRY), JSON, max_size=2),
    job=st.dictionaries(st.sampled_from(JOB), JSON, max_size=2),
    about=st.dictionaries(st.sampled_from(["run_id", "cost", "release", "jobs"]), JSON, max_size=2),
    resources=st.none() | JSON,
)
def test_two_hundred_forged_runs_end_in_rows_or_refusals(
    tmp_path: Path,
    folder: Bucket,
    *,
    entry: dict[str, Any],
    job: dict[str, Any],
    about: dict[str, Any],
    resources: object,
) -> None:
    """Whatever an entry and its manifest say, the look ends, and what was kept can be read again."""
    for old in tmp_path.glob("history.sqlite*"):
        old.unlink()
    leave_run(folder, RUN, files={}, jobs=(failed(),))
    manifest = json.loads(folder.manifest_text(RUN))
    manifest["mayfly:run"] |= about
    if resources is not None:
        manifest["resources"] = resources
    (about_job,) = folder.entry(RUN)["jobs"]
    text = json.dumps(manifest).encode()
    folder.commit(RUN, text, **{"files": 0, "bytes": 0, "jobs": [about_job | job], **entry})
    home = Home(tmp_path, folder)
    found = asyncio.run(home.looks())
    assert found.runs + len(found.refused) == 1
    past = home.reader.past()
    assert len(past.runs) + past.refused == 1
    assert all(text_of(row.problem) == row.problem for row in home.reader.refused(9))


@given(st.text())
def test_texts_of_strangers_are_short_and_quiet(text: str) -> None:
    """No control characters, no lone surrogates, and a bounded length."""
    kept = text_of(text)
    assert len(kept) <= MAX_TEXT
    assert kept.isprintable() or "\u200d" in kept or not kept.isascii()
    kept.encode()
