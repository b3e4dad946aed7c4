"""Which tags are releases, in which order, and which release this agent is new enough for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.versions import Track, parse_version, requirement_problem

NUMBERS = st.lists(st.integers(0, 2000), min_size=1, max_size=4)
TAGS = st.one_of(
    st.builds(
        lambda numbers, suffix: "v" + ".".join(map(str, numbers)) + suffix,
        NUMBERS,
        st.sampled_from(["", "-rc1", "-rc10", "-beta", ".post1", "+build7", "-canary.2"]),
    ),
    st.text(min_size=1, max_size=12),
)


@pytest.mark.parametrize(
    ("track", "tags", "newest_first"),
    [
        ("v*", ["v1.9", "v1.10", "v1.2"], ["v1.10", "v1.9", "v1.2"]),
        ("v*", ["v1.0", "v2.0-rc1", "v1.1.0rc1", "v1.2.0-rc.1", "v2-alpha"], ["v1.0"]),
        ("v*", ["v1.1.dev3", "v2.0-canary.5", "v2.0a1", "v3-backup"], []),
        ("v*", ["v1.0", "vps-backup-20250101", "vendor/libfoo-99.1", "v"], ["v1.0"]),
        ("v*", ["V9", "vv1", "v v1", "v1.x", "1.0", "scrapers/v2", "v-1"], []),
        ("v*", ["v2026.11.22", "v2026.11.3"], ["v2026.11.22", "v2026.11.3"]),
        ("v*", ["v1.0+build.7", "v1.0.1", "v1.0"], ["v1.0.1", "v1.0+build.7", "v1.0"]),
        ("v*", ["v1.0", "v1.0.post1"], ["v1.0.post1", "v1.0"]),
        ("*", ["1.0", "v2.0", "1.10", "nightly"], ["1.10", "1.0"]),
        ("scrapers/v*", ["scrapers/v1.2", "v9", "other/v3", "scrapers/v1.10", "scrapers/vx"],
         ["scrapers/v1.10", "scrapers/v1.2"]),
        ("prod-*", ["v3", "prod-7", "prod-12", "prod-13rc1"], ["prod-12", "prod-7"]),
        ("py3-v*", ["py3-v1.2", "py3-v1.10"], ["py3-v1.10", "py3-v1.2"]),
        ("v1.*", ["v1.9", "v1.10", "v2.0", "v1.11rc1"], ["v1.10", "v1.9"]),
        ("v1.9*", ["v1.9", "v1.9.3", "v1.10"], ["v1.9.3", "v1.9"]),
        ("v[0-9]*", ["v1.0", "v2.0rc1"], ["v1.0"]),
        ("v*-rc*", ["v2.0", "v2.0-rc1", "v2.0-rc2", "v2.0-rc10", "v3.0-beta"],
         ["v2.0-rc10", "v2.0-rc2", "v2.0-rc1"]),
        ("v*rc*", ["v1.1.0rc1", "v1.1.0", "v1.2.0-rc.1"], ["v1.2.0-rc.1", "v1.1.0rc1"]),
        ("v1.2.0-rc*", ["v1.2.0-rc.2", "v1.2.0-rc.10", "v1.3.0-rc.1"],
         ["v1.2.0-rc.10", "v1.2.0-rc.2"]),
        ("v*-canary*", ["v2.0-canary.9", "v2.0-canary.10"], ["v2.0-canary.10", "v2.0-canary.9"]),
        ("stable", ["stable", "v1.0"], ["stable"]),
        ("v*", ["v0²", "v0", "v" + "9" * 5000, "v1.x" + "9" * 5000], ["v0"]),
        ("v*", [], []),
    ],
)  # fmt: skip
def test_releases_have_the_patterns_own_shape_and_are_ordered_by_version(
    track: str, tags: list[str], newest_first: list[str]
) -> None:
    """What follows the pattern's beginning is a version; a pre-release counts only where the pattern names one."""
    assert Track(track).newest_first(tags) == newest_first


def test_final_release_follows_its_candidates() -> None:
    """In either spelling, with the phases in their order; forms of SemVer mean the same as those of PEP 440."""
    ordered = (
        "v1.9",
        "v2.0.dev1",
        "v2.0-canary.2",
        "v2.0-alpha",
        "v2.0-alpha.1.x",
        "v2.0b1",
        "v2.0-beta.11",
        "v2.0rc1",
        "v2.0-rc.2",
        "v2.0-rc10",
        "v2.0",
        "v2.0.1-a",
    )
    assert sorted(set(ordered), key=Track("v*").order) == list(ordered)
    assert parse_version("1.2.0-rc.1") == parse_version("1.2.0rc1")
    assert parse_version("1.2.0+build.7-x") == parse_version("1.2.0")


@given(st.data(), st.lists(TAGS, min_size=1, unique=True))
def test_the_order_does_not_depend_on_the_order_of_tags(
    data: st.DataObject, tags: list[str]
) -> None:
    """However a server lists them, the releases come out alike, each once."""
    found = Track("v*").newest_first(data.draw(st.permutations(tags)))
    assert found == Track("v*").newest_first(tags)
    assert set(found) <= set(tags)


@given(NUMBERS, NUMBERS)
def test_order_of_plain_versions_is_that_of_their_numbers(
    left: list[int], right: list[int]
) -> None:
    """Trailing zeros aside, `v` and dotted numbers compare as the tuples they are."""
    width = max(len(left), len(right))
    numbers = [tuple(part + [0] * (width - len(part))) for part in (left, right)]
    keys = [Track("v*").order("v" + ".".join(map(str, part)))[:2] for part in (left, right)]
    assert (keys[0] < keys[1]) == (numbers[0] < numbers[1])
    assert (keys[0] == keys[1]) == (numbers[0] == numbers[1])


@given(NUMBERS, st.sampled_from(["-rc1", "rc1", "-alpha.2", "-dev", ".dev1", "-rc.1", "-next"]))
def test_prerelease_comes_before_its_release(numbers: list[int], suffix: str) -> None:
    """Whatever the numbers, the candidate sorts before the final one, and is known as one."""
    final = "v" + ".".join(map(str, numbers))
    assert Track("v*").order(final + suffix) < Track("v*").order(final)
    assert Track("v*").newest_first([final + suffix, final]) == [final]


@given(st.text(), st.text())
def test_any_text_has_a_place_in_the_order(pattern: str, tag: str) -> None:
    """Pattern and tag can be anything; none of it breaks the comparison."""
    track = Track(pattern)
    assert track.order(tag) == track.order(tag)
    assert max(tag, "v1", key=track.order) in {tag, "v1"}
    assert set(track.newest_first([tag])) <= {tag}


@pytest.mark.parametrize(
    ("requires", "version", "runs"),
    [
        ("mayfly >= 0.1", "0.2.0", True),
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
