"""`make bench`: measure, print a table, and leave the figures as JSON."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from obstore.store import S3Store

from benchmarks import home
from benchmarks.memory import Peak, measure
from tests.parts.seaweed import S3Server

ROOT = Path(__file__).parent.parent
VENV = ROOT / "benchmarks" / ".venv"
RESULTS = ROOT / "benchmarks" / "results"
RUNS = 5
FILES = (1_000, 10_000)


def machine_environment() -> Path:
    """Make an environment as the machine has it, without extras and development tools; return its `mayfly`."""
    environ = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(VENV)}
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "sync", "--frozen", "--no-dev", "--quiet"]
    subprocess.run(command, cwd=ROOT, env=environ, check=True, timeout=600)
    return VENV / "bin" / "mayfly"


def memory(mayfly: Path) -> dict[str, list[Peak]]:
    """Measure peak memory against both kinds of bucket."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAYFLY_")}
    peaks = {"file://": [measure(mayfly, files, RUNS, "", environ) for files in FILES]}
    with tempfile.TemporaryDirectory() as folder, S3Server(Path(folder)) as server:
        keys = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "MAYFLY_STORE_ENDPOINT": server.url,
        }
        store = f"s3://{server.make_bucket()}/bench"
        peaks["s3://"] = [
            measure(mayfly, files, RUNS, store, {**environ, **keys}) for files in FILES
        ]
    return peaks


def at_home() -> None:
    """Measure the service at home against both kinds of bucket, and report."""
    mayfly = Path(sys.executable).with_name(
        "mayfly"
    )  # with its extra, which the machine does not have
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAYFLY_")}
    with tempfile.TemporaryDirectory() as name, S3Server(Path(name)) as server:
        folder = Path(name) / "folder"
        keys = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "MAYFLY_STORE_ENDPOINT": server.url,
        }
        bucket = server.make_bucket()
        store = S3Store(
            bucket,
            prefix="bench",
            endpoint=server.url,
            region="us-east-1",
            access_key_id=server.access_key,
            secret_access_key=server.secret_key,
            client_options={"allow_http": True},
        )
        found = (
            home.measure(mayfly, folder.as_uri(), home.into_folder(folder), environ),
            home.measure(mayfly, f"s3://{bucket}/bench", home.into_s3(store), {**environ, **keys}),
        )
    for figures in found:
        print("\n".join(home.report(figures)), end="\n\n")  # noqa: T201
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "home.json").write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


def main() -> None:
    """Measure and report; with `home` as the argument, the service at home only."""
    at_home()
    if sys.argv[1:] == ["home"]:
        return
    peaks = memory(machine_environment())
    print("| bucket | files | peak memory of the agent, median of 5 (min to max), MB |")  # noqa: T201
    print("| --- | --- | --- |")  # noqa: T201
    for store, rows in peaks.items():
        for row in rows:
            low, high = min(row.megabytes), max(row.megabytes)
            print(f"| `{store}` | {row.files} | {row.median:.1f} ({low:.1f} to {high:.1f}) |")  # noqa: T201
    RESULTS.mkdir(exist_ok=True)
    data = {store: [asdict(row) for row in rows] for store, rows in peaks.items()}
    (RESULTS / "memory.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
