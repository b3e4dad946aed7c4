"""Where the demo's site listens, so that a browser in a container finds it."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from agent.base.errors import MayflyError
from agent.cli.demo import _settings
from agent.config.locate import Surroundings
from agent.demo import SITE_URL, gateway, make_release


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        ("172.17.0.0/16 172.17.0.1\n", "172.17.0.1"),
        ("172.17.0.0/16 172.17.0.254\n", "172.17.0.254"),
        ("172.17.0.0/16 \n", "172.17.0.1"),
        ("fd00::/64 fd00::1\n10.9.8.0/24 \n", "10.9.8.1"),
        ("fd00::/64 fd00::1\n", None),
        ("\n", None),
    ],
    ids=["named", "chosen by a person", "a new engine", "both families", "IPv6 only", "nothing"],
)
def test_this_computer_s_address_in_a_container_network(networks: str, address: str | None) -> None:
    """An engine that was just installed names no gateway until it is restarted."""
    assert gateway(networks) == address


def test_a_release_is_made_of_a_folder_with_links(tmp_path: Path) -> None:
    """Links are released as they are, wherever they lead, and what they lead to is not written."""
    scrapers, repository = tmp_path / "scrapers", tmp_path / "x.git"
    scrapers.mkdir()
    (tmp_path / "own.toml").write_text(f'url = "{SITE_URL}"')
    (scrapers / "jobs.toml").symlink_to("../own.toml")
    (scrapers / "gone").symlink_to("nowhere")
    tag = asyncio.run(make_release(scrapers, repository, "http://site", os.environ))
    show = ["git", "-C", str(repository), "cat-file", "-p"]
    assert subprocess.check_output([*show, f"{tag}:gone"]) == b"nowhere"
    assert subprocess.check_output([*show, f"{tag}:jobs.toml"]) == b'url = "http://site"'
    assert SITE_URL in (tmp_path / "own.toml").read_text()


@pytest.mark.parametrize("broken", ["not UTF-8", "a pipe"])
async def test_a_folder_that_can_be_no_release_is_told(broken: str, tmp_path: Path) -> None:
    """With what is wrong with it."""
    (tmp_path / "jobs.toml").write_bytes(b"\xff" if broken == "not UTF-8" else b"")
    if broken == "a pipe":
        os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MayflyError, match="no release can be made of"):
        await make_release(tmp_path, tmp_path / "x.git", "http://site", os.environ)


@pytest.mark.parametrize(("browser", "isolation"), [("chromedriver", "process"), ("none", "auto")])
def test_a_local_browser_and_units_exclude_each_other(
    browser: str, isolation: str, tmp_path: Path
) -> None:
    """Jobs in units get no local browser, so a demo that has one starts processes; else it decides nothing."""
    (tmp_path / browser).touch(0o755)
    around = Surroundings({"PATH": str(tmp_path)}, machine=False, cwd=tmp_path, read=Path.read_text)
    loaded, _ = _settings(tmp_path, tmp_path / "x.git", around)
    assert loaded.settings.limits.isolation == isolation
