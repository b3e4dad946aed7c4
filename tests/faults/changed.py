"""Documents changed by Hypothesis, for one reader: `python -m tests.faults.changed NAME RUNS SEED`.

It is a program of its own because it watches for effects (`tests.faults.effects`). It prints how many inputs were read
and the most processor seconds that one took, as JSON; an input that breaks the reader ends it with its traceback.
"""

import json
import sys
import time

from hypothesis import HealthCheck, Phase, given, seed, settings

from agent.cli import leave
from tests.faults.effects import watched
from tests.faults.mutations import texts
from tests.faults.targets import TARGETS

LARGEST = 4 * 1024**2
"""Bytes of an input: changes upon changes make a hundred megabytes, of which a reader only shows that it takes time.
How much may be read at all is for the limits of those who read, which have tests of their own."""


def main() -> None:
    """Read the good documents, and then what was made of them."""
    name, runs, number = sys.argv[1:]
    target = TARGETS[name]
    count, slowest = 0, 0.0

    @seed(int(number))
    @settings(
        max_examples=int(runs),
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
    print(json.dumps({"inputs": count, "slowest_cpu_seconds": slowest}))


if __name__ == "__main__":
    main()
    # The client of the bucket in memory has threads, too.
    leave(0)
