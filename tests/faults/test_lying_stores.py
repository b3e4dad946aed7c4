"""Stores that say 200 and do something else: noticed before the commit, whatever they lie about.

`MAYFLY_LYING_STORES=all` for every lie about every object; by default each lie and each object once.
"""

import os
from pathlib import Path

import pytest

from tests.bucket.layout import DESCRIPTOR, ENTRIES, STATES
from tests.bucket.sound import Looker
from tests.faults.figures import Figures
from tests.faults.readers import Inspector, Puller
from tests.faults.world import World, expected, framed
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Corrupt, Delay, Fault, Lie

LONG = os.environ.get("MAYFLY_LYING_STORES") == "all"

LIES: dict[str, Fault] = {
    "200, nothing stored": Lie(),
    "200, half of it stored": Corrupt(),
    "200, all but the last byte stored": Corrupt(lambda content: content[:-1]),
    "200, stored with its chunk framing": Corrupt(framed),
}
OBJECTS = {
    "a result": "/files/d%200/0",
    "the log": "/log/",
    "the state": f"/{STATES}",
    "the package": f"/jobs/many/{DESCRIPTOR}",
    "the manifest": f"/{DESCRIPTOR}",
    "an entry": f"/{ENTRIES}",
}
"""What a store lies about. Of a pointer, which is empty, it hardly can: home finds an entry without one, only later."""
SAMPLE = ((0, 0), (1, 1), (2, 4), (3, 5))


def cases() -> list[tuple[str, str]]:
    """Return the lies and the objects to try."""
    lies, objects = list(LIES), list(OBJECTS)
    if LONG:
        return [(lie, what) for lie in lies for what in objects]
    return [(lies[lie], objects[what]) for lie, what in SAMPLE]


def seed_for_lies() -> int:
    """Return a seed whose first file is not empty: half of nothing is nothing."""
    return next(
        seed
        for seed in range(1, 100)
        if seed % 8 and all(size for size, _ in expected(seed).values())
    )


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_a_lie_is_noticed_before_the_commit(tmp_path: Path, s3_proxy: FaultProxy) -> None:
    """Exit code 6, and nothing is named that is not there; once the store is honest, the next run delivers both."""
    figures = Figures(
        point="4b",
        title="Stores that lie",
        command="MAYFLY_LYING_STORES=all pytest tests/faults/test_lying_stores.py -s",
        columns=(
            *("lie", "about", "noticed before the commit"),
            *("delivered afterwards", "wrong reads"),
        ),
        long=LONG,
    )
    world = World.make(tmp_path / "world", s3_proxy)
    world.seed(seed := seed_for_lies())
    problems = []
    dest = tmp_path / "home"
    with (
        Inspector(dest, world.bucket) as inspector,
        Puller(dest, world.bucket) as puller,
    ):
        for lie, what in cases():
            if what == "the manifest":
                s3_proxy.inject(Delay(0), path="/jobs/")  # their packages have the same name
            s3_proxy.inject(LIES[lie], method="PUT", path=OBJECTS[what])
            ran = world.bench.run(limits__handoff="12s")
            noticed = ran.code == 6 and named_wrongly(world, ran.run_id) == []
            # An entry is tried again for longer than this hand-off lasts.
            told = "does not hold it" in ran.stderr or what == "an entry"
            s3_proxy.heal()
            again = world.bench.run()
            wrong = [*world.problems(ran, seed), *world.problems(again, seed)]
            cells = ("yes" if noticed else "no", "no" if wrong else "yes", len(inspector.wrong))
            figures.row(lie, what, *cells)
            if not (noticed and told) or wrong:
                problems.append(f"{lie}, {what}: {ran.code}: {ran.stderr[-1500:]}; {wrong}")
    figures.write()
    assert [*problems, *inspector.wrong, *puller.defects, *puller.rejected] == []
    assert len(inspector.seen) == len(world.bucket.runs)


def named_wrongly(world: World, run: str) -> list[tuple[str, str]]:
    """Return what the log of a run's batch names, directly or not, and is not there as it was sent."""
    seen = Looker(world.bucket.objects).look()
    problems = seen.problems_of(seen.runs[run]) if run in seen.runs else ()
    return [problem for problem in problems if problem[0] in {"missing", "different"}]


def test_parts_of_a_large_file_that_are_not_stored(tmp_path: Path, s3_proxy: FaultProxy) -> None:
    """A part is answered with 200 and dropped: the job is not committed, and is delivered by the next run."""
    world = World.make(tmp_path / "world", s3_proxy)
    seed = next(n for n in range(1, 200) if n % 8 and _has_large(n))
    world.seed(seed)
    s3_proxy.inject(Lie(), method="PUT", path="partNumber=")
    ran = world.bench.run(limits__handoff="6s")
    assert ran.code == 6, ran.stderr
    assert world.bucket.run(ran.run_id).told == {}
    s3_proxy.heal()
    again = world.bench.run()
    assert again.code == 0, again.stderr
    assert world.problems(ran, seed) + world.problems(again, seed) == []


def _has_large(seed: int) -> bool:
    return "large.bin" in expected(seed)
