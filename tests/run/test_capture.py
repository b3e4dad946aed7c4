"""A job's output, where the disk does not take it."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest

from agent.base.logs import RunLogger, console_sink, json_sink
from agent.base.redact import Redactor
from agent.jobs.capture import Capture
from tests.parts.small_disk import SmallDisk

LINES = "".join(f"line {number}\n" for number in range(200_000)).encode()


@pytest.mark.parametrize("path", [Path("/dev/full"), Path("/nowhere/output.log")])
async def test_a_disk_that_takes_nothing_stalls_no_job(path: Path) -> None:
    """Everything is read to its end, the tail is known, and the reason is told."""
    stream = asyncio.StreamReader()
    stream.feed_data(LINES)
    stream.feed_eof()
    capture = Capture(path, 64 * 1024, Redactor({}), RunLogger().log)
    await capture.drain(stream)
    assert capture.total == len(LINES)
    assert capture.tail[-1] == "line 199999"
    assert capture.lost in {"No space left on device", "No such file or directory"}


@pytest.mark.parametrize("limit", [0, 1])
async def test_a_log_of_no_size_stalls_no_job(tmp_path: Path, limit: int) -> None:
    """Somebody who wants no output of jobs on the disk sets `limits.output` to 0."""
    stream = asyncio.StreamReader()
    stream.feed_data(LINES)
    stream.feed_eof()
    path = tmp_path / "output.log"
    capture = Capture(path, limit, Redactor({}), RunLogger().log)
    await capture.drain(stream)
    assert capture.total == len(LINES)
    assert capture.tail[-1] == "line 199999"
    assert path.read_text() == f"\n[... {len(LINES)} bytes left out ...]\n"


async def test_a_disk_that_takes_a_part_is_told(tmp_path: Path) -> None:
    """The last words of a job are what a person looks for: that they are missing must be said."""
    stream = asyncio.StreamReader()
    stream.feed_data(b"x" * 6000 + b"\n")
    stream.feed_eof()
    with SmallDisk(tmp_path / "disk") as disk:
        path = disk.path / "output.log"
        capture = Capture(path, 64 * 1024, Redactor({}), RunLogger().log)
        disk.leave_pages(1)
        await capture.drain(stream)
        assert path.stat().st_size == 4096
    assert capture.lost == "No space left on device"


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    """The other sinks get their events."""
    seen: list[dict[str, Any]] = []

    def broken(_event: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    RunLogger(broken, seen.append).log.info("something.happened")
    assert [event["event"] for event in seen] == ["something.happened"]


def test_the_log_redacts_what_json_does_not_have() -> None:
    """Errors, paths and bytes become texts in the sinks, and come there without secrets."""
    plain, coloured = io.StringIO(), io.StringIO()
    run_logger = RunLogger(json_sink(plain), console_sink(coloured, colors=False))
    run_logger.add_secrets({"TOKEN": "hunter2-hunter2"})
    run_logger.log.warning(
        "x",
        error=ValueError("no hunter2-hunter2"),
        path=Path("/hunter2-hunter2"),
        data=b"hunter2-hunter2",
        several={Path("hunter2-hunter2"): {"hunter2-hunter2"}},
    )
    for stream in (plain, coloured):
        assert "hunter2" not in stream.getvalue()
        assert stream.getvalue().count("[redacted:TOKEN]") == 5
