"""What the container engine answers when it cannot do what it is asked for, spoken by a client of the test's own."""

from pathlib import Path

import pytest

from agent.base.engine import Engine
from agent.base.errors import ContainerError
from agent.base.logs import RunLogger


def engine(folder: Path, script: str) -> Engine:
    """An engine whose client is a shell script; what it is asked for is in the file `asked`."""
    client = folder / "docker"
    client.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{script}')
    client.chmod(0o755)
    return Engine({"PATH": f"{folder}:/usr/bin:/bin"})


def asked(folder: Path) -> list[str]:
    """What the client was asked for."""
    return (folder / "asked").read_text().splitlines()


async def test_a_removal_that_fails_is_tried_once_more(tmp_path: Path) -> None:
    """What the engine waited for is over at the second attempt; a container that stays would run on."""
    busy = f"""
test -e {tmp_path}/tried && exit 0
touch {tmp_path}/tried
echo "Error response from daemon: tried to kill container, but did not receive an exit event" >&2
exit 1
"""
    assert await engine(tmp_path, busy).remove("rm", "--force", "a") == ""
    assert asked(tmp_path) == ["rm --force a"] * 2


async def test_one_that_is_missing_hides_no_other_that_stays(tmp_path: Path) -> None:
    """The client has a line for each: the container that could not be removed is told."""
    script = """
echo "Error response from daemon: No such container: a" >&2
echo "Error response from daemon: cannot remove container b: it is dead" >&2
exit 1
"""
    assert "container b" in await engine(tmp_path, script).remove("rm", "a", "b")


async def test_what_is_not_there_need_not_be_removed(tmp_path: Path) -> None:
    """That is no failure, and no reason for another attempt."""
    script = 'echo "Error response from daemon: No such container: a" >&2; exit 1\n'
    assert await engine(tmp_path, script).remove("rm", "a") == ""
    assert len(asked(tmp_path)) == 1


async def test_an_image_that_is_gone_after_its_pull_is_a_failure_with_a_reason(
    tmp_path: Path,
) -> None:
    """Somebody removed it at once: there is nothing to start, and nothing to read about it."""
    script = """
case "$1 $2" in
"image inspect") echo "Error response from daemon: No such image: i" >&2; exit 1 ;;
esac
"""
    with pytest.raises(ContainerError, match="No such image"):
        await engine(tmp_path, script).have("i", RunLogger().log, "pulled")
