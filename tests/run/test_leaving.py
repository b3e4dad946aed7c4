"""What a run leaves in the spool when the power goes off right after it, and who removes it."""

import os

from tests.run.bench import Bench, Shelf
from tests.run.shelves import sound

JOBS = """
    [[job]]
    name = "one"
    command = ["sh", "-c", "echo result > $MAYFLY_OUTPUT_DIR/file"]
"""


def test_a_machine_that_goes_off_leaves_the_deleting_to_the_next_run(
    bench: Bench, shelf: Shelf
) -> None:
    """The committed run is out of the spool at once, its files go in the next run, and that one leaves its own."""
    programs = bench.folder / "programs"
    programs.mkdir()
    for name in ("systemctl", "shutdown"):
        program = programs / name
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o755)
    bench.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    bench.release("v1", JOBS)
    spool = bench.state / "spool"
    for number in (1, 2):
        ran = bench.run(power__after="poweroff")
        assert ran.code == 0, ran.stderr
        sound(shelf, ran.run_id)
        assert bench.spool == []
        assert [path.name for path in spool.glob(".*")] == [f".gone-{ran.run_id}"], number
    assert bench.run().code == 0
    assert list(spool.glob(".*")) == []
