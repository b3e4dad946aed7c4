"""The pages: what a real browser makes of them, what a site may write into them, their words and their bounds."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.console import printable
from agent.contract.descriptor import Resource
from agent.contract.entries import Invalid
from agent.contract.ids import Batch
from agent.contract.results import JobCause, JobStatus, RunStatus
from consumer.groups import State
from consumer.judge import Rules, judge
from consumer.page import sentences
from consumer.page.chart import HEIGHT, LEFT, WIDTH, Point, chart
from consumer.page.document import status_document
from consumer.page.file import file_page, may_be_looked_at
from consumer.page.front import (
    evidence_wanted,
    job_page,
    missing_page,
    runs_compared,
    runs_page,
)
from consumer.page.given import Health, Text
from consumer.page.grid import COLUMNS, ROWS, grid
from consumer.page.logtext import LEVELS, end_of, filtered, log_lines
from consumer.page.render import shown_text, static_file
from consumer.page.run import run_job_page
from consumer.page.words import NAMES, language, language_for, language_of
from tests.consumer.camera import Camera, Light, Picture, lay_out
from tests.consumer.nights import (
    DONE,
    FAILED,
    TOKYO,
    attempt,
    history,
    nightly,
    started_by,
    tokyo,
)
from tests.consumer.scenes import (
    HOSTILE,
    LOG,
    NOW,
    SCENES,
    SLOT,
    TROUBLES,
    Scene,
    changes,
    failed,
    good,
    night,
    package,
    scene,
    visit,
)

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "consumer" / "page"
PHONE, DESKTOP = 390, 1200
ROUTES = re.compile(
    r"/|/runs|/runs/[^/]+|/runs/[^/]+/jobs/[^/]+|/runs/.+/(files|logs|evidence)/.+"
    r"|/runs/[^/]+/datapackage\.json|/jobs/[^/]+/[^/]+|/view/[^/]+/[^/]+/.+|/static/[a-z.]+"
)


@pytest.fixture(scope="module")
def camera() -> Iterator[Camera]:
    """A real browser without a window."""
    with Camera() as one:
        yield one


def resource(path: str, kind: str) -> Resource:
    """Return a file of a package."""
    return Resource(
        name="x",
        path=path,
        bytes=10,
        hash=f"sha256:{'0' * 64}",
        mediatype=kind,
        **{"mayfly:role": "result"},
    )


def all_pages(one: Scene, tag: str = "en", log: Text = LOG) -> dict[str, str]:
    """Return each kind of page of a morning, by its path."""
    job = next(iter(one.packages), (one.run, "prices"))[1]
    files = package(one.run, job)
    hostile = resource("files/a b&c%20.csv", "text/csv").model_copy(update={"original": HOSTILE})
    named = files.model_copy(update={"resources": (*files.resources, hostile)})
    of_job, look = f"/runs/{one.run}/jobs/{job}", files.resources[0]
    view = f"/view/{one.run}/{job}/{look.path}"
    text = Text(f"name,price\n{HOSTILE},1\n".encode())
    found = {
        "/": one.front(tag),
        "/runs": runs_page(visit("/runs", tag), one.judged, one.costs),
        "/jobs/nightly/prices": one.job(changes(one.run, HOSTILE), tag),
        f"/runs/{one.run}": one.last(log, tag),
        of_job: run_job_page(visit(of_job, tag), one.judged, one.run, job, package=named, log=log),
        view: file_page(visit(view, tag), one.run, job, look, text),
        "/nothing": missing_page(visit("/nothing", tag)),
    }
    return {path: html for path, html in found.items() if html is not None}


def mean() -> Scene:
    """Return a morning in which everything that others write tries to be markup."""
    one = failed(40, HOSTILE)
    health = Health(HOSTILE, NOW, HOSTILE, {f"batches/{HOSTILE}": HOSTILE}, one.health.pull)
    return replace(one, health=health)


# In a browser.


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("light", list(Light))
@pytest.mark.parametrize("tag", sorted(NAMES))
def test_the_first_page_fits(
    camera: Camera, tmp_path: Path, width: int, light: Light, tag: str
) -> None:
    """On a phone and at a desk, light and dark, in both languages: nothing scrolls sideways, the failure is seen."""
    one = failed()
    picture = Picture("x", "/", one.front(tag), width, light)
    camera.visit(lay_out(tmp_path, picture), width, light)

    assert camera.ask("document.documentElement.scrollWidth") == width
    assert camera.ask("document.documentElement.lang") == tag
    assert camera.ask("document.querySelector('article.severe img').naturalWidth") == 320
    rows = camera.ask("document.querySelectorAll('.row:not(.head)').length")
    assert rows == len(one.judged.jobs) + len(one.judged.schedules)
    heights = camera.ask(
        "[...document.querySelectorAll('.row:not(.head)')].map(r => r.offsetHeight)"
    )
    assert max(heights) <= 28
    last = "document.querySelector('.row:last-of-type .cells').lastElementChild"
    assert camera.ask(f"{last}.firstElementChild.className") == "succeeded"
    shown = camera.ask(
        "[...document.querySelector('.row.all .cells').children].filter(c => c.offsetWidth).length"
    )
    assert shown == (30 if width == PHONE else COLUMNS)
    ground = camera.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 150) == (light is Light.DARK)


def test_nothing_that_a_site_controls_becomes_markup(camera: Camera, tmp_path: Path) -> None:
    """Messages, names, logs, tables and keys full of tags are text; no script runs, and a phone scrolls down only."""
    log = Text(b'{"event":"' + HOSTILE.replace('"', '\\"').encode() + b'"}\n' + HOSTILE.encode())
    for path, html in all_pages(mean(), log=log).items():
        picture = Picture("x", path, html, PHONE, Light.DARK)
        camera.visit(lay_out(tmp_path, picture), PHONE, Light.DARK)
        assert camera.ask("document.documentElement.scrollWidth") == PHONE, path
        assert "owned" not in camera.title
        assert camera.ask("document.scripts.length") == 0
        if (path != "/nothing" and not path.startswith("/runs")) or path.count("/") > 1:
            assert "<script>document.title" in camera.ask("document.body.innerText"), path


class Tags(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in {"href", "src"}}


@cache
def usual() -> tuple[set[str], set[str]]:
    """Return the elements and attributes that pages have."""
    pages = [Tags(html) for html in all_pages(mean()).values()]
    return set[str]().union(*(one.names for one in pages)), set[str]().union(
        *(one.attributes for one in pages)
    )


def test_pages_have_no_scripts_and_no_styles_of_their_own() -> None:
    """The content security policy would not let them."""
    tags, attributes = usual()
    assert tags.isdisjoint({"script", "style", "iframe", "object", "embed", "form", "base"})
    assert not {name for name in attributes if name == "style" or name.startswith("on")}


@given(st.text(max_size=200), st.text(max_size=60), st.binary(max_size=200))
def test_no_text_adds_an_element(message: str, name: str, log: bytes) -> None:
    """Whatever a stranger writes, pages have the elements and attributes that they always have."""
    one = failed(1, message.replace("\0", "")[:2000] or "x")
    health = Health(name, NOW, name, {name: message}, one.health.pull)
    for path, html in all_pages(replace(one, health=health), log=Text(log)).items():
        tags, attributes = usual()
        assert Tags(html).names <= tags, path
        assert Tags(html).attributes <= attributes, path


@pytest.mark.parametrize("tag", sorted(NAMES))
@pytest.mark.parametrize("name", sorted(SCENES))
def test_links_lead_to_pages_that_there_are(name: str, tag: str) -> None:
    """Every link of every page is a path that is served, and keeps the language that was chosen."""
    one = SCENES[name]()
    for path, html in all_pages(one, tag).items():
        for link in Tags(html).links:
            url = urlsplit(urljoin(f"http://home{path}", link))
            assert url.netloc == "home"
            assert url.path == path or ROUTES.fullmatch(url.path), (path, link)
    chosen = one.front(tag, lang=tag)
    links = {link for link in Tags(chosen).links if link.startswith(("runs", "jobs"))}
    pages = {link for link in links if "/evidence/" not in link}  # a file has no language
    assert all(f"lang={tag}" in link for link in pages)


# Contrast.


def css() -> str:
    """Return the one style sheet."""
    found = static_file("page.css")
    assert found is not None
    return found[1].decode()


def colours() -> Iterator[dict[str, tuple[float, float, float]]]:
    """Yield the colours of the bright page, and of the dark."""
    for block in re.findall(r":root \{(.*?)\}", css(), re.DOTALL):
        pairs = re.findall(r"--([a-z-]+): #([0-9a-f]{6})", block)
        yield {
            name: (int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)) for name, text in pairs
        }


def luminance(colour: tuple[float, float, float]) -> float:
    """Return the relative luminance (WCAG 2.2)."""
    linear = [
        part / 255 / 12.92 if part / 255 <= 0.04045 else ((part / 255 + 0.055) / 1.055) ** 2.4
        for part in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_everything_can_be_read() -> None:
    """Each colour of text has a contrast of 4.5 on each ground, each cell of the grid 3, in both lights."""
    texts = ("ink", "soft", "link", "good", "part", "bad", "gone", "now")
    schemes = list(colours())
    assert len(schemes) == 2
    for scheme in schemes:
        for ground in ("ground", "sheet"):
            for text in texts:
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        for cell in ("good-fill", "part-fill", "bad-fill", "gone-fill", "now-fill"):
            assert contrast(scheme[cell], scheme["sheet"]) >= 3, cell
    # Texts have one of these colours, and no other is written anywhere.
    rules = re.sub(r":root \{.*?\}", "", css(), flags=re.DOTALL)
    assert not re.search(r"#[0-9a-f]{3,6}\b|rgba?\(|opacity: \.[0-6]", rules)
    assert set(re.findall(r"(?:^|[{; ])color: var\(--([a-z-]+)\)", rules)) <= set(texts)


# Words.


@pytest.mark.parametrize(
    ("wanted", "accepted", "tag"),
    [
        (None, "", "en"),
        (None, "ja", "ja"),
        (None, "ja-JP,ja;q=0.9,en;q=0.5", "ja"),
        (None, "fr, ja;q=0.3, en;q=0.2", "ja"),
        (None, "ja;q=0, en;q=0.1", "en"),
        (None, "ja;q=x", "en"),
        ("ja", "en", "ja"),
        ("xx", "ja", "ja"),
    ],
)
def test_choice_of_language(wanted: str | None, accepted: str, tag: str) -> None:
    """The chosen language, else the most wanted one that is spoken here, else English."""
    assert language_for(wanted, accepted).tag == tag


@given(st.text(max_size=300), st.none() | st.text(max_size=5))
def test_any_header_gives_a_language(accepted: str, wanted: str | None) -> None:
    """Whatever a stranger sends."""
    assert language_for(wanted, accepted).tag in NAMES


def texts() -> tuple[set[str], set[tuple[str, str]]]:
    """Return all texts of the code and the templates: those without a number, and those with one."""
    tables = (sentences.STATUSES, sentences.CAUSES, sentences.TITLES, sentences.PARTS)
    plain = {text for table in tables for text in table.values()}
    plain |= {*sentences.NEAR.values(), *sentences.WEEKDAYS}
    counted = set()
    for path in PAGES.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            said = [
                one.value
                for one in call.args
                if isinstance(one, ast.Constant) and isinstance(one.value, str)
            ]
            if isinstance(call.func, ast.Name) and call.func.id == "_" and said:
                plain.add(said[0])
            if isinstance(call.func, ast.Attribute) and call.func.attr == "count" and len(said) > 1:
                counted.add((said[0], said[1]))
    for path in PAGES.rglob("*.html"):
        plain |= set(re.findall(r'_\("([^"]+)"', path.read_text("utf-8")))
        counted |= set(re.findall(r'_\.count\("([^"]+)", "([^"]+)"', path.read_text("utf-8")))
    return {text for text in plain if re.sub(r"\{\w+\}", "", text)}, counted


def test_line_breaks_of_all_kinds_are_line_breaks() -> None:
    """Python's csv module ends a line with two characters, and a progress bar goes back to the line's start."""
    table = b"\xef\xbb\xbfid,v\r\n1,\x1b2\r\n"
    assert shown_text(table) == "id,v\n1,\N{REPLACEMENT CHARACTER}2\n"
    assert shown_text(b"10 %\r100 %\n") == "10 %\n100 %\n"


def test_every_text_is_in_japanese_too() -> None:
    """None is missing, none is left over, and both have the same gaps."""
    catalogue = language("ja").forms
    plain, counted = texts()
    assert len(plain) > 100
    gaps = re.compile(r"\{(\w+)\}")
    for text in plain:
        assert text in catalogue, text
        assert set(gaps.findall(catalogue[text][0])) == set(gaps.findall(text)), text
    for one, many in counted:
        assert one in catalogue, many
        assert set(gaps.findall(catalogue[one][0])) <= set(gaps.findall(many)), many
    assert catalogue.keys() == plain | {one for one, _ in counted}


def test_plurals_and_ages() -> None:
    """English has two forms, Japanese one; both write thousands; one's ages do not stay for the other's next text."""
    english, japanese = language("en"), language("ja")
    files = ("{n} file", "{n} files")
    counted = [english.count(*files, n) for n in (0, 1, 2, 1200)]
    assert counted == ["0 files", "1 file", "2 files", "1,200 files"]
    assert [japanese.count(*files, n) for n in (1, 2)] == ["1ファイル", "2ファイル"]
    ages = [words.ago(SLOT, NOW) for words in (english, japanese, english)]
    assert ages == ["4 hours ago", "4時間前", "4 hours ago"]


def test_a_catalogue_may_have_comments_and_long_texts() -> None:
    """As translators' tools write them."""
    head = '# Who\nmsgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n'
    plural = '"Plural-Forms: nplurals=3; plural=n%10==1 ? 0 : n<5 ? 1 : 2;\\n"\n'
    text = '\n#: x.py\nmsgid "a"\nmsgstr ""\n"b "\n"c"\n'
    counted = '\nmsgid "one"\nmsgid_plural "{n}"\nmsgstr[0] "x"\nmsgstr[1] "y"\nmsgstr[2] "z"\n'
    words = language_of("pl", head + plural + text + counted)
    assert [words("a"), words("d")] == ["b c", "d"]
    assert [words.count("one", "{n}", n) for n in (21, 2, 5)] == ["x", "y", "z"]


