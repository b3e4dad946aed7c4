"""Ids, keys and paths: what sorts by time, what is one, and what leads nowhere else."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.versions import Track, requirement_problem
from agent.contract.names import MAX_NAME_BYTES, MAX_PATH_BYTES, path_problem
from agent.core.ids import commit_stamp, is_run_id, run_id, run_started
from agent.core.layout import (
    LOG,
    captured_path,
    evidence_path,
    index_key,
    is_result,
    manifest_key,
    parse_index_key,
    parse_state_key,
    run_key,
    run_prefix,
    started_key,
    state_key,
)

RUN = "20261122T064205Z-3f9a1c"
MOMENTS = st.datetimes(
    min_value=datetime(1000, 1, 1),  # noqa: DTZ001 -- hypothesis adds the zone
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.timezones(),
)


@given(MOMENTS, st.binary(min_size=3, max_size=8))
def test_a_run_id_tells_when_the_run_began(moment: datetime, entropy: bytes) -> None:
    """To the second, in UTC, whatever zone the moment was in."""
    run = run_id(moment, entropy)
    assert is_run_id(run)
    assert timedelta(0) <= moment - run_started(run) < timedelta(seconds=1)


@given(st.lists(MOMENTS, min_size=2, max_size=5))
def test_text_order_is_time_order(moments: list[datetime]) -> None:
    """Stamps and ids sort as the moments do, to their own precision."""
    by_time = sorted(moments)
    for stamp in (commit_stamp, lambda moment: run_id(moment, b"\0\0\0")):
        stamps = [stamp(moment) for moment in by_time]
        assert stamps == sorted(stamps)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        RUN[:-1],
        RUN + "0",
        RUN.upper(),
        RUN + "\n",
        RUN.replace("2026", "\u0662\u0660\u0662\u0666"),
        "../" + RUN,
    ],
)
def test_what_is_no_run_id_is_told(text: str) -> None:
    """Only the exact form in ASCII is an id."""
    assert not is_run_id(text)
    with pytest.raises(ValueError, match="not a run id"):
        run_started(text)


def test_stamps_are_utc_with_milliseconds() -> None:
    """The form of the contract, from any zone."""
    tokyo = timezone(timedelta(hours=9))
    moment = datetime(2026, 11, 22, 15, 48, 17, 123999, tokyo)
    assert commit_stamp(moment) == "20261122T064817.123Z"


def test_keys_are_where_the_contract_puts_them() -> None:
    """One place for each kind of object."""
    moment = datetime(2026, 11, 22, 6, 48, 17, 123000, UTC)
    assert [
        run_prefix(RUN),
        run_key(RUN, LOG),
        manifest_key(RUN),
        started_key(RUN),
        index_key(RUN, moment),
        state_key("quotes", RUN),
        captured_path("quotes", 1),
        evidence_path("quotes", "page.html"),
    ] == [
        f"runs/{RUN}/",
        f"runs/{RUN}/_run/log.jsonl",
        f"runs/{RUN}/datapackage.json",
        f"started/{RUN}.json",
        f"index/20261122T064817.123Z-{RUN}.json",
        f"state/quotes/{RUN}.tar.gz",
        "_run/evidence/quotes/attempt-1.log",
        "_run/evidence/quotes/files/page.html",
    ]


@given(MOMENTS)
def test_an_index_key_can_be_taken_apart(moment: datetime) -> None:
    """What was put together comes out again."""
    parsed = parse_index_key(index_key(RUN, moment))
    assert parsed is not None
    assert (parsed.run, parsed.stamp) == (RUN, commit_stamp(moment))


@given(st.text())
def test_any_other_key_is_not_an_index_entry(text: str) -> None:
    """Arbitrary keys are told apart without an error."""
    assert parse_index_key(text) is None
    assert parse_index_key(f"index/{text}") is None
    assert parse_state_key(text) is None


def test_a_state_key_can_be_taken_apart() -> None:
    """Job and run come out again; what only resembles a state is none."""
    assert parse_state_key(state_key("quotes", RUN)) == ("quotes", RUN)
    for key in (f"state/{RUN}.tar.gz", f"state/a/b/{RUN}.tar.gz", "state/quotes/x.tar.gz"):
        assert parse_state_key(key) is None


@pytest.mark.parametrize(
    "path",
    [
        "quotes/page 1.json",
        "quotes/\u540d\u524d.txt",
        "a/b/c/d/e",
        "100%+#?&=.txt",
        "\U0001f98b",
        "a#b",
        "x" * MAX_NAME_BYTES,
        "xxx/" * (MAX_PATH_BYTES // 4 - 1) + "xxxx",
        "..a/b..",
        "folder#12/x",
        "a#b#1",
        "~",
    ],
)
def test_honest_paths_are_taken(path: str) -> None:
    """Spaces, Unicode and URL characters are names like any other."""
    assert path_problem(path) is None


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "not relative"),
        ("/etc/passwd", "not relative"),
        ("../x", "dot segment"),
        ("a/../b", "dot segment"),
        ("a/./b", "dot segment"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("a\\b", "backslash"),
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("a\0b", "control"),
        ("xxx/" * (MAX_PATH_BYTES // 4) + "x", "path is longer"),
        ("x" * (MAX_NAME_BYTES + 1), "name longer"),
        ("\u540d" * 300, "longer"),
        ("file#1", "uploads"),
        ("folder/#12", "uploads"),
        ("a\uffff", "listing"),
        ("\udce2", "not UTF-8"),
    ],
)
def test_other_paths_are_refused_with_a_reason(path: str, problem: str) -> None:
    """Each rule says which it is."""
    assert problem in (path_problem(path) or "")


@given(st.text(st.sampled_from("ab./\\\0 \n#1~"), max_size=12))
def test_a_path_that_is_taken_stays_inside(path: str) -> None:
    """Whatever passes names one file below any folder it is put in."""
    if path_problem(path) is None:
        inside = Path("/root/of/run") / path
        assert inside.is_relative_to("/root/of/run")
        assert ".." not in inside.parts
        assert str(PurePosixPath(path)) == path


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("a.json", True),
        ("deep/a.json", True),
        (".hidden", False),
        (".evidence/page.html", False),
        ("deep/.hidden/a", False),
        ("a.part", False),
        ("a.tmp", False),
        ("a.part/b", True),
        ("part", True),
    ],
)
def test_hidden_and_unfinished_files_are_no_results(path: str, result: bool) -> None:
    """Dots at the start of any segment hide; `.part` and `.tmp` at the end are still being written."""
    assert is_result(path) is result


def test_a_flood_of_digits_is_no_version() -> None:
    """Python refuses to read numbers of more than 4300 digits; a server may offer such a tag."""
    flood = "9" * 5000
    assert Track("v*").newest_first([f"v{flood}", "v1", f"v1.x{flood}"]) == ["v1"]
    assert requirement_problem(f"mayfly >= {flood}", "1.0")
