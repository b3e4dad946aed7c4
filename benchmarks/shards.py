"""Shards: what more of them bring, and what each asks of the bucket.

The jobs wait and compute nothing, as those that scrape do for most of their time: two cores are enough for all shards.
The ideal of a number of shards is the time that the jobs of its largest share wait: values are dealt by a hash, so no
deal is quite even.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from agent.jobs.selection import home_of
from benchmarks.loops import loop_figures, stall_target, watching
from benchmarks.results import Case, Findings, Sample, Target, in_turn
from tests.bucket.bucket import Bucket
from tests.parts.command import MAYFLY
from tests.parts.faultproxy import FaultProxy, Seen
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench
from tests.run.fleet import Fleet

SHARDS = (1, 2, 4, 8)
VALUES = int(os.environ.get("MAYFLY_BENCH_VALUES", "240"))
WAIT = float(os.environ.get("MAYFLY_BENCH_WAIT", "8"))
"""Seconds that each job waits."""
AT_ONCE = 6
"""Jobs of a shard at once."""
LOOP = "loop"
LIMIT = 1.2
"""Times the ideal."""
FEW, MANY = 4, 24
"""Values of the runs whose requests are counted; what one costs more than the other is the price of a value."""
SMALL, MORE_SHARDS, MORE_VALUES = (2, 16), (6, 16), (2, 48)
"""Shards and values of the groups that home pulls."""
BIG_SHARDS, BIG_VALUES = 1000, 1_000_000


def shards(rounds: int) -> Findings:
    """Measure wall time against the number of shards, and count requests."""
    with (
        tempfile.TemporaryDirectory(prefix="mayfly-bench-") as folder,
        S3Server(Path(folder) / "s3") as server,
        FaultProxy(server) as proxy,
    ):
        yard = _Yard(Path(folder), server, proxy)
        turns = {str(count): (lambda count=count: [yard.scale(count)]) for count in SHARDS}
        scaling = Case(
            f"{VALUES} jobs that wait {WAIT:g} s, {AT_ONCE} at once in each shard",
            "wall time",
            in_turn(turns, rounds),
        )
        few, many = yard.requests(FEW), yard.requests(MANY)
        home = {fleet: yard.pulled(*fleet) for fleet in (SMALL, MORE_SHARDS, MORE_VALUES)}
    targets = tuple(
        Target(
            f"{count} shards",
            LIMIT,
            "x",
            tuple(
                wall / ideal
                for wall, ideal in zip(
                    scaling.values(str(count), "wall"),
                    scaling.values(str(count), "ideal"),
                    strict=True,
                )
            ),
            "the ideal",
        )
        for count in SHARDS
    )
    stalls = zip(*(scaling.values(str(count), "stall") for count in SHARDS), strict=True)
    targets += (stall_target("shards, all of each number", map(max, stalls)),)
    return Findings((scaling,), targets, {}, (*_prices(few, many), *_home(home)))


def ideal(count: int) -> float:
    """Return the seconds that the largest share waits, in rounds of `AT_ONCE`."""
    deal = Counter(home_of(f"shop-{number}", count) for number in range(VALUES))
    return math.ceil(max(deal.values()) / AT_ONCE) * WAIT


class _Watched(Bench):
    """A computer on which each run's event loop is watched; the report is beside its state directory."""

    def command(self, *arguments: str, **settings: str) -> list[str]:
        """Return the command line of a run."""
        report = Path(settings.get("paths__state", self.state)).with_name(LOOP)
        return [*watching(report), *super().command(*arguments, **settings)[len(MAYFLY) :]]


