import html
import json
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scrapers.kit.browser import browser_flags
from scrapers.kit.causes import JobFailure
from scrapers.kit.downloads import finished_download
from scrapers.kit.evidence import same_site_network_errors, without_passwords
from scrapers.kit.job import job_from
from scrapers.kit.output import json_lines, write_text
from scrapers.kit.stops import (
    RESERVE_SECONDS,
    DeadlineReached,
    Interrupted,
    Stopped,
    cleaning_up,
    finishing,
    stop_after,
    watch,
)

KINDS = ('type="password"', 'type="text" name="login_password"', 'autocomplete="new-password"')


def names(folder: Path) -> list[str]:
    """Return the names of what is in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


@given(st.text(), st.sampled_from(KINDS))
def test_page_source_has_no_typed_password(secret: str, kind: str) -> None:
    """Whatever was typed into a password input, the evidence has the input without it; other inputs are evidence."""
    others = '<input type="search" value="blue lamps"><input value=1 name=page><input type=submit value="Go">'
    page = f'{others}<input class="a>b" value="{html.escape(secret)}" {kind}><p>after</p>'
    assert without_passwords(page) == f'{others}<input class="a>b" {kind}><p>after</p>'


def test_only_errors_of_the_same_site_count() -> None:
    """A blocked advertisement in the console is no reason to call the site unreachable."""
    page, failed = "https://shop.example/api/list", "Failed to load resource: net::ERR"
    texts = (
        f"{page} - {failed}_CONNECTION_RESET",
        f"https://ads.example/x.js - {failed}_NAME_NOT_RESOLVED",
        f"{page} 12:3 Uncaught TypeError: Failed to fetch",
    )
    console = [*({"message": text} for text in texts), {"level": "SEVERE"}]
    assert same_site_network_errors("https://shop.example/list?page=2", console) == texts[:1]


@pytest.mark.parametrize(
    ("earlier", "now", "name"),
    [
        ({}, {}, ""),
        ({}, {"a.csv": 3}, ""),
        ({"a.csv": 3}, {"a.csv": 3}, "a.csv"),
        ({"a.csv": 3}, {"a.csv": 9}, ""),
        ({"a.csv": 0, "a.csv.crdownload": 5}, {"a.csv": 0, "a.csv.crdownload": 5}, ""),
        ({".org.chromium.Chromium.x": 5}, {".org.chromium.Chromium.x": 5}, ""),
        ({"空 白.csv": -1}, {"空 白.csv": -1}, "空 白.csv"),
    ],
)
def test_when_a_download_is_finished(
    earlier: dict[str, int], now: dict[str, int], name: str
) -> None:
    """A file counts when it is whole: nothing unfinished beside it, and the same at two looks."""
    assert finished_download(earlier, now) == name


@given(st.floats(-1e6, 1e6))
def test_a_job_stops_before_its_deadline(left: float) -> None:
    """Time is kept back for evidence and the result, never more than the reserve, and the alarm is always set."""
    after = stop_after(1e9 + left, 1e9)
    assert after is not None
    assert after > 0
    assert left <= 0.1 or left - RESERVE_SECONDS - 0.001 <= after < left
    assert stop_after(None, 1e9) is None


def test_flags_of_the_browser() -> None:
    """Chromium keeps its sandbox wherever it can run with one; one that a person watches has a window."""
    assert "--no-sandbox" in browser_flags(0)
    assert "--no-sandbox" not in browser_flags(1000)
    assert set(browser_flags(0)) - set(browser_flags(0, watched=True)) == {"--headless=new"}


def test_job_from_environment() -> None:
    """The command line wins over the environment, and by hand both may be empty."""
    job = job_from({"SCRAPE_BASE_URL": "http://a/"}, ["--base-url", "http://b/x/"], None)
    assert job.url("quotes") == "http://b/x/quotes"
    assert job_from({"SCRAPE_BASE_URL": "http://a/"}, [], None).url("") == "http://a/"
    bare = job_from({}, [], None)
    assert (bare.output_dir, bare.result_file, bare.downloads_dir) == (Path("output"), None, None)
    assert bare.seconds_left(5) == 5
    with pytest.raises(JobFailure, match="--base-url"):
        bare.url("quotes")
    with pytest.raises(JobFailure, match="MAYFLY_DEADLINE"):
        job_from({"MAYFLY_DEADLINE": "soon"}, [], None)


def test_files_appear_whole(tmp_path: Path) -> None:
    """While rows are written only the hidden-from-results name exists; afterwards only the final one."""
    path = tmp_path / "deep" / "rows.jsonl"
    with json_lines(path) as write:
        write({"text": "日本語 🪰"})
        assert names(path.parent) == ["rows.jsonl.part"]
    assert names(path.parent) == ["rows.jsonl"]
    assert json.loads(path.read_text("utf-8")) == {"text": "日本語 🪰"}


def test_rows_of_a_failed_job_are_dropped(tmp_path: Path) -> None:
    """What a job read from a page that turned out to be wrong does not become a result, nor replace an older one."""
    path = tmp_path / "rows.jsonl"
    write_text(path, "older\n")

    def fail() -> None:
        with json_lines(path) as write:
            write({"price": None})
            raise JobFailure("page_changed", "no price")

    with pytest.raises(JobFailure):
        fail()
    assert names(tmp_path) == ["rows.jsonl"]
    assert path.read_text() == "older\n"


def test_rows_of_a_stopped_job_are_kept(tmp_path: Path) -> None:
    """A job that is told to stop hands over what it has."""

    def stop() -> None:
        with json_lines(tmp_path / "rows.jsonl") as write:
            write({"n": 1})
            raise Interrupted

    with pytest.raises(Interrupted):
        stop()
    assert (tmp_path / "rows.jsonl").read_text() == '{"n": 1}\n'


def test_stop_waits_for_the_file_being_written(tmp_path: Path) -> None:
    """SIGTERM inside `finishing` is raised right after it, once, and a second one changes nothing."""

    def write() -> None:
        with watch(None):
            try:
                with finishing():
                    os.kill(os.getpid(), signal.SIGTERM)
                    (tmp_path / "whole").touch()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                (tmp_path / "cleaned up").touch()

    with pytest.raises(Interrupted):
        write()
    assert names(tmp_path) == ["cleaned up", "whole"]


def test_stop_during_clean_up_does_not_hide_the_error() -> None:
    """What went wrong first is what is reported."""

    def fail() -> None:
        with watch(None):
            try:
                raise JobFailure("blocked", "the shop says no")
            finally:
                with cleaning_up():
                    os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(JobFailure, match="says no"):
        fail()


def test_deadline_ends_a_wait() -> None:
    """The deadline is raised into whatever the job is doing, past an `except Exception` of its own."""

    def wait() -> None:
        with watch(time.time() + 0.2):
            try:
                time.sleep(30)
            except Exception as error:
                raise AssertionError from error

    with pytest.raises(DeadlineReached) as raised:
        wait()
    assert isinstance(raised.value, Stopped)
