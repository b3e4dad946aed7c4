"""Whatever stands in a text that others wrote: it is read, or refused with words; no traceback, no hang, no effect.

Two ways: Hypothesis changes good documents and cuts texts; a coverage-guided fuzzer (libFuzzer, by Atheris) keeps the
inputs that reach new lines of our code and changes those. Both find the same defects again from the same seed.

`MAYFLY_FUZZ_INPUTS=100000` is the long form: as many inputs for each reader, by each way. `MAYFLY_FUZZ_SEED` replays.
"""

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.effects import INPUT_SECONDS
from tests.faults.figures import Figures
from tests.faults.targets import TARGETS, Target
from tests.parts.command import completed

SHORT = 150
INPUTS = int(os.environ.get("MAYFLY_FUZZ_INPUTS", str(SHORT)))
SEED = int(os.environ.get("MAYFLY_FUZZ_SEED", "1"))
GUIDED_SECONDS = 180 + INPUTS // 20
"""Twenty inputs a second, which are hundreds on a machine that has nothing else to do."""
ROOT = Path(__file__).parents[2]
ALL = list(TARGETS.values())
GUIDED = ALL if INPUTS > SHORT else [TARGETS["jobs files"], TARGETS["entries"]]
"""The start of a fuzzer takes longer than the inputs of the short form."""
CHANGED = {target.name: [target] for target in ALL} if INPUTS > SHORT else {"all readers": ALL}
"""The other program starts once for all readers of the short form."""
CHANGED_SECONDS = 120 + INPUTS // 10 * max(map(len, CHANGED.values()))
"""Ten inputs a second, for the same reason."""


def name_of(target: Target) -> str:
    """Return a target's name, for the names of tests."""
    return target.name


def table_of(point: str, way: str, expression: str, *columns: str) -> Iterator[Figures]:
    """Yield the table of one way, and keep it when every target has its row."""
    table = Figures(
        point=point,
        title=f"Bad input, {way}",
        command=f"MAYFLY_FUZZ_INPUTS={INPUTS} pytest tests/faults/test_fuzz.py -k {expression} -s",
        columns=("what is read", "inputs", "inputs/s", *columns, "defects"),
        seed=SEED,
        long=INPUTS >= 100_000,
    )
    yield table
    # Where a target failed there is no whole to keep.
    table.long &= len(table.rows) == len(ALL)
    table.write()


@pytest.fixture(scope="module")
def changed() -> Iterator[Figures]:
    """The table of what Hypothesis made."""
    yield from table_of("8", "documents changed by Hypothesis", "changed", "slowest, s of CPU")


@pytest.fixture(scope="module")
def guided() -> Iterator[Figures]:
    """The table of what Atheris made."""
    yield from table_of("8b", "made by Atheris to reach new lines", "reaches")


def program(name: str, *arguments: str, seconds: float) -> str:
    """Run a program of this package to its good end, and return what it said."""
    done = completed(
        [sys.executable, "-m", f"tests.faults.{name}", *arguments], at=ROOT, seconds=seconds
    )
    said = done.stderr + done.stdout
    assert done.returncode == 0, f"seed {SEED}: {said[-6000:]}"
    return said


@pytest.mark.parametrize("targets", CHANGED.values(), ids=CHANGED)
@pytest.mark.timeout(90 + CHANGED_SECONDS)
def test_changed_documents_and_any_bytes(targets: Sequence[Target], changed: Figures) -> None:
    """Each input ends within its time, in a value or in faults that can be told, without an effect."""
    names = [target.name for target in targets]
    said = program("changed", str(INPUTS), str(SEED), *names, seconds=CHANGED_SECONDS)
    found = [json.loads(line) for line in said.splitlines()[-len(names) :]]
    assert [one["reader"] for one in found] == names
    for one in found:
        inputs, slowest = one["inputs"], one["slowest_cpu_seconds"]
        changed.row(one["reader"], inputs, round(inputs / one["seconds"]), f"{slowest:.2f}", 0)
        assert inputs >= INPUTS, one
        assert slowest < INPUT_SECONDS, one


@pytest.mark.parametrize("target", GUIDED, ids=name_of)
@pytest.mark.timeout(90 + GUIDED_SECONDS)
def test_what_reaches_new_lines(target: Target, guided: Figures, tmp_path: Path) -> None:
    """The fuzzer does all its runs; what it finds is printed with its traceback, and kept as a file."""
    began = time.monotonic()
    arguments = (target.name, str(tmp_path), str(INPUTS), str(SEED))
    said = program("guided", *arguments, seconds=GUIDED_SECONDS)
    seconds = time.monotonic() - began
    found = re.search(r"number_of_executed_units: (\d+)", said)
    assert found is not None, said[-3000:]
    count = int(found[1])
    guided.row(target.name, count, round(count / seconds), 0)
    assert count >= INPUTS


def test_the_watch_sees_effects(tmp_path: Path) -> None:
    """A reader that wrote a file, started a program or hung would be noticed; one that only reads a file is not."""
    said = program("effects", str(tmp_path), seconds=60)
    seen = json.loads(said.splitlines()[-1])
    assert seen["reads a file"] == ""
    assert "open" in seen["writes a file"]
    assert "Popen" in seen["starts a program"]
    assert seen["does not end"] == "not read in time"
