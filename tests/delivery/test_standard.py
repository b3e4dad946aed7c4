"""What a run leaves is a Data Package to a tool that knows nothing of Mayfly: in the bucket, and at home."""

import subprocess
from pathlib import Path

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


def valid(descriptor: Path) -> None:
    """Have frictionless read a descriptor, and every file that it names."""
    command = [program("frictionless"), "validate", descriptor.name]
    done = subprocess.run(
        command, cwd=descriptor.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


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
    home = tmp_path / "home"
    assert pull_into(home, bench.bucket).code == 0
    for job in ("table", "silent"):
        valid(home / job / ran.run_id / "datapackage.json")
