"""Keys can be taken apart again, all of them, and nothing else can."""

import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.ids import Batch, run_id
from agent.contract.layout import (
    FILES,
    EntryKey,
    JobKey,
    Key,
    LogKey,
    ManifestKey,
    PointerKey,
    ReleaseKey,
    StateKey,
    index_start,
    parse_key,
)
from agent.contract.names import bucket_path
from tests.contract.test_ids import MOMENTS

RUNS = st.builds(run_id, MOMENTS, st.binary(min_size=3, max_size=3))
NONCES = st.from_regex(r"[0-9a-f]{8}", fullmatch=True)
NUMBERS = st.integers(0, 999_999_999)
SCHEDULES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
GROUPS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,40}[A-Za-z0-9])?", fullmatch=True)
SHARDS = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n)))
BATCHES = (
    st.builds(Batch.of_slot, SCHEDULES, MOMENTS)
    | st.builds(Batch.of_run, SCHEDULES, RUNS)
    | st.builds(lambda s, g, n: Batch.of_shard(s, g, *n), SCHEDULES, GROUPS, SHARDS)
)
ENTRIES = st.builds(EntryKey, BATCHES, RUNS, NONCES, NUMBERS)
TIMES = MOMENTS.map(lambda one: one.replace(microsecond=one.microsecond // 1000 * 1000))
KINDS = st.from_regex(r"[a-z][a-z_]{0,31}", fullmatch=True)
POINTERS = st.builds(PointerKey, TIMES, KINDS, ENTRIES)
NAMES = st.binary(min_size=1, max_size=300).map(lambda name: name.translate(None, b"/\0") or b"x")
DISK_NAMES = NAMES.map(lambda name: name[:255]).filter(lambda name: name not in {b".", b".."})
PATHS = st.lists(DISK_NAMES, min_size=1, max_size=5).map(b"/".join)
STORED = PATHS.map(lambda path: FILES + bucket_path(os.fsdecode(path)))
CHANNELS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=15)
KEYS = st.one_of(
    ENTRIES,
    POINTERS,
    st.builds(ManifestKey, RUNS),
    st.builds(LogKey, RUNS, NUMBERS),
    st.builds(JobKey, RUNS, SCHEDULES),
    st.builds(JobKey, RUNS, SCHEDULES, STORED),
    st.builds(StateKey, SCHEDULES, RUNS, st.booleans()),
    st.builds(ReleaseKey, CHANNELS, RUNS, NONCES, NUMBERS, st.booleans()),
)


@given(KEYS)
def test_every_key_can_be_taken_apart_again(key: Key) -> None:
    """Whatever its parts are, and it fits S3 with a prefix."""
    assert parse_key(key.text) == key
    assert len(key.text.encode()) <= 900
    assert not {"", ".", ".."} & set(key.text.split("/"))


@given(KEYS, st.data())
def test_a_changed_key_is_another_one_or_none(key: Key, data: st.DataObject) -> None:
    """Nobody can write one thing under two names."""
    text = key.text
    place = data.draw(st.integers(0, len(text)))
    rest = text[place + data.draw(st.integers(0, 2)) :]
    text = text[:place] + data.draw(st.text(max_size=2)) + rest
    parsed = parse_key(text)
    assert parsed is None or parsed.text == text


@given(st.text(max_size=80) | st.from_regex(r"(batches|index|runs|state|releases)/.{0,80}"))
def test_any_text_is_a_key_or_none(text: str) -> None:
    """Hostile or not."""
    parsed = parse_key(text)
    assert parsed is None or parsed.text == text


RUN = "20261122T180003Z-3f9a1c"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "index/",
        f"batches/main/20261122T180000Z/{RUN}-00c0ffee.00.json",
        f"batches/main/20261122T180000Z/{RUN}-00c0ffee.0.json\n",
        f"batches/main/../{RUN}-00c0ffee.0.json",
        f"batches/main/x.2-of-2/{RUN}-00c0ffee.0.json",
        f"index/20261122T180000.1Z.jobs.main.20261122T180000Z.{RUN}-00c0ffee.0",
        f"index/20261122T180000.123Z.Jobs.main.20261122T180000Z.{RUN}-00c0ffee.0",
        f"runs/{RUN}/jobs/a/files/../../../x",
        f"runs/{RUN}/jobs/a/other/x",
        f"runs/{RUN}/jobs/A/datapackage.json",
        f"runs/{RUN}/log/01.jsonl",
        "runs/x/datapackage.json",
        f"state/a/{RUN}.zip",
        f"releases/a b/{RUN}-00c0ffee.0.json",
        f"releases/%41/{RUN}-00c0ffee.0.json",
    ],
)
def test_what_no_writer_of_ours_makes(text: str) -> None:
    """It is skipped."""
    assert parse_key(text) is None


def test_keys_read_as_the_contract_says() -> None:
    """One of each."""
    entry = EntryKey(Batch.of_shard("nightly", "monday", 3, 8), RUN, "00c0ffee", 2)
    moment = datetime(2026, 11, 22, 18, 0, 7, 250_000, tzinfo=UTC)
    assert entry.text == f"batches/nightly/monday.3-of-8/{RUN}-00c0ffee.2.json"
    assert PointerKey(moment, "jobs", entry).text == (
        f"index/20261122T180007.250Z.jobs.nightly.monday.3-of-8.{RUN}-00c0ffee.2"
    )
    assert JobKey(RUN, "quotes").text == f"runs/{RUN}/jobs/quotes/datapackage.json"
    assert StateKey("quotes", RUN, checkpoint=True).text == f"state/quotes/{RUN}.checkpoint.tar.gz"
    learnt = f"releases/v%2A/{RUN}-00c0ffee.0"
    assert ReleaseKey("v*", RUN, "00c0ffee", 0).text == f"{learnt}.json"
    assert ReleaseKey("v*", RUN, "00c0ffee", 0, snapshot=True).text == f"{learnt}.snapshot.json"


@given(POINTERS, POINTERS)
def test_the_index_sorts_by_time(one: PointerKey, other: PointerKey) -> None:
    """Of any two pointers, the earlier comes first, and a listing after a time has those from it on."""
    if one.time < other.time:
        assert one.text < other.text
    assert (index_start(other.time) < one.text) == (other.time <= one.time)
