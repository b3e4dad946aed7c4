"""Documents changed by Hypothesis, for readers in turn: `python -m tests.faults.changed RUNS SEED NAME...`.

It is a program of its own because it watches for effects (`tests.faults.effects`). For each reader it prints how many
inputs were read, in which time, and the most processor seconds that one took, as a line of JSON; an input that breaks a
reader ends it with its traceback, which names the reader.
"""

import json
import sys
import time

from hypothesis import HealthCheck, Phase, given, seed, settings

from agent.cli import leave
from tests.faults.effects import watched
from tests.faults.mutations import texts
from tests.faults.targets import TARGETS, Target

LARGEST = 4 * 1024**2
"""Bytes of an input: changes upon changes make a hundred megabytes, of which a reader only shows that it takes time.
How much may be read at all is for the limits of those who read, which have tests of their own."""


def main() -> None:
    """Let each reader read, from the same seed, whoever was before it."""
    runs, number, *names = sys.argv[1:]
    for name in names:
        try:
            told = changed(TARGETS[name], int(runs), int(number))
        except BaseException as error:
            error.add_note(f"the reader of {name}")
            raise
        print(json.dumps(told))


def changed(target: Target, runs: int, number: int) -> dict[str, object]:
    """Have the good documents read, and then what was made of them."""
    count, slowest, began = 0, 0.0, time.monotonic()

    @seed(number)
    @settings(
        max_examples=runs,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[*HealthCheck],
    )
    @given(data=texts(target.documents, target.dump).filter(lambda data: len(data) <= LARGEST))
    def read(data: bytes) -> None:
        nonlocal count, slowest
        start = time.process_time()
        with watched():
            target.read(data)
        count, slowest = count + 1, max(slowest, time.process_time() - start)

    for document in target.documents:
        target.read(target.dump(document))
    read()
    seconds = time.monotonic() - began
    found = {"inputs": count, "seconds": seconds, "slowest_cpu_seconds": slowest}
    return {"reader": target.name, **found}


if __name__ == "__main__":
    main()
    # The client of the bucket in memory has threads, too.
    leave(0)