@pytest.mark.parametrize("tag", sorted(NAMES))
def test_every_status_has_a_name(tag: str) -> None:
    """Of jobs, runs and days, and every cause; what a newer Mayfly says is shown as what it counts as."""
    words = language(tag)
    for status in (*JobStatus, *RunStatus, *State):
        assert sentences.status_text(words, status)
    assert set(sentences.CAUSES) == set(JobCause)
    assert sentences.status_text(words, JobStatus("sleeping")) == words("unknown")


# What is on them.


def test_the_first_page_says_what_fails_and_where_home_is() -> None:
    """Why, since when, with the screenshot; the disk, the hook, and rejected objects by name."""
    one = failed()
    assert evidence_wanted(one.judged) == [(one.run, "prices")]
    html = one.front()
    assert "prices: the page changed" in html
    assert f"runs/{one.run}/jobs/prices/evidence/attempt-1/screenshot.png" in html
    assert "4 days in a row · since Monday 03:00 · last success: Sunday 03:00" in html
    html = SCENES["full-disk"]().front()
    for text in ("The disk at home", "make room there", "00000000.7.json", "4 packages"):
        assert text in html
    assert "1 object that cannot be used" in html


def test_a_run_tells_how_it_went() -> None:
    """Begin and end with the zone, host, machine, cost, release and who signed it, jobs, log."""
    html = failed(3).last()
    for text in ("2026-11-26 03:01:", "JST", "ip-10-0-0-7", "t3.medium", "spot", "v1.27"):
        assert text in html
    assert "me@example.com" in html
    assert re.search(r"\$0\.00\d\d", html)
    assert html.index("prices</a>") < html.index("books</a>")
    assert "prices job.ended status=failed" in html


