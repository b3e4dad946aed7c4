"""Groups of shards on the status page, in a real browser."""

from collections.abc import Iterator

import pytest
import requests

from agent.core.results import JobCause
from agent.core.shards import Shard
from consumer.page.words import ENGLISH, JAPANESE, LANGUAGES
from consumer.queries import GroupState
from tests.bucket.bucket import Bucket
from tests.bucket.leaving import leave_begun, leave_run
from tests.consumer.camera import Camera, Light
from tests.consumer.serving import Serving, serving
from tests.consumer.test_groups_shown import job, leave_groups, leave_shard, run_at

PHONE, DESKTOP = 390, 1200
MANY = 60
OPEN = "[...document.querySelectorAll('details')].forEach(one => one.open = true)"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service that has seen a whole group, a late one, one of many shards that is under way, and a run by itself."""
    folder = tmp_path_factory.mktemp("groups")
    bucket = Bucket.in_folder(folder / "bucket")
    leave_groups(bucket)
    for number in range(MANY - 1):
        status = "failed" if number == 7 else "succeeded"
        cause = JobCause.BLOCKED if number == 7 else None
        part = Shard("tuesday", number, MANY)
        leave_shard(bucket, 1, part, [job(f"shop-{number}", status, cause)])
    leave_begun(bucket, run_at(0.5, MANY - 1), part=Shard("tuesday", MANY - 1, MANY))
    leave_run(bucket, run_at(3, 0))
    with serving(folder, bucket.environ) as service:
        yield service


@pytest.fixture(scope="module")
def camera() -> Iterator[Camera]:
    """A real browser without a window."""
    with Camera() as one:
        yield one


def summaries(camera: Camera) -> list[str]:
    """What the page says of each group while its shards are folded away."""
    texts: list[str] = camera.ask(
        "[...document.querySelectorAll('#groups summary')].map(one => one.innerText)"
    )
    return [" ".join(text.split()) for text in texts]


def test_a_group_is_one_row_and_its_shards_are_folded(home: Serving, camera: Camera) -> None:
    """Newest first, with its state, shards that are done, and jobs that failed; shards are listed nowhere else."""
    camera.visit(f"{home.url}/?lang=en", DESKTOP, Light.BRIGHT)
    tuesday, monday, sunday = summaries(camera)
    assert tuesday.startswith(
        f"tuesday incomplete {MANY - 1} of {MANY} shards · 1 of 59 jobs failed"
    )
    assert "under way 1 · late after " in tuesday
    assert monday.startswith("monday late 1 of 3 shards · 1 of 4 jobs failed")
    assert sunday.startswith("sunday complete 2 of 2 shards · 0 of 2 jobs failed")
    assert camera.ask("document.querySelectorAll('details[open]').length") == 0
    listed = "[...document.querySelectorAll('main > section:last-of-type tbody tr')].length"
    assert camera.ask(listed) == 1
    assert camera.ask("document.querySelector('.cards').innerText").count("Shard ") == 1


def test_the_shards_unfold_with_what_failed_first(home: Serving, camera: Camera) -> None:
    """Each links to its own page, missing ones are counted as `--shard` counts, and a long list says how long it is."""
    camera.visit(f"{home.url}/?lang=en", DESKTOP, Light.BRIGHT)
    camera.ask(OPEN)
    details = "[...document.querySelectorAll('#groups details')]"
    tuesday, monday, _ = camera.ask(f"{details}.map(one => one.innerText)")
    assert f"missing: {MANY}" in tuesday
    assert "missing: 2, 3" in monday
    assert f"{MANY - 1 - 50} more are in the list of runs" in tuesday
    rows = camera.ask(f"[...{details}[0].querySelectorAll('tbody tr')].map(one => one.innerText)")
    assert len(rows) == 50
    assert ("Shard 8/60" in rows[0], "failed" in rows[0]) == (True, True)
    link = camera.ask(f"{details}[0].querySelector('tbody a').href")
    page = requests.get(link, timeout=10)
    assert (page.status_code, "8/60 · tuesday" in page.text) == (200, True)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("light", list(Light))
@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_the_page_fits_with_all_shards_unfolded(
    home: Serving, camera: Camera, width: int, light: Light, language: str
) -> None:
    """On a phone and on a desk, light and dark, in both languages."""
    camera.visit(f"{home.url}/?lang={language}", width, light)
    assert camera.ask("document.documentElement.scrollWidth") == width
    camera.ask(OPEN)
    assert camera.ask("document.documentElement.scrollWidth") == width
    words = LANGUAGES[language]
    shown = " ".join(summaries(camera))
    assert all(words.group_states[state] in shown for state in GroupState)


def test_without_groups_nothing_speaks_of_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever has one machine sees the page as it was."""
    folder = tmp_path_factory.mktemp("alone")
    bucket = Bucket.in_folder(folder / "bucket")
    leave_run(bucket, run_at(3, 0))
    with serving(folder, bucket.environ) as service:
        for words in (ENGLISH, JAPANESE):
            text = requests.get(f"{service.url}/?lang={words.tag}", timeout=10).text
            assert words.recent in text
            assert words.groups not in text
            assert words.shard not in text
