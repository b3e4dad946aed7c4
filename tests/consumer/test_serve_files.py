"""Files of runs through the server: what a manifest names, as nothing that could do harm."""

from pathlib import Path
from typing import Any

from consumer.serve.files import AT_ONCE
from tests.bucket.bucket import Bucket
from tests.bucket.layout import LOG
from tests.bucket.leaving import FILES, leave_run
from tests.consumer.serving import serving
from tests.consumer.test_serve import PNG, days_ago


def test_files_of_a_run_are_harmless(bucket: Bucket, tmp_path: Path) -> None:
    """Pictures are pictures by their content, the run's texts are plain, all else is a download; scripts never run."""
    run = days_ago(1)
    files = {
        **FILES,
        "_run/evidence/quotes/shot.png": PNG,
        "_run/evidence/quotes/lie.png": b"<script>alert(1)</script>",
        "_run/evidence/quotes/page.html": b"<script>alert(1)</script>",
        "quotes/evil.html": b"<script>alert(1)</script>",
    }
    leave_run(bucket, run, files=files)
    bucket.rewrite(run, _own_evidence)
    base = f"/runs/{run}/files"
    with serving(tmp_path / "home", bucket.environ) as service:
        shot = service.get(f"{base}/_run/evidence/quotes/shot.png")
        lie = service.get(f"{base}/_run/evidence/quotes/lie.png")
        page = service.get(f"{base}/_run/evidence/quotes/page.html")
        evil = service.get(f"{base}/quotes/evil.html")
        large = service.get(f"{base}/quotes/deep/er/and/deeper.bin")
        named = service.get(f"{base}/quotes/%E5%90%8D%E5%89%8D%20%E3%81%A8%20100%25%2B%23%3F.txt")
        head = service.get(f"{base}/quotes/evil.html", method="HEAD")
    assert (shot.headers["content-type"], shot.body) == ("image/png", PNG)
    assert lie.headers["content-type"] == "application/octet-stream"
    assert page.headers["content-type"].startswith("text/plain")
    assert evil.headers["content-disposition"].startswith("attachment")
    assert large.body == FILES["quotes/deep/er/and/deeper.bin"]
    assert named.body == b"name"
    assert "filename*=UTF-8''%E5%90%8D%E5%89%8D%20" in named.headers["content-disposition"]
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "25")
    for answer in (shot, lie, page, evil, large, named, head):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]


def _own_evidence(manifest: dict[str, Any]) -> None:
    """Let evidence be the run's own, as an agent lists it."""
    for resource in manifest["resources"]:
        if resource["path"].startswith("_run/"):
            resource.pop("mayfly:job", None)


def test_only_what_a_manifest_names_is_served(folder: Bucket, tmp_path: Path) -> None:
    """No other object of the bucket, no file of the server, no run that was not committed."""
    run, uncommitted = days_ago(1), days_ago(2)
    leave_run(folder, run)
    leave_run(folder, uncommitted, commit=False)
    folder.put_file(run, "quotes/stranger", b"secret")
    paths = [
        f"/runs/{run}/files/quotes/stranger",
        f"/runs/{run}/files/../../../index",
        f"/runs/{run}/files/..%2f..%2findex",
        f"/runs/{run}/files//etc/passwd",
        f"/runs/{run}/files/%00",
        f"/runs/{run}/files/",
        f"/runs/{uncommitted}/files/{LOG}",
        f"/runs/../runs/{run}/files/{LOG}",
        "/runs/x/files/y",
        "/metrics/x",
        "/nowhere",
    ]
    with serving(tmp_path / "home", folder.environ) as service:
        found = {path: service.get(path).status for path in paths}
        bad = service.get("/runs/%ff").status
        posted = service.get("/", method="POST")
    assert found == dict.fromkeys(paths, 404)
    assert bad == 400
    assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")


def test_a_history_that_is_away_for_a_moment_leaves_the_files_reachable(
    folder: Bucket, tmp_path: Path
) -> None:
    """Requests that could not be answered meanwhile hold no place among those that may wait for the bucket."""
    run = days_ago(1)
    leave_run(folder, run)
    path = f"/runs/{run}/files/datapackage.json"
    # One look into the bucket, so that the history is not brought back before this test does.
    with serving(tmp_path / "home", folder.environ, "--interval", "1h") as service:
        service.history.rename(tmp_path / "away")
        meanwhile = [service.get(path).status for _ in range(AT_ONCE + 1)]
        (tmp_path / "away").rename(service.history)
        after = service.get(path).status
    assert (meanwhile, after) == ([503] * (AT_ONCE + 1), 200)


def test_a_file_that_is_not_as_declared_ends_short(folder: Bucket, tmp_path: Path) -> None:
    """The last piece is sent when all of it is right; a client notices that it did not come."""
    run, size = days_ago(1), len(FILES["quotes/deep/er/and/deeper.bin"])
    leave_run(folder, run)
    folder.put_file(run, "quotes/deep/er/and/deeper.bin", b"x" * size)
    folder.put_file(run, "quotes/page 1.json", b"[]" * 100)
    with serving(tmp_path / "home", folder.environ) as service:
        changed = service.get(f"/runs/{run}/files/quotes/deep/er/and/deeper.bin")
        grown = service.get(f"/runs/{run}/files/quotes/page%201.json")
        assert service.get("/healthz").status == 200
    assert int(changed.headers["content-length"]) == size > len(changed.body)
    assert grown.body == b""