@pytest.mark.parametrize(
    ("query", "shown", "hidden"),
    [
        ({"level": "warning"}, ["job.retried", "status=failed"], ["run.began"]),
        ({"level": "error"}, ["status=failed"], ["job.retried", "run.began"]),
        ({"job": "books"}, ["job.started"], ["run.began", "job.retried"]),
        ({"level": "nonsense"}, ["run.began"], []),
    ],
)
def test_the_log_is_filtered(query: dict[str, str], shown: list[str], hidden: list[str]) -> None:
    """By level and by job, with links."""
    html = good(1).last(LOG, **query).split('id="log"')[1]
    assert all(text in html for text in shown)
    assert not any(text in html for text in hidden)


def test_a_run_that_is_under_way_and_one_that_is_lost() -> None:
    """How far it is, renewed without any script; of a lost one its last lines, and where to look."""
    one, fresh = SCENES["running"](), '<meta http-equiv="refresh" content="60">'
    assert fresh in one.front()
    html = one.last(Text())
    for text in ("2 of 5 jobs done", '<progress max="5" value="2">', "Deadline", fresh):
        assert text in html
    html = SCENES["lost"]().last()
    assert "get-console-output --latest --output text --instance-id i-0abcdef1234567890" in html
    assert "group /mayfly/STACK, i-0abcdef1234567890" in html
    assert "status=failed" in html
    assert "~$" in html
    assert fresh not in html


