"""Which tag is the newest release, and which release this agent is new enough for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.versions import is_prerelease, newest, requirement_problem, version_order

NUMBERS = st.lists(st.integers(0, 2000), min_size=1, max_size=4)
TAGS = st.one_of(
    st.builds(
        lambda numbers, suffix: "v" + ".".join(map(str, numbers)) + suffix,
        NUMBERS,
        st.sampled_from(["", "-rc1", "-rc10", "-beta", ".post1", "+build7"]),
    ),
    st.text(min_size=1, max_size=12),
)


@pytest.mark.parametrize(
    ("tags", "track", "expected"),
    [
        (["v1.9", "v1.10", "v1.2"], "v*", "v1.10"),
        (["v1.0", "v2.0-rc1"], "v*", "v1.0"),
        (["v1.0", "v2.0-rc1"], "v*-rc*", "v2.0-rc1"),
        (["v2.0-rc1", "v2.0-rc2", "v2.0-rc10"], "v*-rc*", "v2.0-rc10"),
        (["v2.0-rc1"], "v*", None),
        (["v2026.11.22", "v2026.11.3"], "v*", "v2026.11.22"),
        (["v2026-11-22", "v2026-11-03"], "v*-*", "v2026-11-22"),
        (["v1.0", "v1.0.0", "v1.0.1"], "v*", "v1.0.1"),
        (["v3", "prod-7", "prod-12"], "prod-*", "prod-12"),
        (["nightly", "v0.1"], "v*", "v0.1"),
        (["V9"], "v*", None),
        (["release/1.2", "release/1.10"], "release/*", "release/1.10"),
        ([], "v*", None),
        (["v0²", "v0"], "v*", "v0²"),
        (["v1-" + "9" * 5000], "v*-*", "v1-" + "9" * 5000),
    ],
)
def test_newest_goes_by_version_and_takes_no_prerelease_unasked(
    tags: list[str], track: str, expected: str | None
) -> None:
    """Numbers count as numbers; a pre-release is taken only when the pattern has a hyphen of its own."""
    assert newest(tags, track) == expected


def test_final_release_follows_its_candidates() -> None:
    """`v2.0` is newer than every `v2.0-rc`."""
    ordered = sorted(["v2.0", "v2.0-rc2", "v2.0-rc10", "v1.9", "v2.0.1-a"], key=version_order)
    assert ordered == ["v1.9", "v2.0-rc2", "v2.0-rc10", "v2.0", "v2.0.1-a"]


@given(st.data(), st.lists(TAGS, min_size=1, unique=True))
def test_newest_does_not_depend_on_the_order_of_tags(data: st.DataObject, tags: list[str]) -> None:
    """However a server lists them, the same tag is the newest, and it is one of them."""
    found = newest(data.draw(st.permutations(tags)), "*")
    assert found == newest(tags, "*")
    assert found is None or found in tags


@given(NUMBERS, NUMBERS)
def test_order_of_plain_versions_is_that_of_their_numbers(
    left: list[int], right: list[int]
) -> None:
    """Trailing zeros aside, `v` and dotted numbers compare as the tuples they are."""
    width = max(len(left), len(right))
    numbers = [tuple(part + [0] * (width - len(part))) for part in (left, right)]
    keys = [version_order("v" + ".".join(map(str, part)))[0] for part in (left, right)]
    assert (keys[0] < keys[1]) == (numbers[0] < numbers[1])
    assert (keys[0] == keys[1]) == (numbers[0] == numbers[1])


@given(NUMBERS, st.sampled_from(["-rc1", "-alpha.2", "-dev"]))
def test_prerelease_comes_before_its_release(numbers: list[int], suffix: str) -> None:
    """Whatever the numbers, the candidate sorts before the final one, and is known as one."""
    final = "v" + ".".join(map(str, numbers))
    assert version_order(final + suffix) < version_order(final)
    assert is_prerelease(final + suffix)
    assert not is_prerelease(final)


@given(st.text())
def test_any_text_has_a_place_in_the_order(tag: str) -> None:
    """A tag can be anything; none of it breaks the comparison."""
    assert version_order(tag) == version_order(tag)
    assert max(tag, "v1", key=version_order) in {tag, "v1"}


@pytest.mark.parametrize(
    ("requires", "version", "runs"),
    [
        ("mayfly >= 0.1", "0.1.0", True),
        ("mayfly>=1", "1.0.0", True),
        ("mayfly >= 1.2", "1.10.0", True),
        ("mayfly >= 1.2.3", "1.2.2", False),
        ("mayfly >= 2", "1.99", False),
        ("mayfly >= 1.2", "1.2.0.dev3", True),
        ("mayfly == 1.2", "1.2", False),
        ("mayfly", "1.2", False),
        ("mayfly >= " + "9" * 5000, "1.2", False),
        ("mayfly >= ²", "1.2", False),
        ("", "1.2", False),
    ],
)
def test_requirement_is_met_or_says_why_not(requires: str, version: str, runs: bool) -> None:
    """An agent that is too old, or a requirement that nobody can read, is refused with a sentence."""
    problem = requirement_problem(requires, version)
    assert (problem is None) == runs
