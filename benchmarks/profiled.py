"""A program under Python's profiler. The report has what its main thread did longest.

    profiled.py REPORT mayfly ARGUMENTS...
    profiled.py REPORT handoff FOLDER BUCKET PREFIX, whose imports do not count

The profiler makes Python's own code slower, and not what the kernel and the libraries do: the rows tell where the time
goes, and the sum is more than a run takes without it.
"""

import asyncio
import cProfile
import json
import os
import pstats
import re
import sys
from contextlib import suppress
from pathlib import Path

ROWS = 8
ROOT = Path(__file__).resolve().parents[1]
KNOWN = {
    "<method 'poll' of 'select.epoll' objects>": "waits for the store, or for threads that sync",
    "<method 'update' of '_hashlib.HASH' objects>": "hashes",
    "<built-in method posix.write>": "writes",
    "<built-in method posix.open>": "opens files",
    "<get_range_async>": "asks for files",
    "<built-in method builtins.anext>": "takes pieces from the client",
    "<built-in method marshal.loads>": "imports: reads compiled modules",
    "<built-in method builtins.exec>": "imports: runs modules",
    "<built-in method builtins.__build_class__>": "imports: makes classes",
    "<built-in method _imp.create_dynamic>": "imports: loads libraries",
    "<built-in method _imp.exec_dynamic>": "imports: begins libraries",
}


def main() -> None:
    """Run the program under the profiler, and write the report."""
    report, program, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    profiler = cProfile.Profile()
    if program == "mayfly":
        _mayfly(profiler, arguments)
    else:
        _handoff(profiler, *arguments)
    rows = []
    for (file, _, name), (_, calls, own, *_) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        where = re.sub(r"^.*/(site-packages|lib/python[^/]*)/", "", file.removeprefix(f"{ROOT}/"))
        what = KNOWN.get(name) or (f"{where}: {name}" if where != "~" else name)
        rows.append((own, calls, what))
    rows.sort(reverse=True)
    report.write_text(json.dumps({"whole": sum(row[0] for row in rows), "rows": rows[:ROWS]}))
    # As the program itself leaves: the bucket's client has threads.
    os._exit(0)


def _mayfly(profiler: cProfile.Profile, arguments: list[str]) -> None:
    profiler.enable()
    from agent.cli import mayfly  # noqa: PLC0415 -- the imports are a part of it

    with suppress(SystemExit):
        mayfly(arguments, standalone_mode=False)
    profiler.disable()


def _handoff(profiler: cProfile.Profile, folder: str, bucket: str, prefix: str) -> None:
    from benchmarks.handoff import main as hand_over  # noqa: PLC0415 -- as late as the other

    profiler.enable()
    asyncio.run(hand_over(Path(folder), bucket, prefix))
    profiler.disable()


if __name__ == "__main__":
    main()