def test_runs_that_said_little() -> None:
    """A run that ended before its plan, or said nothing but its beginning, has a page; an unknown one has none."""
    schedule = nightly("cron(0 3 * * ? *)")
    for how in ({"minutes": None}, {"status": "interrupted"}):
        one = scene(started_by(schedule, "26 03:00", 1, jobs=None, **how)[0])
        assert "it is gone" in one.last(Text(problem="it is gone"))
    assert replace(one, run="20200101T000000Z-000000").last() == ""


def test_a_job_of_a_run_has_its_files_evidence_and_what_it_printed() -> None:
    """Each file with a link to look at it, where that is possible, and one to download it; what was not taken, too."""
    one = failed(1)
    path = f"/runs/{one.run}/jobs/prices"
    ready = package(one.run, "prices")
    html = run_job_page(
        visit(path), one.judged, one.run, "prices", package=ready, log=Text(b"got \x1b[31m404\n")
    )
    assert html is not None
    assert f'href="../../../view/{one.run}/prices/files/2026-11-26/prices.csv"' in html
    assert "download>download" in html
    assert "2026-11-26/page 1.json" in html
    assert "page%201.json" in html
    assert "it is a link" in html
    assert "exit code 1" in html
    assert "got \ufffd[31m404" in html
    broken = run_job_page(
        visit(path), one.judged, one.run, "prices", package=Invalid("it is forged"), log=Text()
    )
    assert "it is forged" in (broken or "")
    for run, job in ((one.run, "nothing"), ("20200101T000000Z-000000", "prices")):
        nobody = run_job_page(visit(path), one.judged, run, job, package=None, log=Text())
        assert nobody is None


