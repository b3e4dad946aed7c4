"""What survives a power cut; `make test-vm` pulls the plug for real."""

import errno
from pathlib import Path

import pytest

from agent.base.durable import remove_tree, sync_file_system
from tests.parts.deep_folders import nested


def test_a_file_system_is_synced(tmp_path: Path) -> None:
    """The kernel takes the request for the folder's own file system."""
    (tmp_path / "file").write_bytes(b"x")
    sync_file_system(tmp_path)


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """Whoever asked learns that nothing was made durable."""
    with pytest.raises(OSError) as caught:
        sync_file_system(tmp_path / "gone")
    assert caught.value.errno == errno.ENOENT


def test_a_folder_is_removed_whatever_is_in_it(tmp_path: Path) -> None:
    """Deeper than a path can be long, read-only, closed to its owner; links are not followed."""
    folder, kept = tmp_path / "folder", tmp_path / "kept"
    for path in (folder / "closed" / "in", folder / "fixed", kept):
        path.mkdir(parents=True)
        (path / "file").touch()
    (folder / "link").symlink_to(kept)
    (tmp_path / "to").symlink_to(kept)
    with nested(folder, 3000):
        (folder / "closed").chmod(0)
        (folder / "fixed").chmod(0o555)
        folder.chmod(0o555)
        remove_tree(folder)
        remove_tree(tmp_path / "to")
        remove_tree(tmp_path / "gone")
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").exists()
