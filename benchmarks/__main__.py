"""`make bench`, or `python -m benchmarks [PART...]`: measure, keep the figures as JSON, write docs/performance.md.

Parts: recipe, cold, ends, arrival, transfer, link, agent, shards, home. `MAYFLY_BENCH_ROUNDS` is the number of rounds,
five where nobody says.
`MAYFLY_BENCH_LOADS=2` measures one load of `transfer`, `MAYFLY_BENCH_COLD=0,3` two cases of `cold`, by their places.
`python -m benchmarks.machine`, `benchmarks.lent` and `benchmarks.slow_boot` boot the virtual machine; `python -m
benchmarks page` only writes the page; `python -m benchmarks quick` prints what a few minutes can tell beside what is
committed, and writes nothing.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import page
from benchmarks.arrival import arrival
from benchmarks.billed import billed
from benchmarks.cold import cold
from benchmarks.ends import ends
from benchmarks.home import at_home
from benchmarks.memory import many_files
from benchmarks.quick import quick
from benchmarks.results import Findings, find, kept
from benchmarks.shards import shards
from benchmarks.transfer import link, loopback

ROUNDS = 5
BOOTED = {
    "machine": "From power-on to the first job, in a virtual machine",
    "lent": "A lent machine's night, in a virtual machine",
    "slow_boot": "A lent machine's night on a slow disk, in a virtual machine",
}
PARTS: dict[str, tuple[str, Callable[[int], Findings]]] = {
    "recipe": ("Billed seconds: five mixed jobs", billed),
    "cold": ("A cold machine: five mixed jobs, and a release that is newer than the image", cold),
    "ends": ("Head and tail of a run", ends),
    "arrival": ("From a job's end to its files at home", arrival),
    "transfer": ("Up and down, over the loopback", loopback),
    "link": ("Up and down, over a slow link", link),
    "agent": ("Many files: memory and CPU", many_files),
    "shards": ("From one shard to eight, and what they ask of the bucket", shards),
    "home": ("The service at home after ten years", at_home),
}


def main() -> None:
    """Measure the parts that are named, or all, and write the page after each."""
    if sys.argv[1:] == ["quick"]:
        quick()
        return
    names = [name for name in sys.argv[1:] or PARTS if name != "page"]
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        sys.exit(
            f"there is no part {unknown[0]!r}; the parts: {', '.join(PARTS)}, page, and quick alone"
        )
    rounds = int(os.environ.get("MAYFLY_BENCH_ROUNDS", ROUNDS))
    for name in names:
        print(f"{name} ...", flush=True)  # noqa: T201
        find(name, partial(PARTS[name][1], rounds))
        write_page()
    print(write_page())  # noqa: T201


def write_page() -> Path:
    """Write the page from what is kept of all parts."""
    titles = {part: title for part, (title, _) in PARTS.items()} | BOOTED
    return page.write({part: kept(part) for part in titles}, titles)


if __name__ == "__main__":
    main()