def test_a_job_has_its_failures_and_its_numbers() -> None:
    """Failures to leaf through, all runs if one likes, three charts."""
    one = failed()
    html = one.job()
    assert html.count("<svg") == 3
    (facts,) = [job for job in one.judged.jobs if job.name == "prices"]
    failures = [out for out in facts.outcomes if out.state is State.FAILED]
    assert html.count("<article") == len(failures) > 4
    assert "Sunday 03:00" in html
    html = one.job(all="1", page="2")
    assert html.count("<article") == 20
    assert "all=1" in html
    assert "page=3" in html
    assert job_page(visit("/jobs/x/prices"), one.judged, "x", "prices") is None


def test_a_job_says_what_changed() -> None:
    """Files and records; why nobody can say it; and nothing of a first success, or of a job that had none."""
    one = good()
    runs = runs_compared(one.judged, "nightly", "prices")
    assert runs is not None
    assert runs[0] < runs[1] == one.run
    html = one.job(replace(changes(one.run), before=runs[0]))
    assert "12 added, 3 removed, 1,205 changed" in html
    assert "2 records without a key of their own" in html
    assert "it is no JSON array" in html
    assert '<span class="changed">~ Asahikawa: price' in html
    assert all(f"/runs/{run}/jobs/prices" in html for run in runs)
    assert "the bucket sleeps" in one.job(Invalid("the bucket sleeps"))
    first = scene(night(SLOT))
    assert runs_compared(first.judged, "nightly", "prices") is None
    assert runs_compared(first.judged, "nightly", "nobody") is None
    assert "It is the first" in first.job()
    assert "last success changed" not in scene(night(SLOT, {"prices": TROUBLES[0]})).job()


def test_runs_are_listed_in_portions() -> None:
    """Fifty each, the newest first; the link goes on where the page ends."""
    one = good(120)
    first = runs_page(visit("/runs"), one.judged, one.costs)
    found = re.search(r"before=([0-9TZa-f-]+)", first)
    assert found is not None
    second = runs_page(visit("/runs", before=found[1]), one.judged, one.costs)
    rows = [re.findall(r'href="\.?\.?/?runs/(2026[^"?]+)"', html) for html in (first, second)]
    assert [len(each) for each in rows] == [50, 50]
    assert not set(rows[0]) & set(rows[1])
    assert rows[0][-1] > rows[1][0]


