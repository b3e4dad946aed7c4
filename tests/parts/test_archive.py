"""Root file systems that builds share: the real script, beside recipes that take no time."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.parts.machine_disk import ROOT
from tests.parts.waiting import wait_until

RECIPE = """\
#!/bin/sh
made=$1
shift
echo "$@" >>"$(dirname "$made")/made.log"
while test -e "$(dirname "$made")/hold"; do sleep 0.1; done
echo "$@" >"$made.part"
mv "$made.part" "$made"
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The project's script, and what it needs beside it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    for name in ("root.sh", "browser.sh"):
        (folder / name).write_text(RECIPE)
        (folder / name).chmod(0o755)
    (folder / "chromium").write_text("a program\n")
    return Path(shutil.copy(ROOT / "packer" / "disk" / "archive.sh", folder))


def start(script: Path, cache: Path, *words: str) -> "subprocess.Popen[str]":
    """Ask for an archive."""
    return subprocess.Popen(
        [str(script), str(cache), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def archive(script: Path, cache: Path, *words: str) -> Path:
    """Return where an archive is."""
    said, wrong = start(script, cache, *words).communicate(timeout=30)
    assert said, wrong
    return Path(said.strip())


def made(cache: Path) -> list[str]:
    """Return what was made, in turn: the packages of each."""
    return (cache / "made.log").read_text().splitlines()


def test_an_archive_is_made_once_for_each_recipe(script: Path, tmp_path: Path) -> None:
    """Other packages are another archive, and so is a recipe that was changed; what was made stays."""
    cache = tmp_path / "cache"
    bare, more = archive(script, cache, "root"), archive(script, cache, "root", "sudo")
    assert (bare.read_text(), more.read_text()) == ("\n", "sudo\n")
    assert archive(script, cache, "root") == bare
    assert archive(script, cache, "root", "sudo") == more
    assert made(cache) == ["", "sudo"]
    browser = archive(script, cache, "browser")
    (script.parent / "chromium").write_text("another program\n")
    assert archive(script, cache, "root") == bare
    assert archive(script, cache, "browser") != browser
    assert made(cache) == ["", "sudo", "", ""]
    assert browser.exists()


def test_of_two_who_want_it_one_makes_it(script: Path, tmp_path: Path) -> None:
    """The other waits for it, and is told the same."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "hold").touch()
    both = [start(script, cache, "root", "sudo") for _ in range(2)]
    wait_until((cache / "made.log").exists, seconds=30, what="one of them to begin")
    (cache / "hold").unlink()
    first, second = (one.communicate(timeout=30)[0] for one in both)
    assert first == second
    assert made(cache) == ["sudo"]


def test_what_could_not_be_made_is_not_there(script: Path, tmp_path: Path) -> None:
    """It is made by the next one who asks."""
    (script.parent / "root.sh").write_text("#!/bin/sh\necho no mirror >&2\nexit 7\n")
    failing = start(script, tmp_path / "cache", "root")
    said, wrong = failing.communicate(timeout=30)
    assert (failing.returncode, said) == (7, "")
    assert "no mirror" in wrong
    (script.parent / "root.sh").write_text(RECIPE)
    assert archive(script, tmp_path / "cache", "root").exists()
