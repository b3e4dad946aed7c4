"""The cache of images: another test run's clean-up takes nothing away that is in use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.command import CommandError
from tests.parts.machine_disk import ROOT, forget, hold, kept_disk

HOLDER = """
import sys
from pathlib import Path
from tests.parts.machine_disk import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def image(cache: Path, name: str, age: int) -> Path:
    """Return a folder as a build leaves it, used `age` seconds ago for the last time."""
    folder = cache / name
    folder.mkdir()
    (folder / "disk.qcow2").write_bytes(b"disk")
    os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    return folder


def test_the_oldest_images_go(tmp_path: Path) -> None:
    """The newest ones stay; what a dead build left goes too."""
    old, newer, newest = (image(tmp_path, f"built-{age}", age) for age in (3, 2, 1))
    bare = [image(tmp_path, f"disk-{age}", age) for age in (3, 2, 1)]
    draft = image(tmp_path, "draft-x", 0)
    forget(tmp_path, kept=2)
    assert [path.exists() for path in (old, newer, newest, draft)] == [False, True, True, False]
    assert [path.exists() for path in bare] == [False, True, True]


def test_an_image_in_use_stays_until_its_user_is_gone(tmp_path: Path) -> None:
    """Another process has it: it is left alone, however old. After that process was killed it goes."""
    old, newer = image(tmp_path, "built-old", 9), image(tmp_path, "built-newer", 1)
    command = [sys.executable, "-c", HOLDER, str(old)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "held\n"
        with hold(old):  # two may use it
            pass
        os.utime(old, (1, 1))
        forget(tmp_path, kept=1)
        assert (old / "disk.qcow2").exists()
        user.kill()
        user.wait(20)
    forget(tmp_path, kept=1)
    assert (old.exists(), newer.exists()) == (False, True)


def test_a_disk_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that fails leaves nothing; what was built is found by the next who wants the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built: list[str] = []

    def build(draft: Path) -> None:
        built.append(draft.name)
        if len(built) == 1:
            raise CommandError("no mirror")
        (draft / "disk.qcow2").touch()

    with pytest.raises(CommandError), kept_disk("x", "key", build):
        pass
    for _ in range(2):
        with kept_disk("x", "key", build) as disk:
            assert disk.image.exists()
    assert len(built) == 2
    assert {path.name for path in disk.image.parent.parent.iterdir()} == {"built-key", "built.lock"}
