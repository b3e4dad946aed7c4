"""The plug is pulled at random moments of a machine's run; what it had finished is in the bucket after the next boot.

In two forms: the machine keeps its disk, or each boot has a new one, as an instance that is launched has.

`MAYFLY_TEST_SEEDS=30` for the figure of docs/reliability.md; three moments are enough for every day. A seed is a
moment, as a part of the run's usual length: the same seed pulls the plug at the same point of an equally busy computer.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.figures import Figures
from tests.machine.kills_bench import (
    BOOTS,
    BUCKET,
    FRESH,
    Life,
    Seen,
    image_of,
    moment,
    ready,
)
from tests.machine.power_bench import Frozen
from tests.parts.machine import Disk
from tests.parts.seaweed import S3Server

SEEDS = range(int(os.environ.get("MAYFLY_TEST_SEEDS", "3")))
LONG = 30
"""Moments whose figures are kept."""

pytestmark = [pytest.mark.timeout(2400), pytest.mark.machine]


@dataclass(frozen=True)
class Bench:
    """What all these machines share.

    Attributes:
        frozen: The machine from which each begins.
        s3: Their store.
        usual: Seconds from the start of a run to the power-off, when nothing happens.
    """

    frozen: Frozen
    s3: S3Server
    usual: float


@pytest.fixture(scope="module")
def bench(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The store and the frozen machine; a first run shows how long one takes."""
    with S3Server(tmp_path_factory.mktemp("s3")) as s3:
        s3.make_bucket(BUCKET)
        frozen = ready(disk, tmp_path_factory.mktemp("frozen"), s3)
        usual = Life(frozen, s3, tmp_path_factory.mktemp("usual"), "usual").whole()
        yield Bench(frozen, s3, usual)


@pytest.fixture(scope="module")
def seen() -> Iterator[list[Seen]]:
    """What came of each machine that keeps its disk."""
    yield from told("3", "A booted machine killed outright, its disk kept")


@pytest.fixture(scope="module")
def seen_fresh() -> Iterator[list[Seen]]:
    """What came of each machine whose disk is gone."""
    yield from told("3b", "A booted machine killed outright, a new disk for each boot")


def told(point: str, title: str) -> Iterator[list[Seen]]:
    """Yield a list; the sum is printed at the end, and kept for docs/reliability.md when it is the long form."""
    seen: list[Seen] = []
    yield seen
    figures = Figures(
        point=point,
        title=title,
        command=f"MAYFLY_TEST_SEEDS={len(seen)} pytest -m machine -s tests/machine/test_kills.py",
        columns=("what", "moments", "files lost", "runs twice", "files wrong", "converged"),
        seed=0,
        long=len(seen) >= LONG,
    )
    lost, twice = sum(one.lost for one in seen), sum(one.twice for one in seen)
    wrong = sum(one.wrong for one in seen)
    converged = f"{sum(one.boots > 0 for one in seen)}/{len(seen)}"
    figures.row("machine killed", len(seen), lost, twice, wrong, converged)
    figures.write()
    print(
        f"reliability: machine killed | {len(seen)} moments | lost {lost} | twice {twice} | wrong {wrong}"
        f" | converged {converged}"
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment(
    seed: int, bench: Bench, seen: list[Seen], tmp_path: Path
) -> None:
    """Nothing finished is lost, nothing is committed twice, no manifest is wrong, and two boots are enough."""
    after = moment(seed, bench.usual)
    one = Life(bench.frozen, bench.s3, tmp_path / "machine", f"seed-{seed}").killed(after)
    seen.append(one)
    print(f"\nseed {seed}: plug pulled {after:.1f} s of {bench.usual:.1f} s after the start: {one}")
    assert (one.lost, one.twice, one.wrong) == (0, 0, 0)
    assert 1 <= one.boots <= BOOTS


@dataclass(frozen=True)
class Launched:
    """What all machines share that are launched from an image.

    Attributes:
        image: What their disks begin with.
        usual: Seconds from power-on to power-off, when nothing happens.
    """

    image: Disk
    usual: float


@pytest.fixture(scope="module")
def launched(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """The image, and how long a machine of it takes."""
    image = image_of(bench.frozen, tmp_path_factory.mktemp("image"), bench.s3)
    life = Life(bench.frozen, bench.s3, tmp_path_factory.mktemp("first"), FRESH)
    return Launched(image, life.whole_with_its_disk(image))


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_with_its_disk(
    seed: int, bench: Bench, launched: Launched, seen_fresh: list[Seen], tmp_path: Path
) -> None:
    """What had ended ten seconds before is there, once, and the log up to a minute before; the next machine works."""
    after = launched.usual * (0.3 + 0.7 * moment(seed, 1.0))
    life = Life(bench.frozen, bench.s3, tmp_path / "machine", FRESH)
    one = life.killed_with_its_disk(launched.image, after)
    seen_fresh.append(one)
    print(
        f"\nseed {seed}: plug pulled {after:.1f} s of {launched.usual:.1f} s after power-on: {one}"
    )
    assert (one.lost, one.twice, one.wrong) == (0, 0, 0)
    assert one.boots == 1
