"""Objects of runs through the server: what is committed, as nothing that could do harm."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter, leave_run
from tests.consumer.serving import serving
from tests.consumer.test_serve import days_ago
from tests.parts.waiting import wait_until

PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
SCRIPT = b"<script>alert(1)</script>"
DEEP = bytes(range(256)) * 9000
FILES = {"evil.html": SCRIPT, "deep/er.bin": DEEP, "名前 と 100%+#?.txt": b"name", "shown.png": PNG}
EVIDENCE = {"shot.png": PNG, "lie.png": SCRIPT, "page.html": SCRIPT}


def test_files_of_a_run_are_harmless(bucket: Bucket, tmp_path: Path) -> None:
    """Pictures are pictures by their content, logs and evidence are plain, all else is a download; no scripts."""
    run = leave_run(
        bucket.objects, days_ago(1), {"quotes": "failed"}, files=FILES, evidence=EVIDENCE
    ).run
    base = f"/runs/{run}/jobs/quotes"
    with serving(tmp_path / "home", bucket.environ) as service:
        shot = service.get(f"{base}/evidence/attempt-1/shot.png")
        lie = service.get(f"{base}/evidence/attempt-1/lie.png")
        page = service.get(f"{base}/evidence/attempt-1/page.html")
        evil = service.get(f"{base}/files/evil.html")
        large = service.get(f"{base}/files/deep/er.bin")
        named = service.get(f"{base}/files/%E5%90%8D%E5%89%8D%20%E3%81%A8%20100%25%2B%23%3F.txt")
        log = service.get(f"{base}/logs/attempt-1.log")
        package = service.get(f"{base}/datapackage.json")
        manifest = service.get(f"/runs/{run}/datapackage.json")
        part = service.get(f"/runs/{run}/log/0.jsonl")
        head = service.get(f"{base}/files/evil.html", method="HEAD")
    assert (shot.headers["content-type"], shot.body) == ("image/png", PNG)
    assert lie.headers["content-type"] == "application/octet-stream"
    assert page.headers["content-type"].startswith("text/plain")
    assert evil.headers["content-disposition"].startswith("attachment")
    assert large.body == DEEP
    assert named.body == b"name"
    assert "filename*=UTF-8''%E5%90%8D%E5%89%8D%20" in named.headers["content-disposition"]
    assert log.body == b"said something\n"
    assert part.body == b'{"event":"run"}\n'
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "25")
    for answer in (shot, lie, page, evil, large, named, log, package, manifest, part, head):
        assert answer.status == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "private, max-age=3600"


def test_only_what_is_committed_is_served(folder: Bucket, tmp_path: Path) -> None:
    """No other object of the bucket, no file of the server, no job that was not committed."""
    run = leave_run(folder.objects, days_ago(1)).run
    other = RunWriter(folder.objects, days_ago(2))
    other.append(began=other.began())
    other.job("quotes")
    other.log_part()
    folder.objects.put(f"runs/{run}/jobs/quotes/files/stranger", b"secret")
    paths = [
        f"/runs/{run}/jobs/quotes/files/stranger",
        f"/runs/{run}/../../index",
        f"/runs/{run}/jobs/quotes/files/..%2f..%2fdatapackage.json",
        f"/runs/{run}//etc/passwd",
        f"/runs/{run}/%00",
        f"/runs/{run}/jobs/quotes/files/",
        f"/runs/{run}/jobs/nobody/datapackage.json",
        f"/runs/{run}/log/7.jsonl",
        f"/runs/{other.run}/jobs/quotes/datapackage.json",
        f"/runs/{other.run}/jobs/quotes/files/page 1.json".replace(" ", "%20"),
        f"/runs/{other.run}/log/0.jsonl",
        f"/runs/{other.run}/datapackage.json",
        f"/runs/../runs/{run}/datapackage.json",
        f"/view/{run}/quotes/files/stranger",
        "/runs/x/y",
        "/runs/%ff",
        "/metrics/x",
        "/index",
        "/nowhere",
    ]
    with serving(tmp_path / "home", folder.environ) as service:
        found = {path: service.get(path).status for path in paths}
        posted = service.get("/", method="POST")
    assert found == dict.fromkeys(paths, 404)
    assert posted.status == 405
    assert set(posted.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_a_file_that_is_not_as_declared_ends_short(folder: Bucket, tmp_path: Path) -> None:
    """The last piece is sent when all of it is right; a small file that is wrong is not there at all."""
    run = leave_run(folder.objects, days_ago(1), files={"small": b"[]", "large": DEEP}).run
    base = f"/runs/{run}/jobs/quotes/files"
    folder.objects.put(f"{base[1:]}/large", b"x" * len(DEEP))
    folder.objects.put(f"{base[1:]}/small", b"[]" * 100)
    with serving(tmp_path / "home", folder.environ) as service:
        changed = service.get(f"{base}/large")
        grown = service.get(f"{base}/small")
        assert service.get("/healthz").status == 200
        assert service.events("request.failed") == [], "it is no defect of the service"
    assert int(changed.headers["content-length"]) == len(DEEP) > len(changed.body)
    assert grown.status == 404
    assert "is not what was committed" in grown.text


def test_a_package_that_was_replaced_is_not_believed(folder: Bucket, tmp_path: Path) -> None:
    """Its digest is in the entry, so nothing of what another one names is served."""
    run = leave_run(folder.objects, days_ago(1)).run
    key = f"runs/{run}/jobs/quotes/datapackage.json"
    text = folder.objects.get(key)
    folder.objects.put(key, text.replace(b"page 1.json", b"page 2.json"))
    folder.objects.put(f"runs/{run}/jobs/quotes/files/page 2.json", b'{"price": 1}\n')
    with serving(tmp_path / "home", folder.environ) as service:
        for path in ("page%201.json", "page%202.json"):
            answer = service.get(f"/runs/{run}/jobs/quotes/files/{path}")
            assert (answer.status, "package cannot be used" in answer.text) == (404, True)


def test_twelve_pictures_at_once(bucket: Bucket, tmp_path: Path) -> None:
    """As many as a browser asks for on one page; each waits for its turn, and all come."""
    pictures = {f"{number}.png": PNG + bytes([number]) * 300_000 for number in range(12)}
    run = leave_run(bucket.objects, days_ago(1), {"quotes": "failed"}, evidence=pictures).run
    with serving(tmp_path / "home", bucket.environ) as service:
        base = f"/runs/{run}/jobs/quotes/evidence/attempt-1"
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(service.get, [f"{base}/{name}" for name in pictures]))
    assert [answer.status for answer in answers] == [200] * 12
    assert [answer.body for answer in answers] == list(pictures.values())


@pytest.mark.long
def test_what_a_lifecycle_rule_removed_is_told(folder: Bucket, tmp_path: Path) -> None:
    """The run stays, and is shown as expired."""
    run = leave_run(folder.objects, days_ago(5)).run
    for key in folder.objects.keys(f"runs/{run}/"):
        folder.objects.delete(key)
    with serving(tmp_path / "home", folder.environ) as service:
        answer = service.get(f"/runs/{run}/jobs/quotes/files/page%201.json")
        assert (answer.status, "not in the bucket any more" in answer.text) == (404, True)
        wait_until(
            lambda: 'status="expired"' in service.get("/metrics").text,
            seconds=60,
            what="the run to be shown as expired",
        )
