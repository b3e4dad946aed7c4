"""Regular files alone are opened."""

import os
from pathlib import Path

import pytest

from agent.base.regular import open_regular, read_regular


def test_a_file_and_a_link_to_one_are_opened(tmp_path: Path) -> None:
    """As anybody would open them."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as stream:
            assert stream.read() == b"x"


@pytest.mark.timeout(10)
def test_what_would_make_a_reader_wait_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe without a writer, a device, a folder, nothing at all."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(Path("/dev/zero"))
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    """A file without an end costs no memory."""
    (tmp_path / "file").write_bytes(b"four")
    assert read_regular(tmp_path / "file", 4) == b"four"
    with pytest.raises(OSError, match="more than 3 bytes"):
        read_regular(tmp_path / "file", 3)
