"""What is decided about signed objects, versions and commands, without any of them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.versions import Track
from agent.contract.releases import Version
from agent.release.programs import Entry, entry_of, is_python
from agent.release.repository import Wanted
from agent.release.trust import (
    Claim,
    Signed,
    claim_of,
    claim_problem,
    forced_back_problem,
    highest,
    line_of,
    minimum_problem,
    signer_of,
    to_try,
)

COMMIT = "a" * 40
TAG = f"object {COMMIT}\ntype commit\ntag v1.0\ntagger A <a@x> 1767225900 +0000\n\nRelease\n"
GOOD = 'Good "git" signature for ada@example.com with ED25519 key SHA256:abcDEF+/0\n'


def test_a_tag_stands_for_its_name_and_its_commit() -> None:
    """Only under the name and for the commit that were signed."""
    signed = Signed("tag", TAG.encode())
    assert claim_of(signed) == Claim(COMMIT, "v1.0", 1767225900)
    assert claim_problem(signed, "v1.0", COMMIT) is None
    assert "v3.0" in (claim_problem(signed, "v3.0", COMMIT) or "")
    assert claim_problem(signed, "v1.0", "b" * 40) is not None
    for text in ("abc", "\u00fc", "", "AAAA"):  # damaged: it may come from the bucket
        assert claim_problem(Signed.parse(text, tag=True), "v1.0", COMMIT) is not None
        assert claim_problem(Signed.parse(text, tag=False), "main", COMMIT) is not None


def test_headers_count_once_and_only_before_the_message() -> None:
    """A message, or a second header, cannot make a tag stand for something else."""
    evil = TAG.replace("\n\nRelease", f"\ntag v9\nobject {'b' * 40}\n\ntag v8")
    assert claim_of(Signed("tag", evil.encode())) == claim_of(Signed("tag", TAG.encode()))
    tree = TAG.replace("type commit", "type tree")
    assert claim_of(Signed("tag", tree.encode())).commit == ""


def test_a_commit_stands_for_itself() -> None:
    """Its name is the hash of what is signed, so that another commit's signature is of no use."""
    data = b"tree x\nauthor A <a@x> 5 +0000\ncommitter A <a@x> 1767225900 +0900\n\nx\n"
    oid = hashlib.sha1(b"commit %d\0" % len(data) + data).hexdigest()
    assert claim_of(Signed("commit", data)) == Claim(oid, "", 1767225900)
    assert claim_problem(Signed("commit", data), "main", oid) is None
    assert claim_problem(Signed("commit", data), "main", COMMIT) is not None


@given(st.binary(max_size=300), st.sampled_from(["tag", "commit"]))
def test_no_bytes_break_the_reading_of_an_object(data: bytes, kind: str) -> None:
    """Whatever git holds, reading it ends in a claim."""
    assert claim_of(Signed("tag" if kind == "tag" else "commit", data)).time >= 0


@pytest.mark.parametrize(
    ("said", "principal"),
    [
        (GOOD, "ada@example.com"),
        (GOOD + GOOD, None),
        ('Good "git" signature with ED25519 key SHA256:abc\nNo principal matched.\n', None),
        (GOOD.replace("git", "file"), None),
        ("", None),
    ],
)
def test_only_one_plain_answer_names_a_signer(said: str, principal: str | None) -> None:
    """Anything but the one line of a good signature by a principal is nobody."""
    signer = signer_of(said)
    assert (signer.principal if signer else None) == principal


LINE = line_of("https://example.com/my scrapers.git", None, "v*")
MINIMUM = Version(line=LINE, tag=True, ref="v1.10", commit=COMMIT, time=1000)


@pytest.mark.parametrize(
    ("ref", "back"),
    [
        *(("v1.10", False), ("v1.9", True), ("v1.11", False), ("v2.0-rc1", False)),
        *(("v1.10-rc1", True), ("v1.10rc1", True)),
    ],
)
def test_versions_do_not_go_back(ref: str, *, back: bool) -> None:
    """By version order; without a minimum, and on a branch, every name is fine."""
    assert (minimum_problem(MINIMUM, ref, is_tag=True) is not None) is back
    assert minimum_problem(None, ref, is_tag=True) is None
    assert minimum_problem(MINIMUM, ref, is_tag=False) is None


def test_older_releases_are_tried_down_to_the_floor() -> None:
    """The newest in any case, so that it is judged; what is older than the minimum never is."""
    names = ("v2.0", "v1.11", "v1.10", "v1.9")
    offered = tuple(Wanted(name, f"refs/tags/{name}", COMMIT) for name in names)
    assert to_try(offered, MINIMUM) == offered[:3]
    assert to_try(offered, None) == offered
    assert to_try(offered[3:], MINIMUM) == offered[3:]
    assert to_try((), MINIMUM) == ()


def test_a_branch_does_not_go_back() -> None:
    """By the commit's own time, which is signed; the same commit is no step back."""
    for commit, time, back in (("b" * 40, 999, True), ("b" * 40, 1000, False), (COMMIT, 5, False)):
        head = Version(line=LINE, tag=False, ref="main", commit=commit, time=time)
        assert (forced_back_problem(MINIMUM, head) is not None) is back
        assert forced_back_problem(None, head) is None


@given(st.lists(st.from_regex(r"v[0-9]{1,2}\.[0-9]{1,2}(-rc[0-9])?", fullmatch=True), min_size=1))
def test_the_floor_is_the_highest_version_that_was_good(names: list[str]) -> None:
    """In whatever order they come."""
    versions = [None, *(MINIMUM.model_copy(update={"ref": name}) for name in names)]
    top = highest(versions)
    order = Track("v*").order
    assert top is not None
    assert order(top.ref) == max(map(order, names))
    assert highest([None]) is None


@pytest.mark.parametrize(
    ("command", "entry"),
    [
        (("python", "-m", "scrapers.quotes"), Entry(module="scrapers.quotes")),
        (("python3.11", "-mscrapers", "x"), Entry(module="scrapers")),
        (("/usr/bin/python3", "-u", "-W", "error", "job.py", "-m"), Entry(script="job.py")),
        (("python", "-uBm", "x"), Entry(module="x")),
        (("python", "-Werror", "-X", "dev", "x.py"), Entry(script="x.py")),
        (("python", "-c", "print()"), None),
        (("python", "-"), None),
        (("python",), None),
        (("python", "-m"), None),
        (("python", "--version"), None),
    ],
)
def test_where_a_python_program_begins(command: tuple[str, ...], entry: Entry | None) -> None:
    """Options that stand alone are passed over; what cannot be told is not guessed."""
    assert entry_of(command) == entry


def test_what_is_an_interpreter() -> None:
    """By its name alone."""
    assert all(map(is_python, ("python", "python3", "/x/python3.13")))
    assert not any(map(is_python, ("pythonic", "sh", "python-x", "python3/x")))
