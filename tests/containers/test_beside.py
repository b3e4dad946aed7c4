"""Results beside the code: a stack mounts its repository's folder, and writes where its program is."""

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.run.bench import Bench

JOB = """
    [[job]]
    name = "legacy"
    compose = "compose.yml"
    service = "batch"
"""
STACK = """
services:
  batch:
    image: {image}
    working_dir: /app
    volumes: ["./app:/app"]
    command: ["sh", "scrape.sh"]
"""
SCRIPT = "echo title >> books.csv; echo new >> known.csv; mkdir -p out && echo 1 > out/a.txt\n"
FILES = {"app/scrape.sh": SCRIPT, "app/known.csv": "old\n", "app/other.csv": "left alone\n"}


def test_what_is_new_or_changed_beside_the_code_is_the_output(
    compose_yard: Bench, bucket: Bucket, busybox: str
) -> None:
    """The mount stays, with the code in it; the code itself is no result, and the release stays what it was."""
    files = {**FILES, "compose.yml": STACK.format(image=busybox)}
    compose_yard.release("v1", JOB + '    output = "/app"\n', files)
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    assert sound(bucket, ran.run_id).files == {
        "legacy/books.csv": b"title\n",
        "legacy/known.csv": b"old\nnew\n",
        "legacy/out/a.txt": b"1\n",
    }
    (tree,) = (compose_yard.state / "releases").glob("*/tree")
    assert (tree / "app" / "known.csv").read_text() == "old\n"


@pytest.mark.parametrize("mount", ["./app:/app", "./:/src"])
def test_a_stack_that_wrote_into_its_mounts_only_is_empty(
    compose_yard: Bench, busybox: str, mount: str
) -> None:
    """It is told where, and which output hands it over."""
    stack = STACK.format(image=busybox).replace("./app:/app", mount)
    place = mount.partition(":")[2]
    stack = stack.replace("/app\n", "/src/app\n") if place == "/src" else stack
    compose_yard.release("v1", JOB, {**FILES, "compose.yml": stack})
    ran = compose_yard.run()
    job = ran.job("legacy")
    assert (job["status"], job["cause"]) == ("empty", "expectation"), ran.stderr
    assert job["message"] == (
        f'it wrote 3 files beside its code, such as app/books.csv; set output = "{place}"'
    )
