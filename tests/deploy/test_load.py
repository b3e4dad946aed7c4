"""The example that puts what was pulled into a database, as it stands, and the manifests that run it."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.consumer.pulling import NIGHTS, leave, pull_into
from tests.deploy.operator_schema import SCHEMAS
from tests.deploy.tools import KUBERNETES, build, validated
from tests.parts.command import completed

COMPONENT = KUBERNETES / "components" / "load"
FILES = {
    "prices.csv": b'shop,price\n"a\nb",1\nc,2\n',
    "more/items.jsonl": '{"name": "one\u2028line"}\n\n{"name": "ページ"}\n'.encode(),
    "page.json": b'{"price": 3}',
    "all.json": b"[1, 2]",
    "shot.png": b"\x89PNG\xff",
    "empty.csv": b"",
}


@pytest.fixture
def dest(tmp_path: Path) -> tuple[Path, Bucket]:
    """A folder into which two nights were pulled, and their bucket."""
    bucket = Bucket.in_folder(tmp_path / "bucket")
    for night in NIGHTS[:2]:
        leave(bucket, night, {"quotes": FILES})
    assert pull_into(tmp_path / "home", bucket).code == 0
    return tmp_path / "home", bucket


def load(dest: Path, *url: str) -> "subprocess.CompletedProcess[str]":
    """Run it, beside the folder."""
    command = [sys.executable, str(COMPONENT / "load.py"), str(dest), *url]
    return completed(command, at=dest.parent)


def scraped(database: Path) -> list[tuple[str, str, int, object]]:
    """What is in the database."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT run, path, number, row FROM scraped ORDER BY 1, 2, 3")
        return [(run, path, number, json.loads(str(row))) for run, path, number, row in rows]


def test_rows_of_what_comes_are_loaded_once(dest: tuple[Path, Bucket]) -> None:
    """Each run's, whatever was loaded before; a file that is no table is left alone."""
    home, bucket = dest
    for _ in range(2):
        done = load(home)
        assert (done.returncode, done.stderr) == (0, "")
    database = home.parent / "scraped.sqlite"
    rows = scraped(database)
    runs = sorted({run for run, *_ in rows})
    assert len(runs) == 2
    assert [(path, number, row) for run, path, number, row in rows if run == runs[0]] == [
        ("files/all.json", 0, 1),
        ("files/all.json", 1, 2),
        ("files/more/items.jsonl", 0, {"name": "one\u2028line"}),
        ("files/more/items.jsonl", 1, {"name": "ページ"}),
        ("files/page.json", 0, {"price": 3}),
        ("files/prices.csv", 0, {"shop": "a\nb", "price": "1"}),
        ("files/prices.csv", 1, {"shop": "c", "price": "2"}),
    ]
    late = leave(bucket, NIGHTS[0] - timedelta(days=1), {"quotes": FILES})
    pull_into(home, bucket)
    assert late in load(home).stdout
    assert len(scraped(database)) == len(rows) * 3 // 2


def test_a_package_that_cannot_be_loaded_leaves_nothing_of_it(dest: tuple[Path, Bucket]) -> None:
    """It is told by name and exit code, what comes before and after it is loaded, and the next try begins it anew."""
    home, bucket = dest
    broken = leave(bucket, NIGHTS[2], {"quotes": {**FILES, "z.json": b"{"}})
    leave(bucket, NIGHTS[2] + timedelta(days=1), {"quotes": FILES, "after": FILES})
    pull_into(home, bucket)
    url = f"sqlite:///{home.parent / 'other.sqlite'}"
    for _ in range(2):
        done = load(home, url)
        assert (done.returncode, done.stderr.count("\n"), broken in done.stderr) == (1, 1, True)
    runs = {run for run, *_ in scraped(home.parent / "other.sqlite")}
    assert (len(runs), broken in runs) == (3, False)


def test_kubernetes_accepts_the_manifests(tmp_path: Path) -> None:
    """They build beside all others; the pod has no right, no network, and the program that the tests above ran."""
    copy = tmp_path / "home"
    shutil.copytree(KUBERNETES, copy)
    example = copy / "example" / "kustomization.yaml"
    example.write_text(
        example.read_text("utf-8").replace("# - ../components/load", "- ../components/load"),
        "utf-8",
    )
    built = build(copy / "example")
    assert validated([one for one in built if one["kind"] not in SCHEMAS], tmp_path).returncode == 0
    manifests = {(one["kind"], one["metadata"]["name"]): one for one in built}
    (config,) = (
        one for (kind, name), one in manifests.items() if kind == "ConfigMap" and "load" in name
    )
    assert config["data"] == {"load.py": (COMPONENT / "load.py").read_text("utf-8")}
    template = manifests["CronJob", "mayfly-load"]["spec"]["jobTemplate"]["spec"]["template"]
    policy = manifests["NetworkPolicy", "mayfly-load"]["spec"]
    assert policy["podSelector"]["matchLabels"] == template["metadata"]["labels"]
    assert "egress" not in policy
    pod = template["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["volumes"][1]["configMap"]["name"] == config["metadata"]["name"]
    (container,) = pod["containers"]
    assert container["command"][1:3] == ["/load/load.py", "/data/scraped"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
