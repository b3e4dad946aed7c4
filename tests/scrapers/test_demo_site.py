import tomllib
from pathlib import Path

import pytest
import requests

from tests.parts.demo_site import SCRAPERS, DemoSite, serving_demo

SECONDS = 10
TIMELINE = "api/notes/local-timeline"


def get(site: DemoSite, path: str) -> requests.Response:
    """GET a path of the site."""
    return requests.get(f"{site.url}/{path}", timeout=SECONDS)


def timeline(site: DemoSite, asked: object, fault: str = "") -> requests.Response:
    """Ask for notes."""
    return requests.post(f"{site.url}/{fault}{TIMELINE}", json=asked, timeout=SECONDS)


@pytest.mark.parametrize("path", ["", "quotes", "reports", "timeline"])
def test_pages_and_what_they_use_are_there(demo_site: DemoSite, path: str) -> None:
    """Each page answers, and its links are relative so that a base path in front of the site keeps working."""
    page = get(demo_site, path)
    assert page.status_code == 200
    assert 'href="/' not in page.text
    assert 'src="/' not in page.text
    for name in ("mayfly.svg", "site.css"):
        assert f"static/{name}" in page.text
        assert get(demo_site, f"static/{name}").ok


def test_quotes_come_in_pages(demo_site: DemoSite) -> None:
    """Eight pages hold every quote once; a page that does not exist is a 404."""
    pages = [get(demo_site, f"api/quotes?page={number}").json() for number in range(1, 9)]
    assert {page["pages"] for page in pages} == {8}
    ids = [quote["id"] for page in pages for quote in page["quotes"]]
    assert len(ids) == len(set(ids)) == pages[0]["total"] == 48
    for wrong in ("0", "9", "-1", "x", "9" * 5000, "²"):
        assert get(demo_site, f"api/quotes?page={wrong}").status_code == 404


def test_timeline_pages_with_until_id(demo_site: DemoSite) -> None:
    """Asking with the last id of the page before yields every note once, newest first."""
    notes: list[dict[str, str]] = []
    until: dict[str, str] = {}
    while page := timeline(demo_site, {"limit": 7, **until}).json():
        assert len(page) <= 7
        notes += page
        until = {"untilId": page[-1]["id"]}
    for key in ("id", "createdAt"):
        values = [note[key] for note in notes]
        assert values == sorted(set(values), reverse=True)
    assert len(timeline(demo_site, {}).json()) == 10


@pytest.mark.parametrize(
    "asked", [{"limit": 0}, {"limit": 101}, {"limit": True}, {"untilId": 5}, ["limit"]]
)
def test_timeline_refuses_like_misskey(demo_site: DemoSite, asked: object) -> None:
    """A wrong parameter is answered with Misskey's form of an error."""
    answer = timeline(demo_site, asked)
    assert answer.status_code == 400
    assert answer.json()["error"].keys() >= {"message", "code", "id"}
    assert answer.json()["error"]["code"] == "INVALID_PARAM"


def test_timeline_is_for_post_only_and_has_one_endpoint(demo_site: DemoSite) -> None:
    """Other methods and endpoints are errors in the same form, and so is its fault."""
    other = requests.post(f"{demo_site.url}/api/notes/global-timeline", json={}, timeout=SECONDS)
    refused = (get(demo_site, TIMELINE), other, timeline(demo_site, {}, "blocked/"))
    assert [answer.json()["error"]["code"] for answer in refused] == [
        *("METHOD_NOT_ALLOWED", "UNKNOWN_API_ENDPOINT", "RATE_LIMIT_EXCEEDED")
    ]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("nothing", 404), ("static/../server.py", 404), ("static/%2e%2e/server.py", 404)),
        *(("blocked/quotes", 403), ("blocked/static/site.css", 200), ("captcha/quotes", 200)),
        *(("down/quotes", 503), ("broken/quotes", 200), ("slow/quotes", 200)),
    ],
)
def test_faults_and_missing_pages(demo_site: DemoSite, path: str, status: int) -> None:
    """A first segment chooses the fault, and nothing outside the site's own files is served."""
    assert get(demo_site, path).status_code == status


def test_oversized_bodies_are_refused(demo_site: DemoSite) -> None:
    """The server reads no more than a modest body."""
    oversized = b"x" * 70_000
    answer = requests.post(f"{demo_site.url}/{TIMELINE}", data=oversized, timeout=SECONDS)
    assert answer.status_code == 413


def test_server_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    """SIGTERM ends it while a client holds a connection open, without a traceback."""
    with serving_demo(tmp_path) as site, requests.Session() as client:
        assert client.get(f"{site.url}/", timeout=SECONDS).ok
        site.program.stop(seconds=5)
    assert "Traceback" not in site.program.log.read_text()


def test_release_names_one_address_in_every_job() -> None:
    """Whoever makes a release of the demo replaces one literal."""
    text = (SCRAPERS / "jobs.toml").read_text()
    jobs = tomllib.loads(text)["job"]
    assert [job["name"] for job in jobs] == ["quotes", "reports", "notes"]
    assert text.count('env = { SCRAPE_BASE_URL = "http://127.0.0.1:8787" }') == len(jobs)
