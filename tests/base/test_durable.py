"""What survives a power cut; `make test-vm` pulls the plug for real."""

import errno
from pathlib import Path

import pytest

from agent.base.durable import sync_file_system


def test_a_file_system_is_synced(tmp_path: Path) -> None:
    """The kernel takes the request for the folder's own file system."""
    (tmp_path / "file").write_bytes(b"x")
    sync_file_system(tmp_path)


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """Whoever asked learns that nothing was made durable."""
    with pytest.raises(OSError) as caught:
        sync_file_system(tmp_path / "gone")
    assert caught.value.errno == errno.ENOENT
