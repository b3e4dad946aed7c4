"""What is known of a channel's releases: a fold over facts, independent of their order and number. Decisions only.

`compacted` leaves out facts that others replace. It may be applied at any time to any part of the facts: what is
known of the whole stays the same.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Self

from agent.contract.releases import (
    Bad,
    Contact,
    Fact,
    Good,
    Learnt,
    Pin,
    TrialStage,
    Version,
)
from agent.release.trust import highest, order_of

KEPT_GOOD = 10
KEPT_BAD = 50
KEPT_TRIALS = 200
KEPT_TAGS = 300
KEPT_LINES = 20
KEPT_OTHERS = 50
_STAGES = {TrialStage.INSTALLING: 0, TrialStage.STARTED: 1, TrialStage.ENDED: 2}

Stamp = tuple[datetime, datetime, str, str]


@lru_cache(maxsize=4096)
def stamp_of(fact: Fact) -> Stamp:
    """Return the order of facts: the store's time, which has whole seconds, then the writer's, then anything fixed."""
    return fact.at, fact.written, fact.run, fact.model_dump_json(exclude_none=True)


def compacted(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Return the facts that others do not replace, one part each, in a fixed order."""
    parts = set(_parts(facts))
    kept = {
        *_latest(
            parts, lambda fact: fact.seen and (fact.seen.repository, fact.seen.tag), KEPT_TAGS
        ),
        *_trials(parts),
        *_latest(parts, lambda fact: fact.good and fact.good.commit, KEPT_GOOD),
        *_latest(parts, _place_of_bad, KEPT_BAD),
        *_latest(parts, lambda fact: fact.pin and True, 1),
        *_latest(parts, _chosen, KEPT_OTHERS),
        *_latest(parts, lambda fact: fact.passed and fact.passed.commit, KEPT_GOOD),
        *_latest(parts, lambda fact: fact.contact and True, 1),
        *_minimums(parts),
        *_latest(parts, _unknown, KEPT_OTHERS),
    }
    return tuple(sorted(kept, key=stamp_of))


