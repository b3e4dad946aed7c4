"""Which tags are releases, their order, and whether this agent is new enough for one. Decisions only."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from packaging.version import Version

_REQUIRES = re.compile(r"\s*mayfly\s*>=\s*([0-9]{1,9}(?:\.[0-9]{1,9}){0,2})\s*")

_WILDCARD = re.compile(r"[*?[]")
_SET = re.compile(r"\[[^]]*\]")
_BEGUN = re.compile(
    r"(?:^|(?<=[vV/_-]))[0-9]+(?:\.[0-9]+)*\.?"
    r"(?:[-_.]?(?:alpha|beta|preview|pre|dev|rc|a|b|c)[-_.]?[0-9]*)?$"
)
"""The beginning of a version at the end of a pattern's prefix: `1.` in `v1.*`."""
_BUILD = re.compile(r"\+[0-9A-Za-z.-]+$")
_SEMVER = re.compile(r"([0-9]+(?:\.[0-9]+)*)-([A-Za-z]*+)[A-Za-z.-]*+([0-9]*+)[0-9A-Za-z.-]*+")
_PHASES = {"alpha": "a", "beta": "b", "rc": "rc"}

_NONE = Version("0")

Order = tuple[bool, Version, str]


@dataclass(frozen=True, slots=True)
class Track:
    """A pattern of the tags that are releases, such as `v*`, `scrapers/v*`, `*` or `v*-rc*`: a prefix, then a version.

    Versions and their order are those of PEP 440, as `packaging` reads them; SemVer's forms are mapped to it. `v*`
    matches `v1.10`, but neither `vendor/libfoo-99.1` nor `vps-backup-20250101`. A pattern
    without a wildcard is the name of one tag.
    """

    pattern: str

    @property
    def _prefix(self) -> str:
        return _BEGUN.sub("", _WILDCARD.split(self.pattern, maxsplit=1)[0])

    @property
    def _takes_prereleases(self) -> bool:
        """Whether the pattern names a pre-release: a hyphen or a letter where the version is."""
        version = _SET.sub("", self.pattern[len(self._prefix) :])
        return re.search(r"[-A-Za-z]", version) is not None

    def version(self, tag: str) -> Version | None:
        """Return the version of a tag, also of a pre-release; None if the tag does not match the pattern."""
        if not fnmatchcase(tag, self.pattern):
            return None
        return parse_version(tag[len(self._prefix) :])

    def order(self, tag: str) -> Order:
        """Return a sort key; tags without a version come first."""
        version = self.version(tag)
        return (version is not None, version or _NONE, tag)

    def newest_first(self, tags: Iterable[str]) -> list[str]:
        """Return the tags that are releases, newest first; pre-releases only if the pattern names one."""
        if not _WILDCARD.search(self.pattern):
            return [tag for tag in tags if tag == self.pattern]
        wanted = [
            tag
            for tag in tags
            if (version := self.version(tag)) is not None
            and (self._takes_prereleases or not version.is_prerelease)
        ]
        return sorted(wanted, key=self.order, reverse=True)


def parse_version(text: str) -> Version | None:
    """Return a version in the form of PEP 440 or SemVer, without build metadata; None for any other text."""
    if not re.match(r"[0-9]", text):
        return None  # packaging would accept white space and a "v"
    release = _BUILD.sub("", text)
    semver = _SEMVER.fullmatch(release)
    return _pep440(release) or (_pep440(_mapped(*semver.groups())) if semver else None)


def _mapped(numbers: str, word: str, number: str) -> str:
    """Map a SemVer pre-release that PEP 440 does not have, such as `1.0-canary.5`, to PEP 440."""
    return f"{numbers}{_PHASES.get(word.lower(), '.dev')}{number or 0}"


def _pep440(text: str) -> Version | None:
    try:
        return Version(text)
    except ValueError:  # InvalidVersion, or a number of more than 4300 digits
        return None


def requirement_problem(requires: str, version: str) -> str | None:
    """Return why an agent of `version` cannot run a release with this `requires`, or None."""
    match = _REQUIRES.fullmatch(requires)
    if match is None:
        return f'"{requires}" is not understood; write for example "mayfly >= 0.1"'
    wanted = tuple(map(int, match.group(1).split(".")))
    have = tuple(map(int, re.findall(r"[0-9]+", version)[:3]))
    if have + (0,) * (3 - len(have)) < wanted + (0,) * (3 - len(wanted)):
        return f"it needs mayfly >= {match.group(1)} and this is {version}"
    return None
