"""What is known of releases: order, number and compaction of the facts change nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.contract.releases import (
    Bad,
    Contact,
    Fact,
    Good,
    Passed,
    Pin,
    Seen,
    Trial,
    TrialStage,
    Version,
)
from agent.release.known import Known, compacted

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
LINE = "https://git.example/x tags v*"
AGENT = "0.2.0"
RUNS = [f"20261122T1{number}0000Z-3f9a1c" for number in range(4)]


def commit(ref: str) -> str:
    """Return the commit of a tag of these tests."""
    return ref.encode().hex().ljust(40, "0")


def fact(minute: int = 0, run: str = RUNS[0], **parts: Any) -> Fact:
    """Return a fact that arrived some minutes later."""
    at = NOW + timedelta(minutes=minute)
    return Fact(at=at, written=at, run=run, by="machine", **parts)


def good(ref: str, line: str = LINE, *, tag: bool = True) -> Good:
    """Return a good release."""
    return Good(line=line, tag=tag, ref=ref, commit=commit(ref), time=5, fetched=NOW)


def version(ref: str, *, tag: bool = True) -> Version:
    """Return a version that an operator went back to."""
    return Version(line=LINE, tag=tag, ref=ref, commit=commit(ref), time=5)


def bad(ref: str, agent: str = AGENT, *, operator: bool = False) -> Bad:
    """Return why a release is bad."""
    return Bad(commit=commit(ref), ref=ref, reason="job one", agent=agent, operator=operator)


def trial(ref: str, stage: TrialStage, minutes: int = 60) -> Trial:
    """Return a trial that has to end some minutes after the beginning."""
    deadline = NOW + timedelta(minutes=minutes)
    return Trial(commit=commit(ref), ref=ref, stage=stage, deadline=deadline)


REFS = st.sampled_from(["v1", "v2", "v10", "v3-rc1", "other"])
STAGES = st.sampled_from(list(TrialStage))
PARTS = st.one_of(
    st.builds(
        lambda ref, at: {"seen": Seen(repository="r", tag=ref, commit=commit(at))}, REFS, REFS
    ),
    st.builds(lambda ref, stage: {"trial": trial(ref, stage)}, REFS, STAGES),
    st.builds(lambda ref, tag: {"good": good(ref, tag=tag)}, REFS, st.booleans()),
    st.builds(lambda ref, by: {"bad": bad(ref, operator=by)}, REFS, st.booleans()),
    st.builds(lambda ref: {"lowest": version(ref), "pin": Pin()}, REFS),
    st.builds(lambda ref: {"pin": Pin(ref=ref)}, REFS),
    st.builds(lambda at: {"pin": Pin(ref="v1", commit=commit(at))}, REFS),
    st.builds(
        lambda at: {"bad": Bad(commit=commit(at), ref="v1", reason="job one", agent=AGENT)}, REFS
    ),
    st.builds(lambda ref: {"passed": Passed(commit=commit(ref)), "good": good(ref)}, REFS),
    st.builds(lambda at: {"contact": Contact(stale_since=at)}, st.sampled_from([None, NOW])),
)
FACTS = st.builds(
    lambda minute, run, parts: fact(minute, run, **parts),
    st.integers(0, 90),
    st.sampled_from(RUNS),
    PARTS,
)


def said(known: Known) -> list[object]:
    """Return everything that is asked of what is known."""
    refs = ["v1", "v2", "v10", "v3-rc1", "other"]
    later = NOW + timedelta(hours=2)
    return [
        known.pin,
        known.contact,
        known.good(AGENT),
        known.good("9"),
        known.bad,
        [known.lowest(LINE, tag=tag) for tag in (True, False)],
        [known.tag("r", ref) for ref in refs],
        [known.passed(commit(ref)) for ref in refs],
        [known.cut_off(commit(ref), later, ()) for ref in refs],
        [known.why_bad(commit(ref), ref, AGENT) for ref in refs],
    ]


@given(st.lists(FACTS, max_size=14), st.randoms(use_true_random=False), st.integers(0, 14))
def test_order_number_and_compaction_do_not_matter(
    facts: list[Fact], random: Any, cut: int
) -> None:
    """Whoever has the same facts says the same, also where some came as a snapshot of a part of them."""
    known = Known.of(facts)
    shuffled = [*facts, *facts[:cut]]
    random.shuffle(shuffled)
    assert Known.of(shuffled) == known
    assert Known.of([*compacted(facts[:cut]), *facts[cut:]]) == known
    assert Known.of(known.facts) == known
    assert said(Known(tuple(reversed(known.facts)))) == said(known)


def test_bad_beats_good() -> None:
    """Whichever came first, and the release before it stands in; an agent of another version looks again."""
    for first, second in ((1, 2), (2, 1)):
        known = Known.of(
            [fact(0, good=good("v1")), fact(first, good=good("v2")), fact(second, bad=bad("v2"))]
        )
        assert [one.ref for one in known.good(AGENT)] == ["v1"]
        assert [one.ref for one in known.good("0.3.0")] == ["v2", "v1"]
        assert known.why_bad(commit("v2"), "v2", "0.3.0") is None
        assert known.why_bad(commit("v2"), "v2.0", AGENT) is None


def test_what_an_operator_chose_is_not_bad_any_more() -> None:
    """Until it is found bad again."""
    facts = [fact(0, bad=bad("v2")), fact(1, pin=Pin(ref="v2"))]
    assert Known.of(facts).bad == ()
    assert Known.of([*facts, fact(2, bad=bad("v2"))]).bad != ()


def test_going_back_on_a_branch_leaves_the_release_bad() -> None:
    """All releases of a branch have its name: what is chosen is a commit, unless only the name is known."""
    left = Bad(commit=commit("b"), ref="main", reason="slow", agent=AGENT, operator=True)
    target = version("a", tag=False).model_copy(update={"ref": "main"})
    for more in ({"lowest": target}, {"pin": Pin(ref="main", commit=commit("a"))}):
        known = Known.of([fact(1, bad=left, **more)])
        assert known.why_bad(commit("b"), "main", AGENT) is not None
    for pin in (Pin(ref="main"), Pin(ref="main", commit=commit("b"))):
        assert Known.of([fact(1, bad=left), fact(2, pin=pin)]).bad == ()


def lowest(facts: list[Fact], line: str = LINE) -> str | None:
    """Return the tag of the minimum version."""
    found = Known.of(facts).lowest(line, tag=True)
    return found.ref if found else None


def test_the_lowest_version_only_rises_but_for_an_operator() -> None:
    """A good release that is older does not lower it; going back does, for what came before."""
    facts = [fact(0, good=good("v10")), fact(1, good=good("v2"))]
    assert lowest(facts) == "v10"
    back = [*facts, fact(3, lowest=version("v1"))]
    assert lowest(back) == "v1"
    assert lowest([*back, fact(2, good=good("v3")), fact(4, good=good("v2"))]) == "v2"
    assert lowest(back, "another") is None


def test_trials_that_died_count() -> None:
    """Past their deadline, or known to be dead; not those before one that ended in order, or before a choice."""
    later = NOW + timedelta(hours=2)
    started = [
        fact(number, RUNS[number], trial=trial("v2", TrialStage.STARTED)) for number in range(3)
    ]
    known = Known.of(started)
    assert known.cut_off(commit("v2"), later, ()) == (0, 3)
    assert known.cut_off(commit("v2"), NOW + timedelta(minutes=59), ()) == (0, 0)
    assert known.cut_off(commit("v2"), NOW, {RUNS[1]}) == (0, 1)
    ended = fact(1, RUNS[1], trial=trial("v2", TrialStage.ENDED))
    assert Known.of([*started, ended]).cut_off(commit("v2"), later, ()) == (0, 1)
    for pin in (Pin(ref="v2"), Pin(ref="v2", commit=commit("v2"))):
        assert Known.of([*started, fact(3, pin=pin)]).cut_off(commit("v2"), later, ()) == (0, 0)
    assert Known.of([*started, fact(3, pin=Pin(ref="v1"))]).cut_off(commit("v2"), later, ())[1] == 3
    installing = fact(0, RUNS[3], trial=trial("v2", TrialStage.INSTALLING))
    assert Known.of([installing]).cut_off(commit("v2"), later, ()) == (1, 0)


def test_the_pin_is_the_last_word() -> None:
    """A pin that was taken back is none, whichever arrives first."""
    pin, unpin = fact(1, pin=Pin(ref="v1")), fact(2, pin=Pin())
    assert Known.of([unpin, pin]).pin is None
    assert Known.of([pin]).pin == pin.pin


def test_an_unknown_part_may_have_any_name() -> None:
    """Of a newer writer, or of a forger: it is kept as it is, also with the name of a method."""
    odd = {"model_dump": {"a": 1}, "__class__": 2, "known": 3}
    told = Fact.model_validate({**dict(fact(contact=Contact(reached=NOW))), **odd})
    known = Known.of([told])
    assert known.contact.reached == NOW
    extras = [each.model_extra for each in known.facts if each.model_extra]
    assert {name: part for one in extras for name, part in one.items()} == odd


def test_it_stays_small() -> None:
    """However much was learnt, in a thousand nights of which each has a new release."""
    facts = []
    for night in range(1000):
        ref, run = f"v1.{night}", f"20261122T180000Z-{night:06x}"
        parts = {
            "seen": Seen(repository="r", tag=ref, commit=commit(ref)),
            "trial": trial(ref, TrialStage.ENDED),
            "good": good(ref),
            "bad": bad(ref),
            "passed": Passed(commit=commit(ref), jobs=("one",)),
            "contact": Contact(reached=NOW),
        }
        facts.append(fact(night, run, **parts))
    assert len(Known.of(facts).facts) < 600
    assert lowest(facts) == "v1.999"
