"""What a run does when nothing is wrong outside of it."""

import hashlib

from tests.run.bench import Bench, Shelf

TWO = """
    [[job]]
    name = "first"
    command = ["sh", "first.sh"]

    [[job]]
    name = "second"
    command = ["sh", "-c", "echo two > $MAYFLY_OUTPUT_DIR/two.txt"]
    needs = ["first"]
"""
FIRST = """
    mkdir -p "$MAYFLY_OUTPUT_DIR/deep/er"
    printf one > "$MAYFLY_OUTPUT_DIR/deep/er/ö 日本 (1) #x%41+?&.txt"
    : > "$MAYFLY_OUTPUT_DIR/empty"
    printf x > "$MAYFLY_OUTPUT_DIR/.hidden"
    printf x > "$MAYFLY_OUTPUT_DIR/half.part"
"""


def test_a_run_delivers_its_files_and_its_manifest(bench: Bench, shelf: Shelf) -> None:
    """Files with any decent name arrive with their bytes, and the manifest tells their hashes."""
    bench.release("v1.0.0", TWO, {"first.sh": FIRST})
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    assert ran.outcome["status"] == "succeeded"
    files = shelf.files(ran.run_id)
    assert set(files) == {
        "first/deep/er/ö 日本 (1) #x%41+?&.txt",
        "first/empty",
        "second/two.txt",
        "_run/log.jsonl",
    }
    manifest = shelf.manifest(ran.run_id)
    for resource in manifest["resources"]:
        content = files[resource["path"]]
        assert resource["bytes"] == len(content)
        assert resource["hash"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert shelf.index()[0]["run_id"] == ran.run_id
    assert bench.spool == []
