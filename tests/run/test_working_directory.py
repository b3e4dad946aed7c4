"""Where a job works: in the release's files, which it cannot change, or in a copy that has its results as well."""

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.run.bench import Bench

JOBS = """
    [[job]]
    name = "a"
    command = ["python3", "scrapers/a.py"]

    [[job]]
    name = "b"
    command = ["sh", "b.sh"]
"""
B = 'test ! -e out.csv && cp scrapers/data.txt "$MAYFLY_OUTPUT_DIR"\n'


@pytest.fixture(autouse=True)
def _processes(bench: Bench) -> None:
    """Jobs are processes of this user, one after the other."""
    bench.settings |= {"limits.isolation": "process", "limits.jobs": "1"}


def _release(bench: Bench, program: str) -> None:
    head = "import os\nfrom pathlib import Path\nout = Path(os.environ['MAYFLY_OUTPUT_DIR'])\n"
    # Whoever is no superuser opens the folders first, which nobody can forbid.
    head += "for folder in ('.', 'scrapers'): os.chmod(folder, 0o755)\n"
    bench.release(
        "v1", JOBS, {"scrapers/a.py": head + program, "scrapers/data.txt": "original", "b.sh": B}
    )


STRAYS = {
    "relative": "Path('out.csv').write_text('1'); Path('scrapers/more.csv').write_text('2')",
    "beside the program": "[Path(__file__).resolve().with_name(name).touch() for name in ('c', 'd')]",
    "over the release": """
for name in ('scrapers/data.txt', 'b.sh'):
    os.chmod(name, 0o644)
    open(name, 'r+').write('X')
""",
}


@pytest.mark.parametrize("how", sorted(STRAYS))
def test_a_job_that_writes_into_its_working_directory_only_is_empty(
    bench: Bench, bucket: Bucket, how: str
) -> None:
    """It is told what it wrote and where results belong; the release and the next job see nothing of it."""
    _release(bench, STRAYS[how])
    ran = bench.run()
    manifest = sound(bucket, ran.run_id)
    (tree,) = (bench.state / "releases").glob("*/tree")
    assert (tree / "scrapers" / "data.txt").read_text() == "original"
    assert (tree / "b.sh").read_text() == B
    assert {path.name for path in tree.rglob("*")} == {
        *("jobs.toml", "b.sh", "scrapers", "a.py", "data.txt"),
    }
    assert manifest.results == {"b/data.txt"}
    assert bucket.run(ran.run_id).files["b/data.txt"] == b"original"
    job = manifest.job("a")
    assert (ran.code, job["status"], job["cause"]) == (3, "empty", "expectation"), ran.stderr
    assert job["message"].startswith("it wrote 2 files beside its code, such as ")
    assert job["message"].endswith('; set output = "."')


def test_a_job_with_results_is_told_in_a_note(bench: Bench, bucket: Bucket) -> None:
    """Drivers write logs beside themselves, which is no failure; none of it is handed over, or stays on the disk."""
    _release(bench, "(out / 'x').touch(); Path('driver.log').touch()")
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    manifest = sound(bucket, ran.run_id)
    (note,) = manifest.job("a")["notes"]
    assert note == 'it wrote 1 file beside its code: driver.log; set output = "."'
    assert manifest.results == {"a/x", "b/data.txt"}
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


@pytest.mark.parametrize(
    ("output", "expected", "left"),
    [
        (".", {"books.csv", "known.csv", "out/deep/a.csv", "named.csv"}, ()),
        (
            "out",
            {"deep/a.csv", "named.csv"},
            ('it wrote 3 files beside its code, such as books.csv; set output = "."',),
        ),
    ],
)
def test_results_beside_the_code(
    bench: Bench, bucket: Bucket, output: str, expected: set[str], left: tuple[str, ...]
) -> None:
    """What is new or changed in the folder that the job names is its output, and the code is none of it."""
    jobs = f"""
    [[job]]
    name = "a"
    command = ["python3", "a.py"]
    output = "{output}"
    retries = 1
    """
    bench.release("v1", jobs, {"a.py": BESIDE, "known.csv": "old\n", "other.csv": "x\n"})
    ran = bench.run()
    assert ran.code in {0, 3}, ran.stderr
    manifest = sound(bucket, ran.run_id)
    assert set(manifest.results) == {f"a/{name}" for name in expected}
    job = manifest.job("a")
    assert tuple(job.get("notes", ())) == left
    assert [refused["reason"] for refused in job.get("refused", [])] == (
        ["a link"] if output == "." else []
    )
    if output == ".":
        assert bucket.run(ran.run_id).files["a/known.csv"] == b"old\nnew\n"
    assert list((bench.state / "spool").iterdir()) == []


def test_a_job_past_its_limit_has_what_it_wrote_beside_its_code(
    bench: Bench, bucket: Bucket
) -> None:
    """As with any other output."""
    jobs = """
    [[job]]
    name = "a"
    command = ["sh", "-c", "echo early > early.csv; sleep 60"]
    output = "."
    timeout = "4s"
    """
    bench.release("v1", jobs)
    ran = bench.run()
    assert ran.job("a")["status"] == "timed_out", ran.stderr
    assert bucket.run(ran.run_id).files["a/early.csv"] == b"early\n"
