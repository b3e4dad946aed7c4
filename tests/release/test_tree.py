"""What a release's tree may hold, from git's listing."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.release.tree import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_FILES,
    MAX_FOLDERS,
    MAX_LINK_NAMES,
    SHOWN,
    Entry,
    Kind,
    link_problems,
    parse_listing,
    tree_problems,
)

OID = "0123456789abcdef0123456789abcdef01234567"


def _file(path: str, size: int = 1, kind: Kind = Kind.FILE) -> Entry:
    return Entry(path, kind, OID, size)


def test_listing_is_read_with_modes_sizes_and_any_name() -> None:
    """Each mode has its kind; names may have spaces, tabs, newlines and bytes that are not UTF-8."""
    listing = (
        f"100644 blob {OID}      12\tjobs.toml\0"
        f"100755 blob {OID}       7\tbin/a b\tc\nd\0"
        f"120000 blob {OID}       3\tlink\0"
        f"160000 commit {OID}       -\tsub\0"
        f"100644 blob {OID}       0\t\udcff\0"
    )
    assert parse_listing(listing.encode(errors="surrogateescape")) == (
        _file("jobs.toml", 12),
        _file("bin/a b\tc\nd", 7, Kind.PROGRAM),
        _file("link", 3, Kind.LINK),
        _file("sub", 0, Kind.SUBMODULE),
        _file("\udcff", 0),
    )


@pytest.mark.parametrize(
    "listing",
    [
        f"100644 blob {OID} 1\ta".encode(),
        f"100600 blob {OID} 1\ta\0".encode(),
        f"100644 blob {OID} -\ta\0".encode(),
        b"fatal: not a tree\0",
        b"\0",
    ],
)
def test_anything_else_is_no_listing(listing: bytes) -> None:
    """A listing cut short, an unknown mode, a file without a size: refused rather than guessed."""
    with pytest.raises(ValueError, match=r"cut short|not an entry|without a size"):
        parse_listing(listing)


@given(st.binary())
def test_no_bytes_break_the_reading_of_a_listing(listing: bytes) -> None:
    """Whatever git prints, it is read or refused."""
    try:
        parse_listing(listing)
    except ValueError:
        return


def test_an_ordinary_tree_has_no_problems() -> None:
    """Folders, Unicode, spaces, dot files, programs and links are what releases are made of."""
    names = ("jobs.toml", ".github/workflows/test.yml", "見積 2026.csv", ".gitignore", "a.git/b")
    others = [_file("bin/run", kind=Kind.PROGRAM), _file("latest", kind=Kind.LINK)]
    assert tree_problems([*map(_file, names), *others]) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../out", "dot segment"),
        ("a/../b", "dot segment"),
        ("/etc/passwd", "empty"),
        ("a//b", "empty"),
        (".git/config", "git's own"),
        ("sub/.GIT/hooks/post-checkout", "git's own"),
        ("a\nb", "control characters"),
        ("\udcff", "not UTF-8"),
        ("x" * 256, "longer than 255"),
        ("/".join(["d" * 200] * 6), "longer than 1024"),
        ("d/" * (MAX_DEPTH + 1) + "f", "more than 100 folders"),
    ],
)
def test_paths_that_are_refused(path: str, reason: str) -> None:
    """Each kind of path that leads out, hides, or cannot be written has its reason."""
    (problem,) = tree_problems([_file("jobs.toml"), _file(path)])
    assert reason in problem


@pytest.mark.parametrize(
    "entries",
    [
        [_file("a", kind=Kind.LINK), _file("a/b")],
        [_file("a"), _file("a")],
        [_file("a/b/c"), _file("a/b", kind=Kind.LINK)],
    ],
)
def test_a_path_is_one_thing_only(entries: list[Entry]) -> None:
    """An entry twice, or one below a file or link, would be written through the other."""
    assert tree_problems(entries)


def test_too_many_files_and_too_many_bytes_are_refused() -> None:
    """Both caps hold at exactly their value."""
    many = [_file(f"f{number}", 0) for number in range(MAX_FILES)]
    assert tree_problems(many) == []
    assert "20001 files" in tree_problems([*many, _file("one more", 0)])[0]
    assert tree_problems([_file("big", MAX_BYTES)]) == []
    assert "of files, more than" in tree_problems([_file("big", MAX_BYTES), _file("b")])[0]


def test_as_many_folders_as_files_and_no_more() -> None:
    """Of a few hundred small objects git makes millions of folders: each folder may be the same one."""
    deep = "a/" * 99
    many = [_file(f"{number}/{deep}f") for number in range(MAX_FOLDERS // 100)]
    assert tree_problems(many) == []
    assert tree_problems([*many, _file(f"x/{deep}f")]) == [
        f"it has more than {MAX_FOLDERS} folders"
    ]


def test_links_that_take_long_to_follow_are_refused() -> None:
    """Each leads through forty others, of which each goes in and out of two hundred folders."""
    chain = {f"c{number}": "a/../" * 200 + f"c{number - 1}" for number in range(1, 40)}
    many = {f"l{number}": "c38" for number in range(1000)}
    (problem,) = link_problems({"c0": "x", **chain, **many})
    assert problem == f"its links lead through more than {MAX_LINK_NAMES} names"
    usual = {f"l{number}": "some/folder/and/a/name" for number in range(MAX_FILES)}
    assert link_problems(usual) == []
    assert "deeper than any file" in link_problems({"a": "b/" * 513})[0]


def test_a_hundred_problems_are_told_in_brief() -> None:
    """The reason ends in a manifest and a log line: some of it, and how many more."""
    problems = tree_problems([_file(f"../{number}") for number in range(100)])
    assert len(problems) == SHOWN + 1
    assert problems[-1] == "and 80 more"


@pytest.mark.parametrize(
    ("links", "bad"),
    [
        ({"a": "b"}, []),
        ({"dir/a": "../b"}, []),
        ({"a": "missing/b"}, []),
        ({"a": "."}, []),
        ({"a": "b/../c", "b": "d/e"}, []),
        ({"a": "../b"}, ["a"]),
        ({"a": "/etc/passwd"}, ["a"]),
        ({"dir/a": "../../b"}, ["dir/a"]),
        ({"a": "dir/../../x"}, ["a"]),
        # Inside when read as text, outside when the kernel follows deep/here first.
        ({"deep/here": ".", "a": "deep/here/../../x"}, ["a"]),
        ({"a": "b", "b": "/tmp"}, ["a", "b"]),
        ({"a": "b", "b": "a"}, ["a", "b"]),
        ({"a": "a"}, ["a"]),
        ({"a": ""}, ["a"]),
        ({"a": "b\0c"}, ["a"]),
    ],
)
def test_links_stay_inside(links: dict[str, str], bad: list[str]) -> None:
    """A link is followed as the kernel would, through other links; out of the tree is refused."""
    problems = link_problems(links)
    assert [name for name in links if any(f"{name!a} " in line for line in problems)] == bad


NAMES = st.sampled_from(["a", "b", "c", "d"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.lists(
    st.one_of(NAMES, st.sampled_from(["..", ".", "", ".."])), min_size=1, max_size=5
).map("/".join)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(PATHS, TARGETS, max_size=6))
def test_the_kernel_agrees_that_accepted_links_stay_inside(links: dict[str, str]) -> None:
    """Links that are accepted, made on a real file system, all resolve to a place below the root."""
    leaves = {path for path in links if links[path]}
    links = {
        path: links[path]
        for path in leaves
        if not any(path.startswith(f"{other}/") for other in leaves)
    }
    if link_problems(links):
        return
    with TemporaryDirectory() as folder:
        root = Path(os.path.realpath(folder), "tree")
        root.mkdir()
        for path in links:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
        for path, target in links.items():
            if not os.path.lexists(root / path):
                (root / path).symlink_to(target)
        for path in links:
            assert Path(os.path.realpath(root / path)).is_relative_to(root)
