"""What is said to the engine and to Chromium, and what their answers mean."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.engine import image_digest
from agent.base.errors import BrowserError
from agent.browser.chromedriver import LocalBrowser, browser_flags
from agent.browser.container import ContainerBrowser, Docker, run_arguments
from agent.browser.interface import Backend, Place, open_to_browser
from agent.config.settings import Browser
from tests.browser.conftest import Events

RUN = "20261122T064205Z-3f9a1c"
SETTINGS = Browser(sessions=3, shared_memory=2 * 1024**3, timeout=120)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r/"), min_size=1)


def test_a_container_gets_what_it_needs_and_no_more() -> None:
    """Loopback port, shared memory, session limit; no capability, no way to gain one, a bound on its processes.

    The first start names no port: the engine chooses one that is free.
    """
    place = Place(RUN, Path("/run/browser"), Path("/run/downloads"))
    arguments = run_arguments("name", "image:1", place, SETTINGS, port="4999", zone="Asia/Tokyo")
    line = " ".join(arguments)
    for part in (
        "--name name",
        f"--label mayfly.run={RUN}",
        "--publish 127.0.0.1:4999:4444",
        "--shm-size 2147483648",
        "--cap-drop ALL --security-opt no-new-privileges",
        "--pids-limit 7168",
        "--env SE_NODE_MAX_SESSIONS=6 --env SE_NODE_OVERRIDE_MAX_SESSIONS=true",
        "--env SE_SESSION_REQUEST_TIMEOUT=120",
        "--env SE_START_VNC=false",
        "--env SE_JAVA_OPTS=-XX:TieredStopAtLevel=1",
        "--env SE_NODE_ENABLE_MANAGED_DOWNLOADS=true",
        "--env TZ=Asia/Tokyo",
    ):
        assert part in line
    assert arguments[-1] == "image:1"
    assert "--privileged" not in arguments
    first = " ".join(run_arguments("name", "image:1", place, SETTINGS))
    assert "--publish 127.0.0.1::4444" in first
    assert " TZ=" not in first


@given(names)
def test_any_downloads_folder_can_be_mounted(name: str) -> None:
    """Commas, quotes, colons and equals signs in a path reach the engine as they are."""
    folder = Path("/state") / name
    arguments = run_arguments("name", "image:1", Place(RUN, Path("/b"), folder), SETTINGS)
    (fields,) = csv.reader([arguments[arguments.index("--mount") + 1]], strict=True)
    assert fields == ["type=bind", f"source={folder}", f"target={folder}"]


@pytest.mark.parametrize(
    ("inspected", "digest"),
    [
        ('[{"Id": "sha256:1", "RepoDigests": ["selenium/x@sha256:2"]}]', "sha256:2"),
        # An image that was built here has no registry's digest; its id says as much.
        ('[{"Id": "sha256:1", "RepoDigests": []}]', "sha256:1"),
        ('[{"Id": "sha256:1", "RepoDigests": null}]', "sha256:1"),
        *(("[{}]", None), ("[]", None), ('"odd"', None), ("<html>", None)),
    ],
)
def test_the_digest_is_the_registrys_or_the_images_own(inspected: str, digest: str | None) -> None:
    """It is a fact for the manifest, and not something to fail for."""
    assert image_digest(inspected.encode()) == digest


@pytest.mark.parametrize(
    ("complaint", "remedy"),
    [
        ("Cannot connect to the Docker daemon at unix:///x. Is the daemon running?", "start"),
        ("permission denied while trying to connect to the Docker daemon socket", "group docker"),
        ("failed to register layer: no space left on device", "disk"),
        ("something new", ""),
    ],
)
def test_what_the_engine_refuses_comes_with_a_remedy(complaint: str, remedy: str) -> None:
    """The usual troubles are told apart; the engine's own words are kept."""
    error = Docker.refusal("run", complaint)
    assert complaint in str(error)
    assert remedy in error.remedy
    assert bool(error.remedy) == bool(remedy)


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("shared_memory", [64 * 1024**2, 2 * 1024**3])
def test_chromium_gets_the_flags_that_its_surroundings_ask_for(
    root: bool, shared_memory: int
) -> None:
    """It has no sandbox for root only, and leaves `/dev/shm` alone only when that is small."""
    flags = browser_flags(root=root, shared_memory=shared_memory)
    assert "--headless=new" in flags
    assert ("--no-sandbox" in flags) == root
    assert ("--disable-dev-shm-usage" in flags) == (shared_memory < 1024**3)


def test_a_downloads_folder_lets_another_user_write(place: Place) -> None:
    """Whatever the umask, and again when it is there already: the container's user is nobody here."""
    open_to_browser(place.downloads / "quotes")
    open_to_browser(place.downloads / "quotes")
    assert (place.downloads / "quotes").stat().st_mode & 0o777 == 0o777


def test_a_link_is_not_opened_to_the_browser(place: Place) -> None:
    """What it leads to keeps its mode; the attempt fails."""
    (secret := place.folder.parent / "secret").mkdir(mode=0o700)
    place.make_downloads()
    (place.downloads / "quotes").symlink_to(secret)
    with pytest.raises(NotADirectoryError):
        open_to_browser(place.downloads / "quotes")
    assert secret.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", [ContainerBrowser, LocalBrowser])
async def test_the_browser_cannot_replace_a_job_s_downloads(
    place: Place, events: Events, kind: type[Backend]
) -> None:
    """It may write in the folders of jobs alone: a link in the place of one would be given to the next attempt."""
    environ = {"PATH": "/nonexistent"}
    browser = (
        ContainerBrowser("image:1", place, SETTINGS, environ, events.log)
        if kind is ContainerBrowser
        else LocalBrowser("/nonexistent/chromedriver", place, environ, events.log)
    )
    with pytest.raises(BrowserError):
        await browser.start()
    open_to_browser(place.downloads / "quotes")
    assert place.downloads.stat().st_mode & 0o777 == 0o755
