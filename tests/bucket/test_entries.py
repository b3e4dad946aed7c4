"""What tests leave in a bucket is what the contract says, and what home takes for sound."""

import json
from datetime import UTC, datetime
from pathlib import Path

from frictionless import validate

from agent.contract.entries import Invalid, Object
from agent.contract.layout import JobKey, ManifestKey
from consumer.entries import read_manifest, read_package
from tests.bucket.entries import leave_run
from tests.bucket.objects import FolderObjects

STARTED = datetime(2026, 11, 22, 18, 0, 3, tzinfo=UTC)


def test_packages_and_manifest_are_valid_data_packages(tmp_path: Path) -> None:
    """As a tool that knows nothing of Mayfly reads them."""
    objects = FolderObjects(tmp_path)
    writer = leave_run(objects, STARTED, {"quotes": "succeeded", "notes": "failed"})
    for key in (JobKey(writer.run, "quotes"), ManifestKey(writer.run)):
        path = tmp_path / key.text
        report = validate(str(path), type="package")
        assert report.valid, report.flatten(["title", "note"])
        assert json.loads(path.read_bytes())["resources"]


def test_home_takes_them(tmp_path: Path) -> None:
    """Each is what its entry committed."""
    objects = FolderObjects(tmp_path)
    writer = leave_run(objects, STARTED)
    (committed,) = writer.packages
    package = read_package(JobKey(writer.run, "quotes"), committed, objects.get(committed.key))
    assert not isinstance(package, Invalid), package
    assert [one.path for one in package.resources][:1] == ["files/page 1.json"]
    entries = [objects.get(key) for key in objects.keys("batches/")]
    closed = json.loads(entries[-1])["closed"]["manifest"]
    manifest = read_manifest(ManifestKey(writer.run), Object(**closed), objects.get(closed["key"]))
    assert not isinstance(manifest, Invalid), manifest
