"""Who works for a slot: the rules as tables, and the protocol for stores without conditions under every delay."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.layout import named_slot_key, slot_key
from agent.core.results import RunStatus
from agent.core.slots import (
    CLOCKS,
    STALE_TAG,
    TAG_COMES_WITHIN,
    Claim,
    Found,
    Scene,
    Witness,
    next_number,
    number_of,
    parse_slot,
    read_claim,
    slot_name,
    tag_may_change,
    why_not,
    winner,
)

SLOT = datetime(2026, 11, 22, 18, tzinfo=UTC)
NOW = SLOT + timedelta(minutes=10)
SETTLE = 5.0


def claim(run: str, *, instance: str | None = None, boot: str | None = None) -> Claim:
    """A claim of a run that has until two hours after the slot."""
    return Claim(
        run_id=run,
        claimed=SLOT,
        deadline=SLOT + timedelta(hours=2),
        host="host",
        instance_id=instance,
        boot_id=boot,
    )


def numbered(*claims: Claim | None) -> list[Found]:
    """The claims as first, second, ..."""
    return [Found(slot_key("x", number), SLOT, one, number) for number, one in enumerate(claims, 1)]


def witness(
    own: Claim | None = None, *, dead: tuple[str, ...] = (), now: datetime = NOW
) -> Witness:
    """What a claimant knows."""
    return Witness(own or claim("me"), frozenset(dead), now)


OTHER = claim("other", instance="i-1", boot="b-1")


@pytest.mark.parametrize(
    ("scene", "who", "reason"),
    [
        (Scene(), witness(), ""),
        (Scene(numbered(OTHER)), witness(), "run other on i-1 works for it"),
        (Scene(numbered(None)), witness(), ""),
        (Scene(numbered(claim("me"))), witness(), ""),
        (Scene(numbered(OTHER)), witness(dead=("other",)), ""),
        (Scene(numbered(OTHER)), witness(claim("me", instance="i-1", boot="b-2")), ""),
        (
            Scene(numbered(OTHER)),
            witness(claim("me", instance="i-1", boot="b-1")),
            "run other on i-1 works for it",
        ),
        (
            Scene(numbered(OTHER)),
            witness(claim("me", instance="i-1")),
            "run other on i-1 works for it",
        ),
        (
            Scene(numbered(claim("other"))),
            witness(claim("me", boot="b-2")),
            "run other on host works for it",
        ),
        (Scene(numbered(OTHER)), witness(now=OTHER.deadline + CLOCKS), "works for it"),
        (
            Scene(numbered(OTHER)),
            witness(now=OTHER.deadline + CLOCKS + timedelta(seconds=1)),
            "",
        ),
        (
            Scene(numbered(OTHER), committed={"other": RunStatus.SUCCEEDED}),
            witness(),
            "run other has done it",
        ),
        (
            Scene(numbered(OTHER), committed={"other": RunStatus.FAILED}),
            witness(now=NOW + timedelta(days=3)),
            "run other has done it",
        ),
        (Scene(numbered(OTHER), committed={"other": RunStatus.INTERRUPTED}), witness(), ""),
        (
            Scene(numbered(OTHER, claim("third")), committed={"other": RunStatus.INTERRUPTED}),
            witness(),
            "run third on host works for it",
        ),
        (
            Scene(numbered(OTHER), [Found("x", SLOT, claim("third"))]),
            witness(dead=("other",)),
            "run third on host works for it",
        ),
    ],
    ids=[
        "nobody claimed",
        "another has it",
        "rubbish holds nothing",
        "one's own",
        "died in this state directory",
        "died with an earlier boot of this machine",
        "same boot, other state directory",
        "boot unknown",
        "no instance id: another machine of the same name",
        "past its deadline, within the clocks' difference",
        "past its deadline",
        "done",
        "done, though it failed",
        "was interrupted",
        "interrupted, and taken over",
        "named claim of another",
    ],
)
def test_who_may_claim(scene: Scene, who: Witness, reason: str) -> None:
    """One that is alive keeps everybody else away; one that is over, done or not, decides what is left to do."""
    said = why_not(scene, who)
    assert reason in said
    assert bool(said) == bool(reason)


@given(st.sets(st.integers(1, 50), max_size=8))
def test_the_next_number_is_free(numbers: set[int]) -> None:
    """Whatever claims were taken back meanwhile, no claim is put where one may be."""
    scene = Scene([Found(slot_key("x", number), SLOT, None, number) for number in numbers])
    assert next_number(scene) not in numbers


@given(st.integers(2, 999_999))
def test_keys_of_numbers_and_of_names_are_told_apart(number: int) -> None:
    """The listing alone says which kind of claim it is."""
    assert number_of(slot_key("20261122T180000Z", number)) == number
    assert number_of(named_slot_key("20261122T180000Z", "20261122T180004Z-3f9a1c")) == 0


@given(st.binary())
def test_what_nobody_can_read_is_no_claim(content: bytes) -> None:
    """Rubbish under a slot's keys stops no machine."""
    assert read_claim(content) is None


