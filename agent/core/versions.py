"""Which of a repository's refs is the newest release, and whether this agent is new enough for it."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_PRERELEASE = re.compile(r"-[A-Za-z]")
_REQUIRES = re.compile(r"\s*mayfly\s*>=\s*(\d+(?:\.\d+){0,2})\s*")

VersionKey = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...], str]


def version_order(tag: str) -> VersionKey:
    """Return a sort key: numbers as numbers, and `v2.0-rc1` before `v2.0` (as in SemVer)."""
    match = _NUMBERS.search(tag)
    if match is None:
        return ((), False, (), tag)
    numbers = tuple(int(part) for part in match.group().split("."))
    while numbers and numbers[-1] == 0:
        numbers = numbers[:-1]
    suffix = tag[match.end() :]
    parts = re.findall(r"\d+|[^\d.-]+", suffix)
    natural = tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)
    return (numbers, _PRERELEASE.match(suffix) is None, natural, tag)


def is_prerelease(tag: str) -> bool:
    """Tell whether a tag is a pre-release as in SemVer: a hyphen and a letter follow its numbers (`v2.0-rc1`)."""
    match = _NUMBERS.search(tag)
    return match is not None and _PRERELEASE.match(tag[match.end() :]) is not None


def newest(tags: Iterable[str], track: str) -> str | None:
    """Return the newest tag that matches the pattern `track`, or None.

    A pre-release counts only when the pattern itself names one (has a hyphen): `v*` never picks `v2.0-rc1`.
    """
    matching = [tag for tag in tags if fnmatchcase(tag, track)]
    if "-" not in track:
        matching = [tag for tag in matching if not is_prerelease(tag)]
    return max(matching, key=version_order, default=None)


def requirement_problem(requires: str, version: str) -> str | None:
    """Return why an agent of `version` may not run a release that says `requires`, or None when it may."""
    match = _REQUIRES.fullmatch(requires)
    if match is None:
        return f'"{requires}" is not understood; write for example "mayfly >= 0.1"'
    wanted = tuple(int(part) for part in match.group(1).split("."))
    have = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if have + (0,) * (3 - len(have)) < wanted + (0,) * (3 - len(wanted)):
        return f"it needs mayfly >= {match.group(1)} and this is {version}"
    return None