def test_groups_of_shards_are_told_of() -> None:
    """How many are done, which are missing, and the runs that did not succeed first."""
    shards = [
        attempt(
            "26 03:00",
            FAILED if shard == 3 else DONE,
            batch=Batch.of_shard("main", "big", shard, 6),
        )
        for shard in range(5)
    ]
    html = scene(*shards, now=tokyo("26 12:00")).front()
    assert "5 of 6 shards" in html
    assert "Missing shards: 6" in html
    table = html.split("<details>")[1].split("</details>")[0]
    assert table.count("<tr>") == 6
    assert table.index("4/6") < table.index("1/6")


@pytest.mark.parametrize(
    ("kind", "content", "shown"),
    [
        ("text/csv", b'a,b\n"1,5",<b>\n', "<td>1,5</td><td>&lt;b&gt;</td>"),
        ("text/csv", "\ufeff名前,値\n".encode(), "<th>名前</th>"),
        ("text/tab-separated-values", b"a\tb\n1\t2\n", "<td>2</td>"),
        ("application/json", b'{"a":[1,2]}', "{\n &#34;a&#34;: [\n  1,"),
        ("application/json", b'{"a":', "{&#34;a&#34;:"),
        ("application/x-ndjson", b'{"a":1}\n', "{&#34;a&#34;:1}"),
        ("text/html", b"<script>1</script>", "&lt;script&gt;1&lt;/script&gt;"),
        ("text/plain", b"\x00\xff", "\ufffd\ufffd"),
        ("image/png", b"", '<img class="whole" src="../../../../runs/'),
    ],
)
def test_files_are_looked_at(kind: str, content: bytes, shown: str) -> None:
    """Tables as tables, JSON indented, pictures as pictures, text as text; archives and drawings are downloads."""
    for download in ("application/zip", "image/svg+xml", "application/octet-stream"):
        assert not may_be_looked_at(resource("files/x", download))
    file = resource("files/x", kind)
    assert may_be_looked_at(file)
    run = "20261126T000000Z-abcdef"
    assert shown in file_page(visit(f"/view/{run}/job/files/x"), run, "job", file, Text(content))


@given(st.binary(max_size=400), st.sampled_from(["text/csv", "application/json", "text/plain"]))
def test_any_content_is_shown(content: bytes, kind: str) -> None:
    """Whatever is in a file."""
    file = resource("files/x", kind)
    html = file_page(visit("/view/r/j/files/x"), "r", "j", file, Text(content, cut=True))
    assert "This is the beginning of it." in html
    assert Tags(html).names <= usual()[0]


def test_lists_in_each_other_make_no_page_of_a_hundred_megabytes() -> None:
    """Indented, each item would have as many spaces as there are lists around it."""
    content = b"[" * 900 + b"0" + b",0" * 120_000 + b"]" * 900
    file = resource("files/x", "application/json")
    assert len(file_page(visit("/view/r/j/files/x"), "r", "j", file, Text(content))) < 10**6


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-10:00"])
def test_a_time_that_no_zone_has_is_none(at: str) -> None:
    """A forged one: the line is shown without."""
    (line,) = log_lines(json.dumps({"timestamp": at, "event": "x"}).encode())
    assert line.text(ZoneInfo("Asia/Tokyo")).split() == ["info", "x"]


def test_json_has_the_same_numbers() -> None:
    """The verdict, what fails, schedules, jobs, runs and costs, for programs."""
    one = failed()
    found = status_document(one.judged, one.costs, one.health, 3)
    assert found["fine"] is False
    assert found["verdict"][0].startswith("Last night: 4 of 5 jobs")
    assert [trouble["kind"] for trouble in found["troubles"]] == ["job"]
    assert {job["name"]: job["failures"] for job in found["jobs"]}["prices"] == 4
    assert len(found["runs"]) == 3
    assert found["schedules"][0]["next_due"] == "2026-11-26T18:00:00Z"
    assert found["health"]["pull"]["pending"] == 0


# The grid, the charts, the log.


def test_the_grid_ends_today() -> None:
    """Sixty days, the last of them today; months where they begin, Mondays below."""
    found = grid(failed().judged)
    assert found.columns[-1].name == "2026-11-26"
    assert len(found.columns) == COLUMNS
    assert [one.month for one in found.columns if one.month] == ["2026-10", "2026-11"]
    assert found.columns[-4].day == "23"
    prices = next(row for row in found.rows if row.job == "prices")
    assert [cell.state for cell in prices.cells[-5:]] == [State.SUCCEEDED, *[State.FAILED] * 4]
    assert found.rows[0].job == ""
    assert found.older
    before = grid(failed().judged, back=COLUMNS)
    assert before.columns[-1].name == "2026-09-27"


