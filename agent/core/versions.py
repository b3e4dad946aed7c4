"""Which of a repository's refs is the newest release, and whether this agent is new enough for it."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

_NUMBERS = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})*")
LONGEST_NUMBER = 18
"""Digits that are read as a number: more of them are somebody's joke, and Python refuses 4,301."""
_PRERELEASE = re.compile(r"-[A-Za-z]")
_REQUIRES = re.compile(r"\s*mayfly\s*>=\s*([0-9]{1,9}(?:\.[0-9]{1,9}){0,2})\s*")

VersionKey = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...], str]


def version_order(tag: str) -> VersionKey:
    """Return a sort key: numbers as numbers, and `v2.0-rc1` before `v2.0` (as in SemVer)."""
    match = _NUMBERS.search(tag)
    if match is None:
        return ((), False, (), tag)
    numbers = tuple(map(_number, match.group().split(".")))
    while numbers and numbers[-1] == 0:
        numbers = numbers[:-1]
    suffix = tag[match.end() :]
    parts = re.findall(r"[0-9]+|[^0-9.-]+", suffix)
    natural = tuple(_natural(part) for part in parts)
    return (numbers, _PRERELEASE.match(suffix) is None, natural, tag)


def _natural(part: str) -> tuple[bool, int, str]:
    """Return a sort key for a run of digits (of ASCII: `²` is a digit to Python) or of anything else."""
    numeric = part.isascii() and part.isdigit() and len(part) <= LONGEST_NUMBER
    return (numeric, _number(part) if numeric else 0, part)


def _number(digits: str) -> int:
    """Return digits as a number; Python refuses more than 4300 of them, and no honest version has a hundred."""
    return int(digits[:100])


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
    wanted = tuple(map(_number, match.group(1).split(".")))
    have = tuple(map(_number, re.findall(r"[0-9]+", version)[:3]))
    if have + (0,) * (3 - len(have)) < wanted + (0,) * (3 - len(wanted)):
        return f"it needs mayfly >= {match.group(1)} and this is {version}"
    return None
