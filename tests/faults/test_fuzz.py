"""Whatever stands in a text that others wrote: it is read, or refused with words; no traceback, no hang, no effect.

Two ways: Hypothesis changes good documents and cuts texts; a coverage-guided fuzzer (libFuzzer, by Atheris) keeps the
inputs that reach new lines of our code and changes those. Both find the same defects again from the same seed.

`MAYFLY_FUZZ_INPUTS=100000` is the long form: as many inputs for each reader, by each way. `MAYFLY_FUZZ_SEED` replays.
"""

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.faults.effects import INPUT_SECONDS, EffectError, HangError, watched
from tests.faults.figures import Figures
from tests.faults.mutations import texts
from tests.faults.targets import TARGETS, Target

SHORT = 150
INPUTS = int(os.environ.get("MAYFLY_FUZZ_INPUTS", str(SHORT)))
SEED = int(os.environ.get("MAYFLY_FUZZ_SEED", "1"))
LARGEST = 4 * 1024**2
"""Bytes of an input: changes upon changes make a hundred megabytes, of which a reader only shows that it takes time.
How much may be read at all is for the limits of those who read, which have tests of their own."""
GUIDED_SECONDS = 180 + INPUTS // 20
"""A limit for the fuzzer's process: twenty inputs a second, which are hundreds on a machine with nothing else to do."""
ROOT = Path(__file__).parents[2]
ALL = list(TARGETS.values())
GUIDED = ALL if INPUTS > SHORT else [TARGETS["jobs files"], TARGETS["index entries"]]
"""The start of a fuzzer takes longer than the inputs of the short form."""


def name_of(target: Target) -> str:
    """Return a target's name, for the names of tests."""
    return target.name


def table_of(point: str, way: str, expression: str, *columns: str) -> Iterator[Figures]:
    """Yield the table of one way, and keep it when every target has its row."""
    table = Figures(
        point=point,
        title=f"Bad input, {way}",
        command=f"MAYFLY_FUZZ_INPUTS=100000 pytest tests/faults/test_fuzz.py -k {expression} -s",
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


@pytest.mark.parametrize("target", ALL, ids=name_of)
@pytest.mark.timeout(120 + INPUTS // 10)
def test_changed_documents_and_any_bytes(target: Target, changed: Figures) -> None:
    """Each input ends within its time, in a value or in faults that can be told, without an effect."""
    count, slowest = 0, 0.0
    began = time.monotonic()

    @seed(SEED)
    @settings(
        max_examples=INPUTS,
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
    rate = round(count / (time.monotonic() - began))
    changed.row(target.name, count, rate, f"{slowest:.2f}", 0)
    assert slowest < INPUT_SECONDS


@pytest.mark.parametrize("target", GUIDED, ids=name_of)
@pytest.mark.timeout(90 + GUIDED_SECONDS)
def test_what_reaches_new_lines(target: Target, guided: Figures, tmp_path: Path) -> None:
    """The fuzzer does all its runs; what it finds is printed with its traceback, and kept as a file."""
    began = time.monotonic()
    arguments = (target.name, str(tmp_path), str(INPUTS), str(SEED))
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.guided", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=GUIDED_SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"seed {SEED}: {said[-6000:]}"
    seconds = time.monotonic() - began
    found = re.search(r"number_of_executed_units: (\d+)", said)
    assert found is not None, said[-3000:]
    count = int(found[1])
    guided.row(target.name, count, round(count / seconds), 0)
    assert count >= INPUTS


def test_the_watch_sees_effects(tmp_path: Path) -> None:
    """A reader that wrote a file, started a program or hung would be noticed; one that only reads a file is not."""
    with watched():
        Path(__file__).read_bytes()
    with pytest.raises(EffectError, match="open"), watched():
        (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EffectError, match="Popen"), watched():
        subprocess.run(["true"], check=True)
    with pytest.raises(HangError), watched(seconds=0.2):
        all(number >= 0 for number in itertools.count())