def _parts(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Yield a fact for each part: parts are replaced one by one."""
    for fact in facts:
        # Not by `getattr`: an unknown part may have the name of a method.
        parts = {name: getattr(fact, name) for name in Learnt.model_fields}
        said = {
            name: part
            for name, part in {**parts, **(fact.model_extra or {})}.items()
            if part is not None
        }
        if len(said) == 1:
            yield fact
            continue
        origin = {"at": fact.at, "written": fact.written, "run": fact.run, "by": fact.by}
        for name, part in said.items():
            yield Fact.model_validate({**origin, name: part})


def _latest(facts: Iterable[Fact], place: Any, most: int) -> Iterator[Fact]:
    """Return the latest fact of each place, and of these the latest ones."""
    found: dict[object, Fact] = {}
    for fact in facts:
        key = place(fact)
        if key and (key not in found or stamp_of(found[key]) < stamp_of(fact)):
            found[key] = fact
    return iter(sorted(found.values(), key=stamp_of, reverse=True)[:most])


def _place_of_bad(fact: Fact) -> object:
    bad = fact.bad
    return bad and (bad.commit, bad.ref, bad.agent, bad.operator)


def _chosen(fact: Fact) -> tuple[str, str | None] | None:
    """Return ref and commit of what an operator chose, which ends what was held against it; None is any commit.

    On a branch all releases have one ref: going back to one must not excuse the one that was left.
    """
    choice = fact.lowest or fact.pin
    return (choice.ref, choice.commit) if choice and choice.ref else None


def _unknown(fact: Fact) -> object:
    """Return the parts that only a newer writer understands."""
    known = any(getattr(fact, name) is not None for name in Learnt.model_fields)
    return None if known or not fact.model_extra else tuple(sorted(fact.model_extra))


def _trials(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Yield the last stage of each run and release."""
    found: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        if fact.trial is None:
            continue
        key = (fact.run, fact.trial.commit)
        if key not in found or _stage(found[key]) < _stage(fact):
            found[key] = fact
    for key in sorted(found, reverse=True)[:KEPT_TRIALS]:
        yield found[key]


def _stage(fact: Fact) -> tuple[int, Stamp]:
    stage = fact.trial.stage.known if fact.trial else TrialStage.ENDED
    return _STAGES[stage], stamp_of(fact)


def _minimums(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Yield the facts that decide the minimum version of each line."""
    lines: dict[tuple[str, bool], list[Fact]] = {}
    for fact in facts:
        version = fact.good or fact.lowest
        if version is not None:
            lines.setdefault((version.line, version.tag), []).append(fact)
    newest = sorted(lines.values(), key=lambda some: max(map(stamp_of, some)), reverse=True)
    for some in newest[:KEPT_LINES]:
        yield from _of_line(some)


def _of_line(facts: list[Fact]) -> Iterator[Fact]:
    """Yield the last time that an operator lowered the minimum, and what rose above all that came later."""
    lowered = max((fact for fact in facts if fact.lowest), key=stamp_of, default=None)
    if lowered is not None:
        yield lowered
    highest: object = None
    good = [fact for fact in facts if fact.good]
    for fact in sorted(good, key=stamp_of, reverse=True):
        if fact.good is None or (lowered and stamp_of(fact) < stamp_of(lowered)):
            continue
        order: Any = order_of(fact.good)
        if highest is None or order > highest:
            highest = order
            yield fact


@dataclass(frozen=True)
class Known:
    """What is known of a channel's releases; `facts` are compacted."""

    facts: tuple[Fact, ...] = ()

    @classmethod
    def of(cls, facts: Iterable[Fact]) -> Self:
        """Return what follows from some facts."""
        return cls(compacted(facts))

    @cached_property
    def pinned(self) -> Fact | None:
        """The operator's last fact about pins; `pin.ref` is None when nothing is pinned any more."""
        return max((fact for fact in self.facts if fact.pin), key=stamp_of, default=None)

    @property
    def pin(self) -> Pin | None:
        """The pinned release; None for the newest."""
        pin = self.pinned.pin if self.pinned else None
        return pin if pin and pin.ref else None

    @property
    def contact(self) -> Contact:
        """Whether git answered, and since when an older release runs."""
        found = [fact for fact in self.facts if fact.contact]
        last = max(found, key=stamp_of, default=None)
        return (last and last.contact) or Contact()

    def tag(self, repository: str, tag: str) -> str | None:
        """Return the commit of a tag when it was last taken."""
        seen = (fact.seen for fact in self.facts if fact.seen)
        return next(
            (one.commit for one in seen if (one.repository, one.tag) == (repository, tag)), None
        )

    @cached_property
    def bad(self) -> tuple[Fact, ...]:
        """Facts of bad releases, the latest first, without those that an operator has chosen since."""
        chosen = [(choice, stamp_of(fact)) for fact in self.facts if (choice := _chosen(fact))]
        held = (
            fact
            for fact in self.facts
            if (bad := fact.bad)
            and not any(
                stamp >= stamp_of(fact) and choice in {(bad.ref, bad.commit), (bad.ref, None)}
                for choice, stamp in chosen
            )
        )
        return tuple(sorted(held, key=stamp_of, reverse=True))

    def why_bad(self, commit: str, ref: str, agent: str) -> tuple[Bad, datetime] | None:
        """Return why a release must not be tried again, and since when; None if it may.

        A newer ref on the same commit, or another version of the agent, may try: the fault may not be in the commit.
        """
        for fact in self.bad:
            bad = fact.bad
            if (
                bad
                and (bad.commit, bad.ref) == (commit, ref)
                and (bad.operator or bad.agent == agent)
            ):
                return bad, fact.at
        return None

    def good(self, agent: str) -> tuple[Good, ...]:
        """Return the releases that proved themselves, the last one first; bad beats good."""
        facts = sorted((fact for fact in self.facts if fact.good), key=stamp_of, reverse=True)
        latest: dict[str, Good] = {}
        for fact in facts:
            if fact.good:
                latest.setdefault(fact.good.commit, fact.good)
        return tuple(
            one
            for one in [*latest.values()][:KEPT_GOOD]
            if self.why_bad(one.commit, one.ref, agent) is None
        )

    def lowest(self, line: str, *, tag: bool) -> Version | None:
        """Return the minimum version of a line, below which nothing runs by itself."""
        some = [
            fact
            for fact in self.facts
            if (version := fact.good or fact.lowest) and (version.line, version.tag) == (line, tag)
        ]
        return highest(fact.good or fact.lowest for fact in _of_line(some))

    def passed(self, commit: str) -> tuple[str, ...] | None:
        """Return the jobs that succeeded when a release last ran; None if that is not known."""
        passed = (fact.passed for fact in self.facts if fact.passed)
        return next((one.jobs for one in passed if one.commit == commit), None)

    def cut_off(self, commit: str, now: datetime, dead: Collection[str]) -> tuple[int, int]:
        """Return how often installing and starting a release was cut off, since it last ended in order or was chosen.

        `dead` are runs that are known to have died before their deadline.
        """
        trials = [fact for fact in self.facts if fact.trial and fact.trial.commit == commit]
        refs = {fact.trial.ref for fact in trials if fact.trial}
        chosen = {(ref, which) for ref in refs for which in (commit, None)}
        ends = [stamp_of(fact) for fact in trials if _stage(fact)[0] == _STAGES[TrialStage.ENDED]]
        ends += [stamp_of(fact) for fact in self.facts if _chosen(fact) in chosen]
        died = [
            fact.trial.stage.known
            for fact in trials
            if fact.trial
            and (fact.trial.deadline < now or fact.run in dead)
            and (not ends or stamp_of(fact) > max(ends))
        ]
        return died.count(TrialStage.INSTALLING), died.count(TrialStage.STARTED)
