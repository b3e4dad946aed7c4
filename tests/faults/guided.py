"""The coverage-guided fuzzer of one reader: `python -m tests.faults.guided NAME FOLDER RUNS SEED`.

It is a program of its own: Atheris instruments modules while they are imported, and libFuzzer ends its process.
Inputs that reached new lines are in FOLDER afterwards, and so is what broke a reader (`crash-*`).
"""

import json
import random
import sys
import tomllib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["agent", "consumer", "tomllib"]):
    from tests.faults.targets import TARGETS

from tests.faults.effects import watched
from tests.faults.mutations import bruised, edited, json_text, random_edits, toml_text

CLOCK_SECONDS = 180
"""libFuzzer ends an input after so long by the clock; its machine may be busy."""


def changed(data: bytes, most: int, number: int) -> bytes:
    """Return an input that libFuzzer chose, changed: as a document where it is one, else as a text.

    Args:
        data: The input.
        most: Bytes that the result may have.
        number: The seed of this change.
    """
    source = random.Random(number)
    kind = source.random()
    if kind < 0.2:
        return bytes(atheris.Mutate(data, most))
    if kind < 0.4:
        return bruised(data, random_edits(source, 3))[:most]
    for load, dump in ((json.loads, json_text), (_toml, toml_text)):
        try:
            document = load(data)
            return dump(edited(document, random_edits(source, 3)))[:most]
        except (ValueError, RecursionError, TypeError):
            continue
    return bruised(data, random_edits(source, 3))[:most]


def _toml(data: bytes) -> object:
    return tomllib.loads(data.decode())


def main() -> None:
    """Fuzz."""
    name, folder, runs, seed = sys.argv[1:]
    target = TARGETS[name]
    corpus = Path(folder) / "corpus"
    corpus.mkdir(parents=True)
    for number, document in enumerate(target.documents):
        (corpus / f"good-{number}").write_bytes(target.dump(document))

    def read(data: bytes) -> None:
        with watched(seconds=0):
            target.read(data)

    options = [
        f"-runs={runs}",
        # It takes what its parent had at the start for its own; a single allocation that is too large it still tells.
        "-rss_limit_mb=0",
        "-malloc_limit_mb=2048",
        f"-seed={seed}",
        f"-artifact_prefix={folder}/",
        "-max_len=16384",
        f"-timeout={CLOCK_SECONDS}",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], read, custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
