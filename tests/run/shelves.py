"""What a consumer can rely on, asked of a bucket in a folder and of one behind S3 alike."""

import hashlib
import json
from collections import Counter
from typing import Any, Protocol

from tests.parts.seaweed import S3Server


class Readable(Protocol):
    """A bucket, read as a consumer would."""

    def index(self) -> list[dict[str, Any]]:
        """Return the index entries, oldest first."""

    def manifest(self, run: str) -> dict[str, Any]:
        """Return a run's manifest."""

    def files(self, run: str) -> dict[str, bytes]:
        """Return everything under a run's prefix but the manifest, by resource path."""


class S3Shelf:
    """A bucket of the S3 server, below a prefix."""

    def __init__(self, server: S3Server, bucket: str, prefix: str) -> None:
        self._client = server.client()
        self._bucket, self._prefix = bucket, prefix

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys under a prefix, relative to the bucket's own."""
        return list(self.stamps(prefix))

    def stamps(self, prefix: str = "") -> dict[str, object]:
        """Return the keys under a prefix, each with what changes whenever it is written again."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}/{prefix}"
        )
        skip = len(self._prefix) + 1
        return {
            entry["Key"][skip:]: (entry["ETag"], entry["Size"], entry["LastModified"])
            for page in pages
            for entry in page.get("Contents", [])
        }

    def get(self, key: str) -> bytes:
        """Return an object."""
        answer = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}")
        content: bytes = answer["Body"].read()
        return content

    def index(self) -> list[dict[str, Any]]:
        """Return the index entries, oldest first."""
        return [json.loads(self.get(key)) for key in sorted(self.keys("index/"))]

    def manifest(self, run: str) -> dict[str, Any]:
        """Return a run's manifest."""
        manifest: dict[str, Any] = json.loads(self.get(f"runs/{run}/datapackage.json"))
        return manifest

    def files(self, run: str) -> dict[str, bytes]:
        """Return everything under a run's prefix but the manifest, by resource path."""
        prefix = f"runs/{run}/"
        keys = [key for key in self.keys(prefix) if not key.endswith("/datapackage.json")]
        return {key.removeprefix(prefix): self.get(key) for key in keys}


def sound(shelf: Readable, run: str) -> dict[str, Any]:
    """Return a run's manifest, which the index commits once and which lists exactly what is there, as it is."""
    assert Counter(entry["run_id"] for entry in shelf.index())[run] == 1
    manifest, files = shelf.manifest(run), shelf.files(run)
    listed = {each["path"]: (each["bytes"], each["hash"]) for each in manifest["resources"]}
    there = {
        path: (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
        for path, content in files.items()
    }
    # A request that was given up may still arrive: an orphan, of which the manifest says that it was not sent.
    unsent = {each["path"] for each in manifest["mayfly:run"]["unsent"]}
    assert listed == {path: file for path, file in there.items() if path not in unsent}
    assert len(listed) == len(manifest["resources"])
    return manifest


def all_sound(shelf: Readable) -> list[str]:
    """Return the ids of the runs that are committed, oldest first, each of which is sound."""
    runs = [str(entry["run_id"]) for entry in shelf.index()]
    for run in runs:
        sound(shelf, run)
    return runs


def results(manifest: dict[str, Any]) -> dict[str, bool]:
    """Return the paths of the jobs' files, and whether each is marked as partial."""
    return {
        each["path"]: each.get("mayfly:partial", False)
        for each in manifest["resources"]
        if not each["path"].startswith("_run/")
    }


def job_in(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a job's result as the manifest has it."""
    return next(job for job in manifest["mayfly:run"]["jobs"] if job["name"] == name)
