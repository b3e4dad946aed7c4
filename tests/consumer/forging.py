"""A bucket in the hands of somebody else: entries and packages that say something else than an agent would."""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from agent.contract.layout import EntryKey, JobKey, parse_key
from tests.bucket.bucket import Bucket

Document = dict[str, Any]


def package_of(bucket: Bucket, run: str, job: str = "quotes") -> Document:
    """A job's package."""
    document: Document = json.loads(bucket.objects.get(JobKey(run, job).text))
    return document


def amend_entry(bucket: Bucket, run: str, change: Callable[[Document], None], part: str) -> str:
    """Change each entry of a run that has a part; return the key of the last."""
    last = ""
    for text in bucket.objects.keys("batches/"):
        key = parse_key(text)
        if isinstance(key, EntryKey) and key.run == run:
            document = json.loads(bucket.objects.get(text))
            if document.get(part):
                change(document)
                bucket.objects.put(text, json.dumps(document).encode())
                last = text
    return last


def commit(bucket: Bucket, run: str, text: bytes, job: str = "quotes", **more: Any) -> None:
    """Put a text in the place of a job's package, and have the entry commit it; `more` is what else it says."""
    key = JobKey(run, job).text
    bucket.objects.put(key, text)
    size, digest = len(text), sha256(text).hexdigest()

    def change(entry: Document) -> None:
        for ended in entry["jobs"]:
            if ended["name"] == job:
                ended["package"] = {"key": key, "bytes": size, "sha256": digest}
                ended.update(more)

    amend_entry(bucket, run, change, "jobs")


def rewrite(
    bucket: Bucket, run: str, change: Callable[[Document], object], job: str = "quotes"
) -> None:
    """Change a package, and have the entry commit that, and say the same of its results."""
    document = package_of(bucket, run, job)
    change(document)
    rows = document.get("resources")
    files = [one for one in rows if _is_result(one)] if isinstance(rows, list) else []
    sizes = [one["bytes"] for one in files if isinstance(one.get("bytes"), int)]
    said = {"files": len(files), "bytes": sum(sizes)}
    possible = all(0 <= number < 2**53 for number in said.values())
    commit(bucket, run, json.dumps(document).encode(), job, **(said if possible else {}))


def _is_result(resource: object) -> bool:
    if not isinstance(resource, Mapping):
        return False
    path = resource.get("path")
    return isinstance(path, str) and path.startswith("files/")
