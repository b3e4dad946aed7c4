"""Where a job works: in the release's files, which it cannot change, or in a copy that has its results as well."""

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.run.bench import Bench, job

HEAD = """
import os
from pathlib import Path
out = Path(os.environ["MAYFLY_OUTPUT_DIR"])
# Whoever is no superuser opens the folders first, which nobody can forbid.
for folder in (".", "scrapers"): os.chmod(folder, 0o755)
"""
STRAYS = {
    "relative": "Path('out.csv').write_text('1'); Path('scrapers/more.csv').write_text('2')",
    "beside": "[Path(__file__).resolve().with_name(name).touch() for name in ('c', 'd')]",
    "over": """
for name in ("scrapers/data.txt", "next.sh"):
    os.chmod(name, 0o644)
    open(name, "r+").write("X")
""",
}
"""Programs that write into their working directory only: relative to it, beside their code, and over the release."""
LOGS = "(out / 'x').touch(); Path('driver.log').touch()"
NEXT = 'test ! -e out.csv && cp scrapers/data.txt "$MAYFLY_OUTPUT_DIR"\n'


@pytest.fixture(autouse=True)
def _processes(bench: Bench) -> None:
    """Jobs are processes of this user, one after the other."""
    bench.settings |= {"limits.isolation": "process", "limits.jobs": "1"}


def test_what_a_job_writes_into_its_working_directory_is_no_result(
    bench: Bench, bucket: Bucket
) -> None:
    """It is told what it wrote and where results belong; the release and the next job see nothing of it.

    Drivers write logs beside themselves: of a job with results that is a note, and no failure.
    """
    programs = {f"scrapers/{name}.py": HEAD + text for name, text in STRAYS.items()}
    files = {"scrapers/logs.py": HEAD + LOGS, "scrapers/data.txt": "original", "next.sh": NEXT}
    jobs = [job(name, ["python3", f"scrapers/{name}.py"]) for name in (*STRAYS, "logs")]
    bench.release("v1", "".join(jobs) + job("next", ["sh", "next.sh"]), programs | files)
    run = sound(bucket, bench.run(code=3).run_id)
    (tree,) = (bench.state / "releases").glob("*/tree")
    assert (tree / "scrapers" / "data.txt").read_text() == "original"
    assert (tree / "next.sh").read_text() == NEXT
    there = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    assert there == {"jobs.toml", *programs, *files}
    assert run.files == {"next/data.txt": b"original", "logs/x": b""}
    for name in STRAYS:
        told = run.job(name)
        assert (told["status"], told["cause"]) == ("empty", "expectation")
        assert told["message"].startswith("it wrote 2 files beside its code, such as ")
        assert told["message"].endswith('; set output = "."')
    assert run.statuses["logs"] == "succeeded"
    note = 'it wrote 1 file beside its code: driver.log; set output = "."'
    assert run.job("logs")["notes"] == [note]
    assert list((bench.state / "spool").iterdir()) == []


BESIDE = """
import os
open("books.csv", "a").write("title\\n")
open("known.csv", "a").write("new\\n")
os.makedirs("out/deep", exist_ok=True)
open("out/deep/a.csv", "w").write("1\\n")
open(os.environ["MAYFLY_OUTPUT_DIR"] + "/named.csv", "w").write("2\\n")
os.mkdir("__pycache__")
open("__pycache__/x.pyc", "w")
open("half.part", "w")
os.symlink("/etc/passwd", "link.txt")
"""
PLACES = {"all": ".", "out": "out"}
OF_ALL = {"books.csv", "known.csv", "out/deep/a.csv", "named.csv"}


def test_results_beside_the_code(bench: Bench, bucket: Bucket) -> None:
    """What is new or changed in the folder that the job names is its output, and the code is none of it.

    Also of a job that was ended at its limit.
    """
    jobs = [job(name, ["python3", "a.py"], output=out, retries=1) for name, out in PLACES.items()]
    late = job("late", "echo early > early.csv; sleep 60", output=".", timeout="4s")
    files = {"a.py": BESIDE, "known.csv": "old\n", "other.csv": "x\n"}
    bench.release("v1", "".join(jobs) + late, files)
    run = sound(bucket, bench.run(code=3).run_id)
    assert run.statuses["late"] == "timed_out"
    assert run.results == {
        *(f"all/{name}" for name in OF_ALL),
        *("out/deep/a.csv", "out/named.csv", "late/early.csv"),
    }
    assert run.files["all/known.csv"] == b"old\nnew\n"
    assert run.files["late/early.csv"] == b"early\n"
    left = 'it wrote 3 files beside its code, such as books.csv; set output = "."'
    assert [run.job(name).get("notes", []) for name in PLACES] == [[], [left]]
    refused = {name: [each["reason"] for each in run.job(name)["refused"]] for name in PLACES}
    assert refused == {"all": ["a link"], "out": []}
    assert list((bench.state / "spool").iterdir()) == []
