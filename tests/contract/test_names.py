"""Which path a file gets in the bucket: total, injective, and the original comes back from what is written of it."""

import json
import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.ids import JOB
from agent.contract.names import (
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    bucket_path,
    parse_written,
    path_problem,
    written,
)

LONGEST_JOB = "j" * 63
ODD = b"\\%~#01a\n\xe9\xff\x80 \xe3\x81\x82.csv"
"""Bytes that names of trouble are made of: escapes, ends of uploads, line ends, halves of characters, an ending."""

PARTS = (
    st.text(st.sampled_from(ODD.decode("latin-1")), min_size=1, max_size=12).map(
        lambda odd: odd.encode("latin-1")
    )
    | st.binary(min_size=1, max_size=255)
    | st.text(min_size=1, max_size=80).map(lambda text: text.encode(errors="ignore") or b"x")
).filter(lambda part: part not in {b".", b".."} and not {0, ord("/")} & {*part} and len(part) < 256)
NAMES = st.lists(PARTS, min_size=1, max_size=16).map(
    lambda parts: b"/".join(parts).decode("utf-8", "surrogateescape")
)
"""Paths as a Linux disk may have them, and Python shows them."""


@given(NAMES)
def test_every_name_has_a_path_that_every_bucket_holds(name: str) -> None:
    """In the folder of a job and of its evidence; a second time it would be another, so that nothing is mistaken."""
    path = bucket_path(name)
    for folder in ("files", "evidence/attempt-1000"):
        assert path_problem(f"jobs/{LONGEST_JOB}/{folder}/{path}") is None
    assert path == name or bucket_path(path) != path
    assert not any(part.startswith(".") for part in path.split("/")) or "/." in f"/{name}"


@given(NAMES)
def test_what_is_written_of_a_name_leads_back_to_it(name: str) -> None:
    """As printable text that is UTF-8, also through JSON."""
    text = json.loads(json.dumps(written(name)))
    text.encode()
    assert parse_written(text) == name
    assert not any(ord(letter) < 32 or letter == "\x7f" for letter in text)


@given(st.sets(NAMES, min_size=2, max_size=6))
def test_no_two_names_have_one_path(names: set[str]) -> None:
    """Nor has one the path of another's folder, which no file system could hold."""
    paths = {bucket_path(name) for name in names}
    assert len(paths) == len(names)


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        ("Episode #1", "Episode _1~", ""),
        ("back\\slash.csv", "back_slash~", ".csv"),
        ("日" * 80 + ".json", "日" * 40 + "~", ".json"),
        ("日" * 85, "日" * 40 + "~", ""),
        ("caf\udce9.txt", "caf_~", ".txt"),
        ("line\nbreak/plain", "line_break~", "/plain"),
        ("/".join(["d" * 90] * 8) + "/data.csv", "data~", ".csv"),
        ("x~" + "0" * 32, "x_", ""),
    ],
)
def test_what_can_be_read_of_a_name_stays(name: str, begin: str, end: str) -> None:
    """Its begin and its ending; what stands between is of its digest."""
    path = bucket_path(name)
    assert path.startswith(begin)
    assert path.endswith(end)
    assert path != name


@pytest.mark.parametrize(
    "text", ["", "/a", "../a", "a/../b", "a//b", "a%00b", "%2e%2e/a", "a" * 5000]
)
def test_what_is_no_name_below_a_folder_is_refused(text: str) -> None:
    """Whoever forges a manifest gets no file out of its folder."""
    with pytest.raises(ValueError, match="it is"):
        parse_written(text)


def test_no_job_has_a_longer_name() -> None:
    """What these tests take for the longest name of a job is it."""
    assert re.fullmatch(JOB, LONGEST_JOB)
    assert not re.fullmatch(JOB, f"{LONGEST_JOB}j")


HONEST = [
    *("quotes/page 1.json", "quotes/\u540d\u524d.txt", "a/b/c/d/e", "100%+#?&=.txt", "\U0001f98b"),
    *("a#b", "a#b#1", "a~b", "~", "..a/b..", "\u65e5" * 80, "x" * MAX_NAME_BYTES),
]
LONGEST = "xxx/" * (MAX_PATH_BYTES // 4 - 1) + "xxxx"


@pytest.mark.parametrize("path", [*HONEST, "folder#12/x", LONGEST])
def test_honest_paths_are_taken(path: str) -> None:
    """Spaces, Unicode and URL characters are names like any other."""
    assert path_problem(path) is None


@pytest.mark.parametrize("name", HONEST)
def test_most_names_are_their_own_path(name: str) -> None:
    """Also those that are only unusual."""
    assert bucket_path(name) == name


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
        ("a\x85b", "control"),
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