def test_a_claim_is_read_as_it_was_written() -> None:
    """Its deadline keeps its zone."""
    assert read_claim(OTHER.model_dump_json().encode()) == OTHER


@pytest.mark.parametrize(
    ("text", "slot"),
    [
        ("2026-11-22T18:00:00Z", SLOT),
        ("2026-11-23T03:00:00+09:00", SLOT),
        ("2026-11-23T03:00+09:00", SLOT),
        ("2026-11-22T18:00:00.123Z", SLOT),
        ("2026-11-22T18:00:00", None),
        ("2026-13-22T18:00:00Z", None),
        ("now", None),
        ("", None),
    ],
)
def test_a_slot_is_a_moment(text: str, slot: datetime | None) -> None:
    """A time without a zone would be another slot on another machine."""
    assert parse_slot(text) == slot


@given(st.integers(0, 2**32), st.integers(-14 * 60, 14 * 60))
def test_a_slot_has_one_name(seconds: int, minutes: int) -> None:
    """However its zone is written."""
    slot = datetime.fromtimestamp(seconds, UTC)
    elsewhere = slot.astimezone(timezone(timedelta(minutes=minutes)))
    assert slot_name(slot) == slot_name(elsewhere)
    assert slot_name(slot, shard=3, shards=8) == f"{slot_name(slot)}-3-of-8"


@pytest.mark.parametrize(
    ("age", "up", "may"),
    [
        (timedelta(0), timedelta(seconds=20), False),
        (STALE_TAG, timedelta(seconds=20), False),
        (timedelta(days=1), timedelta(seconds=20), True),
        (timedelta(days=1), TAG_COMES_WITHIN, False),
        (-timedelta(seconds=30), timedelta(seconds=20), False),
    ],
    ids=["on time", "started late", "of yesterday", "nothing came", "before the boot"],
)
def test_an_old_tag_is_looked_at_again(age: timedelta, up: timedelta, *, may: bool) -> None:
    """The schedule that writes it may be a minute behind the one that starts the machine; after that it is final."""
    booted = SLOT + age
    assert tag_may_change(SLOT, booted, booted + up) is may
    assert not tag_may_change(SLOT, None, booted + up)


class Sim:
    """A store without conditions and the claimants of one slot, with every delay that the protocol admits.

    Between a claimant and the store anything may take any time. Within the store, a put is listed at the latest
    `SETTLE` after it arrived, the differences of its servers' clocks included.
    """

    def __init__(self, rows: list[tuple[float, float, float, float, float]]) -> None:
        self.rows = [
            # look, the put's arrival, its stamp, when it is listed, when the claimant lists
            (look, look + put, look + put + skew, look + put + seen, look + put + back + SETTLE)
            for look, put, skew, seen, back in rows
        ]
        self.gone: dict[int, float] = {}

    def seen_by(self, at: float, own: int) -> Scene:
        """What a listing shows."""
        named = [
            Found(str(other), SLOT + timedelta(seconds=row[2]), claim(str(other)))
            for other, row in enumerate(self.rows)
            if other in self.put and row[3] <= at and self.gone.get(other, at + 1) > at
        ]
        return Scene(named=[one for one in named if at > self.rows[own][1] or one.key != str(own)])

    def workers(self) -> list[int]:
        """Who works in the end."""
        self.put: set[int] = set()
        winners = []
        events = [(row[0], 0, number) for number, row in enumerate(self.rows)]
        events += [(row[4], 1, number) for number, row in enumerate(self.rows)]
        for at, what, number in sorted(events):
            own = witness(claim(str(number)))
            if what == 0:
                if not why_not(self.seen_by(at, number), own):
                    self.put.add(number)
            elif number in self.put:
                first = winner(self.seen_by(at, number), own)
                assert first is not None
                if first.run_id == str(number):
                    winners.append(number)
                else:
                    self.gone[number] = at
        return winners


DELAY = st.floats(0, 60)
CLAIMANT = st.tuples(
    DELAY,  # when it looks
    DELAY,  # until its put arrives
    st.floats(-1, 1),  # the clock of the server that stamps it
    st.floats(0, SETTLE - 2),  # until it is listed
    st.floats(0, 60),  # until the claimant hears that it was put
)


@given(st.lists(CLAIMANT, min_size=1, max_size=6))
def test_without_conditions_one_works_whatever_the_network_does(
    rows: list[tuple[float, float, float, float, float]],
) -> None:
    """Late looks, late puts, late answers: of those that claim, one works, never two and never none."""
    assert len(Sim(rows).workers()) == 1


def test_a_claimant_whose_claim_is_not_listed_yet_waits() -> None:
    """Who does not see itself does not see the others either."""
    assert winner(Scene(named=[Found("x", SLOT, OTHER)]), witness()) is None


def test_of_named_claims_a_dead_one_holds_nothing() -> None:
    """The first that is not over has the slot; equal stamps are told apart by the runs' ids."""
    named = [Found("a", SLOT, OTHER), Found("c", SLOT, claim("z")), Found("b", SLOT, claim("me"))]
    first = winner(Scene(named=named), witness(dead=("other",)))
    assert first is not None
    assert first.run_id == "me"
