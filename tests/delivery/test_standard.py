"""What a run leaves is a Data Package to a tool that knows nothing of Mayfly: in the bucket, and at home."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path

from agent.contract.descriptor import Role, Sealed, render
from tests.bucket.layout import job_key, manifest_key
from tests.consumer.pulling import pull_into
from tests.parts.missing import program
from tests.run.bench import Bench

JOBS = """
[[job]]
name = "table"
command = ["sh", "table.sh"]

[[job]]
name = "silent"
command = ["true"]
"""
TABLE = """
printf 'name,price\\na,1\\n' > "$MAYFLY_OUTPUT_DIR/Preise 1.csv"
printf '{"title": "Prices", "resources": [{"name": "prices", "path": "Preise 1.csv", "schema": {"fields": [%s]}}]}' \\
  '{"name": "name", "type": "string"}, {"name": "price", "type": "integer"}' \\
  > "$MAYFLY_OUTPUT_DIR/datapackage.json"
"""


def validated(descriptor: Path) -> "subprocess.CompletedProcess[str]":
    """Have frictionless read a descriptor, and every file that it names."""
    command = [program("frictionless"), "validate", descriptor.name]
    return subprocess.run(
        command, cwd=descriptor.parent, capture_output=True, text=True, check=False
    )


def valid(descriptor: Path) -> None:
    """Check that it finds nothing wrong."""
    done = validated(descriptor)
    assert done.returncode == 0, done.stdout + done.stderr


MIXED = b'{"event": "a", "jobs": ["x"]}\n' * 30 + b'{"event": "b", "jobs": {"z": 1}}\n'


def test_logs_and_evidence_are_no_tables(tmp_path: Path) -> None:
    """Two events may mean different things by one name; of a table a reader would call that a fault."""
    (tmp_path / "0.jsonl").write_bytes(MIXED)
    for role, code in ((Role.LOG, 0), (Role.EVIDENCE, 0), (Role.RESULT, 1)):
        file = Sealed("0.jsonl", len(MIXED), sha256(MIXED).hexdigest(), role)
        (tmp_path / "datapackage.json").write_bytes(b"".join(render({"name": "run"}, [file])))
        assert validated(tmp_path / "datapackage.json").returncode == code


def test_frictionless_finds_nothing_wrong(tmp_path: Path) -> None:
    """With a job's package in the bucket and at home, with a job's that left no file, and with the run's manifest."""
    bench = Bench.make(tmp_path / "computer")
    bench.release("v1", JOBS, {"table.sh": TABLE})
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    for key in (
        *(job_key(ran.run_id, job) for job in ("table", "silent")),
        manifest_key(ran.run_id),
    ):
        valid(bench.bucket.root / key)
    package = bench.bucket.root / job_key(ran.run_id, "table")
    assert json.loads(package.read_bytes())["title"] == "Prices", "as the job has it"
    home = tmp_path / "home"
    assert pull_into(home, bench.bucket).code == 0
    for job in ("table", "silent"):
        valid(home / job / ran.run_id / "datapackage.json")