class _Yard:
    """Where fleets run, each with a bucket of its own."""

    def __init__(self, folder: Path, server: S3Server, proxy: FaultProxy) -> None:
        self._folder = folder
        self._server = server
        self._proxy = proxy
        self._number = 0

    def scale(self, count: int) -> Sample:
        """Run a batch in so many shards, and return its wall time."""
        fleet = self._fleet(VALUES, f"sleep {WAIT:g}", count)
        began = time.monotonic()
        members = [fleet.start(shard) for shard in range(count)]
        codes = [member.wait(3600) for member in members]
        wall = time.monotonic() - began
        if any(codes):
            raise RuntimeError(f"shards ended with {codes}")
        loops = [loop_figures(member.folder / LOOP) for member in members]
        longest = {name: max(one[name] for one in loops) for name in loops[0]}
        return Sample(str(count), {"wall": wall, "ideal": ideal(count), **longest})

    def requests(self, values: int) -> Counter[str]:
        """Return what a run of one shard asks of the bucket, by kind."""
        fleet = self._fleet(values, 'echo > "$MAYFLY_OUTPUT_DIR/page"', 1)
        self._proxy.seen.clear()
        if fleet.start(0).wait(600):
            raise RuntimeError("the run failed")
        return Counter(map(_kind, self._proxy.seen))

    def pulled(self, count: int, values: int) -> Counter[str]:
        """Return what `mayfly pull` asks of the bucket for a group of so many shards, with so many values in all."""
        fleet = self._fleet(values, 'echo > "$MAYFLY_OUTPUT_DIR/page"', count)
        members = [fleet.start(shard) for shard in range(count)]
        if any(member.wait(600) for member in members):
            raise RuntimeError("a shard failed")
        self._proxy.seen.clear()
        bench = fleet.bench
        command = [sys.executable, "-m", "agent", "pull", str(bench.folder / "home")]
        command += ["--store", bench.store, "--set", f"store.endpoint={self._proxy.url}"]
        subprocess.run(command, env=bench.environment(), check=True, capture_output=True)
        return Counter(map(_kind, self._proxy.seen))

    def _fleet(self, values: int, script: str, count: int) -> Fleet:
        self._number += 1
        folder = self._folder / str(self._number)
        store, bucket = self._server, self._server.make_bucket()
        bench = _Watched.make(folder, Bucket.on_s3(store, bucket, endpoint=self._proxy.url))
        bench.settings["limits.jobs"] = str(AT_ONCE)
        shops = ", ".join(f'"{number}"' for number in range(values))
        jobs = (
            '[[job]]\nname = "shop"\ncommand = ["sh", "shop.sh"]\n'
            f"matrix = {{ shop = [{shops}] }}\n"
        )
        bench.release("v1", jobs, {"shop.sh": script})
        return Fleet(bench, "night-1", count)


def _kind(seen: Seen) -> str:
    return "LIST" if "list-type=2" in seen.path else seen.method


def _prices(few: Counter[str], many: Counter[str]) -> tuple[str, ...]:
    """Return what a shard asks, as a constant and a price for each value, and what that makes of a large batch."""
    values = BIG_VALUES // BIG_SHARDS
    # One request more or less among so many values is chance.
    price = {
        kind: max(0.0, round((many[kind] - few[kind]) / (MANY - FEW), 1))
        for kind in sorted(few | many)
    }
    constant = {kind: few[kind] - FEW * price[kind] for kind in price}
    each = " ".join(f"{kind} {constant[kind]:.3g} + {price[kind]:.3g} v" for kind in price)
    total = {kind: constant[kind] + values * price[kind] for kind in price}
    sums = ", ".join(f"{kind} {total[kind]:,.0f}" for kind in total)
    return (
        f"Requests of a shard with v values, one file each (measured with {FEW} and {MANY}): {each}.",
        f"So each of {BIG_SHARDS:,} shards of a batch of {BIG_VALUES:,} values asks: {sums}.",
    )


def _home(pulls: Mapping[tuple[int, int], Counter[str]]) -> tuple[str, ...]:
    """Return what home asks, for each shard and each value, and what that makes of a large batch."""
    small = pulls[SMALL]
    value = _price(small, pulls[MORE_VALUES], MORE_VALUES[1] - SMALL[1])
    shard = _price(small, pulls[MORE_SHARDS], MORE_SHARDS[0] - SMALL[0])
    once = {
        kind: small[kind] - SMALL[0] * shard[kind] - SMALL[1] * value[kind]
        for kind in sorted(small)
    }
    each = "; ".join(
        f"{kind} {once[kind]:.3g} + {shard[kind]:.3g} s + {value[kind]:.3g} v" for kind in once
    )
    sums = ", ".join(
        f"{kind} {once[kind] + BIG_SHARDS * shard[kind] + BIG_VALUES * value[kind]:,.0f}"
        for kind in once
    )
    told = "; ".join(
        f"{shards} shards with {values} values: {_told(counts)}"
        for (shards, values), counts in pulls.items()
    )
    return (
        f"`mayfly pull` of a group, one file and one log each: {told}.",
        f"That is, for s shards with v values in all: {each}.",
        f"For {BIG_SHARDS:,} shards with {BIG_VALUES:,} values: {sums}.",
    )


def _price(few: Counter[str], many: Counter[str], more: int) -> dict[str, float]:
    return {kind: (many[kind] - few[kind]) / more for kind in sorted(few | many)}


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
