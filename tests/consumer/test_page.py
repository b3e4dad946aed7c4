"""The status page: words, lines, and what a real browser makes of a year of runs."""

import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from agent.core.results import JobCause, JobStatus, RunStatus
from consumer.facts.days import DayState
from consumer.page.lines import HEIGHT, MOST_POINTS, WIDTH, sparkline
from consumer.page.words import ENGLISH, JAPANESE, LANGUAGES, Words, words_for
from tests.bucket.bucket import Bucket
from tests.consumer.camera import Camera, Light
from tests.consumer.serving import Serving, serving
from tests.consumer.year import JOBS, leave_year

PHONE, DESKTOP = 390, 1200


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service that has seen a year of runs."""
    folder = tmp_path_factory.mktemp("year")
    bucket = Bucket.in_folder(folder / "bucket")
    leave_year(bucket, datetime.now(UTC))
    with serving(folder, bucket.environ, "--timezone", "Asia/Tokyo") as service:
        yield service


@pytest.fixture(scope="module")
def camera() -> Iterator[Camera]:
    """A real browser without a window."""
    with Camera() as one:
        yield one


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("light", list(Light))
@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_the_page_fits_and_shows_the_failure(
    year: Serving, camera: Camera, width: int, light: Light, language: str
) -> None:
    """On a phone and on a desk, light and dark, in both languages: no sideways scrolling, the screenshot is visible."""
    camera.visit(f"{year.url}/?days=365&lang={language}", width, light)

    assert camera.ask("document.documentElement.scrollWidth") == width
    assert camera.ask("document.documentElement.lang") == language
    assert camera.ask("document.querySelectorAll('section.job').length") == len(JOBS)
    assert camera.ask("document.querySelectorAll('section.job .day').length") == 365 * len(JOBS)
    assert camera.ask("document.querySelector('article.failure img').naturalWidth") == 320
    ground = camera.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 150) == (light is Light.DARK)


def test_nothing_that_a_site_controls_becomes_markup(year: Serving, camera: Camera) -> None:
    """A message full of tags is shown as text, on the front page and on the run's, and no script runs."""
    for path in ("/", "/runs"):
        camera.visit(f"{year.url}{path}", DESKTOP, Light.BRIGHT)
        assert "owned" not in camera.title
    camera.visit(f"{year.url}/", DESKTOP, Light.BRIGHT)
    assert "<script>document.title" in camera.ask("document.querySelector('article pre').innerText")
    assert camera.ask("document.scripts.length") == 0
    camera.visit(
        camera.ask("document.querySelector('article.failure p a').href"), PHONE, Light.DARK
    )
    assert "owned" not in camera.title
    assert camera.ask("document.querySelectorAll('article.failure pre').length") >= 1
    assert camera.ask("document.documentElement.scrollWidth") == PHONE


def test_evidence_that_is_a_page_is_never_run(year: Serving, camera: Camera) -> None:
    """The scraped page is sent as a file or as text, in a sandbox; not as a page of this server."""
    front = requests.get(f"{year.url}/", timeout=10).text
    link = re.search(r'href="(runs/[^"]+/page\.html)"', front)
    assert link is not None
    answer = requests.get(f"{year.url}/{link[1]}", timeout=10)
    assert answer.status_code == 200
    assert "html" not in answer.headers["Content-Type"]
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_links_lead_somewhere(year: Serving) -> None:
    """Every kind of link of the front page, of a run and of the list answers."""
    seen = set()
    for path in ("/", "/runs", "/?lang=ja&days=30"):
        text = requests.get(f"{year.url}{path}", timeout=10).text
        links = [link.replace("&amp;", "&") for link in re.findall(r'href="([^"#]+)"', text)]
        seen |= {requests.compat.urljoin(f"{year.url}{path}", link) for link in links[:60]}
    run = next(link for link in seen if re.search(r"/runs/\d{8}T[^/]+$", link))
    text = requests.get(run, timeout=10).text
    seen |= {
        requests.compat.urljoin(run, link.replace("&amp;", "&"))
        for link in re.findall(r'(?:href|src)="([^"#]+)"', text)
    }
    broken = [link for link in seen if requests.get(link, timeout=10).status_code != 200]
    assert len(seen) > 20
    assert not broken


