import json
from pathlib import Path

import pytest

from tests.parts.demo_site import SCRAPERS, DemoSite
from tests.scrapers.conftest import StartJob

CONTENT = SCRAPERS / "demo_site" / "content"
COPIES = {"evening sightings 2026.csv": "sightings.csv", "川の記録 十一月.csv": "kawa.csv"}
LINES = {"water-temperature.csv": 1 + 720 * 40, "visitors by lamp.csv": 1 + 5 * 24}
"""The reports of the site: those that are files of it, and those that are made."""


def test_quotes_reads_every_page_and_remembers(
    start_job: StartJob, demo_site: DemoSite, webdriver_url: str, tmp_path: Path
) -> None:
    """All pages are read; what an earlier run has seen is not new, and everything is remembered for the next."""
    known = [f"q{number:03d}" for number in range(1, 41)]
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "seen.json").write_text(json.dumps(known))
    ended = start_job(
        "quotes", MAYFLY_WEBDRIVER_URL=webdriver_url, SCRAPE_BASE_URL=demo_site.url
    ).ended()
    assert ended.code == 0, ended.log
    assert ended.files == {"quotes.jsonl", "summary.md"}
    assert ended.result == {
        "items": 48,
        "message": "8 of 48 are new",
        "metrics": {"new": 8, "pages": 8},
    }
    rows = ended.rows("quotes.jsonl")
    assert len({row["id"] for row in rows}) == len(rows) == 48
    assert {"月見の庵主", "Auntie Parabola"} <= {row["author"] for row in rows}
    assert all(row["text"] and row["tags"] for row in rows)
    assert "48 quotes, 8 of them new" in (ended.output / "summary.md").read_text()
    assert json.loads((ended.state / "seen.json").read_text()) == sorted(row["id"] for row in rows)


@pytest.mark.parametrize("disk", ["shared", "grid"])
def test_reports_keeps_the_files_under_their_own_names(
    start_job: StartJob,
    demo_site: DemoSite,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    disk: str,
) -> None:
    """Downloads arrive whole and bit for bit, by a folder or through a Grid that shares no disk with the job.

    What was in the folder before is not taken for one of them.
    """
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "a stranger.csv").write_text("x")
    endpoint = request.getfixturevalue("webdriver_url" if disk == "shared" else "grid_url")
    environ = {"MAYFLY_WEBDRIVER_URL": endpoint, "SCRAPE_BASE_URL": demo_site.url}
    ended = start_job(
        "reports", **environ, **({} if disk == "shared" else {"MAYFLY_DOWNLOADS_DIR": ""})
    ).ended()
    assert ended.code == 0, ended.log
    assert ended.files == {*COPIES, *LINES}
    for name, source in COPIES.items():
        assert (ended.output / name).read_bytes() == (CONTENT / source).read_bytes()
    for name, count in LINES.items():
        assert len((ended.output / name).read_text().splitlines()) == count
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["a stranger.csv"]


def test_notes_needs_no_browser(start_job: StartJob, demo_site: DemoSite) -> None:
    """The digest has every note of the timeline, given on the command line instead of the environment."""
    ended = start_job("notes", "--base-url", f"{demo_site.url}/").ended()
    assert ended.code == 0, ended.log
    assert ended.files == {"notes.jsonl", "digest.md"}
    rows = ended.rows("notes.jsonl")
    assert ended.result["items"] == len(rows) == 41
    digest = (ended.output / "digest.md").read_text("utf-8")
    assert "## 2026-11-21" in digest
    assert "> 麦茶を作りすぎた。誰か来てください。" in digest
    assert "> (no text)" in digest
