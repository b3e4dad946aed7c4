"""The run's log in parts: each put once, at ends of lines, news or not."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.logs import RunLogger
from agent.base.threads import run
from agent.delivery.logparts import CUT, MOST_BYTES, PUT, LogParts
from tests.delivery.world import World, folder_bucket, until


@asynccontextmanager
async def putting(parts: LogParts) -> AsyncIterator[None]:
    """Put parts while the block runs."""
    task = asyncio.create_task(parts.keep_putting())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keys(world: World, count: int) -> list[str]:
    """Wait for so many parts."""
    keys: list[str] = []

    async def there() -> bool:
        keys[:] = await world.keys(f"runs/{world.run.run}/log/")
        return len(keys) >= count

    await until(there)
    return keys


async def test_a_silent_run_gives_signs_of_life(local: World) -> None:
    """With a line of its own, so that no part is empty."""
    run_logger = RunLogger()
    parts = LogParts(local.run, local.opened(), run_logger.log, news=0.05, silence=0.2)
    with run_logger.writing(local.run.log):
        async with putting(parts):
            keys = await _keys(local, 2)
    for key in keys:
        assert b'"event": "run.alive"' in (await local.bucket.get(key) or b"")


async def test_what_grows_goes_out(local: World) -> None:
    """Without any commit."""
    async with putting(LogParts(local.run, local.opened(), local.log, news=0.05, silence=60)):
        for number in range(3):
            local.note(f"{number}")
            await _keys(local, number + 1)
    assert local.events == []


async def test_a_part_is_put_as_it_was_cut(local: World) -> None:
    """A kill between the two: whoever goes on puts the same bytes under the same key, and the rest under the next."""
    local.note("1", "2")
    parts = LogParts(local.run, local.opened(), local.log)
    (cut,) = parts._unsent()
    assert [part.stage for part in local.run.parts()] == [CUT]
    local.note("3")
    await LogParts(local.run, local.opened(), local.log).put()
    first, second = local.run.parts()
    assert (first.sha256, first.stage, second.stage) == (cut.sha256, PUT, PUT)
    keys = await _keys(local, 2)
    assert [await local.bucket.get(key) for key in keys] == [b"1\n2\n", b"3\n"]


LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=8)


@given(portions=st.lists(LINES, max_size=5), torn=st.binary(max_size=10))
def test_the_parts_are_the_log(
    portions: list[list[bytes]], torn: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However it grows; a line that is being written waits."""
    folder = tmp_path_factory.mktemp("run")

    async def grow() -> tuple[bytes, list[bytes]]:
        world = World.make(folder / "state", folder_bucket(folder / "bucket"))
        parts = LogParts(world.run, world.opened(), world.log)
        whole = b""
        for lines in portions:
            text = b"".join(line + b"\n" for line in lines)
            whole += text
            with world.run.log.open("ab") as stream:
                stream.write(text)
            await parts.put()
        with world.run.log.open("ab") as stream:
            stream.write(torn.replace(b"\n", b""))
        told = await parts.put_last()
        stored = [await world.bucket.get(part.key) or b"" for part in told]
        assert [hashlib.sha256(one).hexdigest() for one in stored] == [one.sha256 for one in told]
        return whole, stored

    whole, stored = run(grow())
    assert b"".join(stored) == whole
    assert b"" not in stored


async def test_a_line_longer_than_a_part(local: World) -> None:
    """It is cut; nothing waits for its end for ever."""
    local.note("x" * (MOST_BYTES + 10))
    parts = LogParts(local.run, local.opened(), local.log)
    await parts.put()
    keys = await _keys(local, 2)
    assert [len(await local.bucket.get(key) or b"") for key in keys] == [MOST_BYTES, 11]