def test_the_grid_by_run() -> None:
    """A column for each batch and each missed time: hourly jobs choose it by themselves."""
    hourly = nightly("cron(0 * * * ? *)", "15m")
    runs = [
        attempt(f"22 {hour:02}:00", FAILED if hour == 5 else DONE, schedule=hourly)
        for hour in range(12)
        if hour != 7
    ]
    found = grid(judge(history(tokyo("22 11:50"), *runs), Rules(tokyo("22 11:50"))))
    assert found.by == "run"
    assert len(found.columns) == 12
    row = found.rows[1]
    states = [cell.state for cell in row.cells]
    assert (states[5], states[7]) == (State.FAILED, State.MISSED)
    assert states.count(State.SUCCEEDED) == 10
    assert row.rate == pytest.approx(10 / 12)
    assert found.columns[3].name == "2026-11-22 03:00"


@given(
    st.lists(st.floats(0, 1e12), max_size=200),
    st.sampled_from([State.SUCCEEDED, State.FAILED]),
)
def test_charts_stay_in_their_box(numbers: list[float], state: State) -> None:
    """Whatever the numbers: bars between the axes, few lines, the top one above all."""
    points = [Point(NOW, number, state, "r") for number in numbers]
    found = chart(points, str, TOKYO)
    assert len(found.bars) == len(numbers)
    for bar in found.bars:
        assert LEFT <= bar.x <= WIDTH
        assert bar.y >= -1e-6
        assert bar.y + bar.height <= HEIGHT
        assert bar.height >= 0
    assert len(found.across) <= 6
    assert len(found.along) <= 5


@given(st.lists(st.binary(max_size=80), max_size=20), st.sampled_from(["", *LEVELS]))
def test_any_log_is_read(lines: list[bytes], level: str) -> None:
    """Lines that are no JSON are shown as they are, but what is left of a first line; nothing moves a cursor."""
    cut = log_lines(b'ent":"x"}\n{"event":"y"}\n', cut=True)
    assert [one.event for one in cut] == ["y"]
    content = b"\n".join(lines)
    found = [*filtered(log_lines(content), level)]
    assert end_of(content, 3, level=level) == (found[-3:], len(found) > 3)
    for line in found:
        assert printable(line.text(TOKYO)) == " ".join(line.text(TOKYO).split())
        assert line.json.isascii()


# Bounds.


def test_five_hundred_jobs_and_a_year_are_paged() -> None:
    """A page has fifty rows of sixty cells, the log a thousand lines, and no page is larger than a megabyte."""
    jobs = {f"shop-{number:03}": 5.0 for number in range(500)}
    trouble = (JobStatus.FAILED, JobCause.BLOCKED, "x" * 1900)
    year = [
        night(SLOT.replace(month=month, day=day), jobs=jobs)
        for month in (10, 11)
        for day in (1, 8, 15, 22)
    ]
    bad = night(SLOT, {name: (*trouble[:2], f"{name}: {trouble[2]}") for name in jobs}, jobs=jobs)
    one = scene(*year, bad)
    html = one.front(page="10")
    assert len(html) < 1_000_000
    assert html.count('<div class="row">') == ROWS
    assert "shop-499" in html
    assert "480 more" in html
    html = one.last(Text(b'{"event":"x"}\n' * 100_000))
    assert len(html) < 1_000_000
    assert "mayfly logs" in html


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999", "", "1e3", "\u0663"])
def test_numbers_in_a_query_are_bounded(number: str) -> None:
    """Whatever is asked for, there is a page."""
    one = good(3)
    for name in ("page", "back"):
        assert one.front(**{name: number})
    assert one.job(page=number)


def test_pictures_of_the_docs_are_there() -> None:
    """The docs show pictures that exist (`python -m tests.consumer.camera` makes them), and none is left over."""
    docs = ROOT / "docs"
    shown = {
        name
        for page in (*docs.rglob("*.md"), *ROOT.glob("README*.md"))
        for name in re.findall(r"pictures/([a-z0-9-]+\.png)", page.read_text("utf-8"))
    }
    there = {path.name for path in (docs / "pictures").glob("*.png")}
    assert len(shown) >= 8
    assert shown == there
