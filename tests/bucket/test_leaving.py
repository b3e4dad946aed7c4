"""What the tests leave in a bucket is what the agent would leave there."""

import json
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.core.datapackage import Sealed, index_entry, render
from agent.core.ids import run_started
from agent.core.layout import index_key
from agent.core.manifest import ManifestRef, StartedMarker
from agent.core.results import JobCause, JobResult, JobStatus
from tests.bucket.bucket import Bucket
from tests.bucket.layout import LOG, manifest_key
from tests.bucket.leaving import FILES, LOG_TEXT, RUN, leave_run, record


def without_names(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest without what the agent derives from a file's path."""
    derived = ("name", "mediatype")
    rows = [
        {key: value for key, value in row.items() if key not in derived}
        for row in manifest["resources"]
    ]
    return {**manifest, "resources": rows}


def test_a_run_is_as_the_agent_writes_it(tmp_path: Path) -> None:
    """Entry, manifest and marker have the agent's fields and values, and its keys."""
    bucket = Bucket.in_folder(tmp_path)
    jobs = (
        JobResult(name="quotes", status=JobStatus.SUCCEEDED, items=3, state="state/x"),
        JobResult(
            name="notes", status=JobStatus.FAILED, cause=JobCause.BLOCKED, message="no" * 300
        ),
    )
    key = leave_run(bucket, jobs=jobs, stale=True)
    about = record(RUN, jobs, stale=True)
    rows = [
        Sealed(path, len(content), sha256(content).hexdigest(), path.split("/")[0])
        for path, content in FILES.items()
    ]
    rows.append(Sealed(LOG, len(LOG_TEXT), sha256(LOG_TEXT).hexdigest()))
    manifest = json.loads(b"".join(render(about, rows)))
    assert without_names(bucket.run(RUN).manifest) == without_names(manifest)
    text = bucket.manifest_text(RUN)
    ref = ManifestRef(key=manifest_key(RUN), bytes=len(text), sha256=sha256(text).hexdigest())
    assert bucket.entry(RUN) == index_entry(about, rows, ref).model_dump(mode="json")
    assert key == index_key(RUN, about.finished)
    began = run_started(RUN)
    marker = StartedMarker.model_validate(bucket.begun()[RUN])
    assert (marker.started, marker.deadline) == (began, began + timedelta(hours=2))