def _home(page: str) -> str:
    """Return where the page's own name leads."""
    found = re.search(r'class="brand" href="([^"]+)"', page)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    "path", ["/nothing", "/runs/20200101T000000Z-000000", "/runs/%2e%2e", "/static/../x"]
)
def test_what_is_not_there_is_a_404(year: Serving, path: str) -> None:
    """A page that does not exist says so, in the reader's language, with the way home."""
    answer = requests.get(f"{year.url}{path}?lang=ja", timeout=10)
    assert (answer.status_code, JAPANESE.not_found in answer.text) == (404, True)
    assert requests.get(requests.compat.urljoin(answer.url, _home(answer.text)), timeout=10).ok


def test_the_language_follows_the_browser_and_the_choice(year: Serving) -> None:
    """Accept-Language decides until a person does, and links keep the choice."""
    japanese = {"Accept-Language": "ja-JP,ja;q=0.9,en;q=0.5"}
    assert 'lang="ja"' in requests.get(f"{year.url}/", headers=japanese, timeout=10).text
    chosen = requests.get(f"{year.url}/?lang=en", headers=japanese, timeout=10).text
    assert '<html lang="en">' in chosen
    assert "runs?lang=en" in chosen


@pytest.mark.parametrize(
    ("wanted", "accepted", "words"),
    [
        (None, "", ENGLISH),
        (None, "ja", JAPANESE),
        (None, "fr, ja;q=0.3, en;q=0.2", JAPANESE),
        (None, "ja;q=0, en;q=0.1", ENGLISH),
        (None, "ja;q=x", ENGLISH),
        ("ja", "en", JAPANESE),
        ("xx", "ja", JAPANESE),
    ],
)
def test_choice_of_language(wanted: str | None, accepted: str, words: Words) -> None:
    """The chosen language, else the most wanted one that is spoken here, else English."""
    assert words_for(wanted, accepted) is words


@given(st.text(max_size=300), st.none() | st.text(max_size=5))
def test_any_header_gives_a_language(accepted: str, wanted: str | None) -> None:
    """Whatever a stranger sends."""
    assert words_for(wanted, accepted) in (ENGLISH, JAPANESE)


@pytest.mark.parametrize("words", LANGUAGES.values(), ids=LANGUAGES)
def test_every_language_has_every_word(words: Words) -> None:
    """No text is empty, every state has a name, and both languages have the same gaps to fill."""
    assert set(words.day_states) == set(DayState)
    assert set(words.job_states) == set(JobStatus)
    assert set(words.run_states) == set(RunStatus)
    assert set(words.causes) == set(JobCause)
    for field in fields(Words):
        mine, english = getattr(words, field.name), getattr(ENGLISH, field.name)
        assert mine
        if isinstance(mine, str):
            assert mine.count("{}") == english.count("{}"), field.name


@pytest.mark.parametrize(
    ("seconds", "english", "japanese"),
    [
        (0, "0 s", "0 秒"),
        (59.6, "1 min", "1 分"),
        (380, "6 min 20 s", "6 分 20 秒"),
        (3600, "1 h", "1 時間"),
        (90061, "1 d 1 h", "1 日 1 時間"),
    ],
)
def test_durations(seconds: float, english: str, japanese: str) -> None:
    """The two largest units, in both languages."""
    assert ENGLISH.duration_of(seconds) == english
    assert JAPANESE.duration_of(seconds) == japanese


def test_how_long_ago() -> None:
    """In the largest unit; a moment in the future is now."""
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert ENGLISH.ago_of(now - timedelta(hours=7, minutes=50), now) == "7 h ago"
    assert ENGLISH.ago_of(now + timedelta(hours=1), now) == "0 s ago"


@given(st.lists(st.floats(0, 1e12), max_size=4000))
def test_lines_stay_in_their_box(numbers: list[float]) -> None:
    """Whatever the numbers: bounded in points and in place."""
    line = sparkline(numbers)
    points = [tuple(map(float, point.split(","))) for point in line.points.split()]
    assert len(points) == (min(len(numbers), MOST_POINTS) if len(numbers) > 1 else 0)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert line.last == (numbers[-1] if numbers else None)


def test_pictures_of_the_docs_are_there() -> None:
    """`docs/serve.md` shows pictures that exist (`python -m tests.consumer.camera` makes them)."""
    docs = Path(__file__).parents[2] / "docs"
    shown = re.findall(r"\(((?:pictures)/[^)]+)\)", (docs / "serve.md").read_text())
    assert len(shown) >= 4
    assert all((docs / name).stat().st_size > 10_000 for name in shown)
