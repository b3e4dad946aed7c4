"""What a run leaves in the spool when the power goes off right after it, and who removes it."""

import os
import re
import subprocess

from tests.bucket.bucket import Bucket
from tests.bucket.layout import ENTRIES
from tests.bucket.sound import sound
from tests.parts.command import script
from tests.parts.missing import program
from tests.run.bench import RUN_SECONDS, Bench, job

JOBS = job("one", "echo result > $MAYFLY_OUTPUT_DIR/file")


def test_a_machine_that_goes_off_leaves_the_deleting_to_the_next_run(
    bench: Bench, bucket: Bucket
) -> None:
    """The committed run is out of the spool at once, its files go in the next run, and that one leaves its own."""
    programs = bench.folder / "programs"
    programs.mkdir()
    for name in ("systemctl", "shutdown"):
        script(programs / name, "#!/bin/sh\nexit 0\n")
    bench.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    bench.release("v1", JOBS)
    spool = bench.state / "spool"
    for number in (1, 2):
        ran = bench.run(code=0, power__after="poweroff")
        sound(bucket, ran.run_id)
        assert bench.spool == []
        assert [path.name for path in spool.glob(".*")] == [f".gone-{ran.run_id}"], number
    bench.run(code=0)
    assert list(spool.glob(".*")) == []


def test_a_bucket_in_a_folder_is_durable_before_the_spool_goes(bench: Bench) -> None:
    """Files reach the disk before the entry that commits them, and the end before the run leaves the spool."""
    bench.release("v1", JOBS)
    trace = bench.folder / "trace"
    calls = "trace=syncfs,rename,renameat,renameat2,link,linkat"
    strace = [program("strace"), "-f", "-qq", "-e", calls, "-o", str(trace), *bench.command()]
    environ = bench.environment()
    subprocess.run(
        strace, env=environ, cwd=bench.folder, capture_output=True, timeout=RUN_SECONDS, check=True
    )
    steps = {
        "file": r'bucket/runs/[^"]*/one/files/file"',
        "sync": r"syncfs\(",
        "package": r'bucket/runs/[^"]*/one/datapackage\.json"',
        "entry": rf'bucket/{ENTRIES}[^"]*"',
        "gone": r'\.gone-[^"]*"',
    }
    done = [name for line in trace.open() for name in steps if re.search(steps[name], line)]
    assert re.fullmatch(
        r"(sync |entry )*file (file |sync |entry )*package (package |sync )*sync entry (entry |sync )*sync gone ?",
        " ".join([*done, ""]),
    ), done
