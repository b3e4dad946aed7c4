"""A deploy key for one command: in an ssh-agent of its own, never in a file, and only for hosts with known keys."""

import asyncio
import shlex
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from pathlib import Path

from agent.base import processes
from agent.base.errors import ProcessTimeout, ReleaseError
from agent.secrets.private import GitLogin

START_SECONDS = 10.0
"""Limit for ssh-agent to listen, and for ssh-add to hand over a key."""

OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")
_PINNED = (
    *("IdentityFile=none", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null"),
    *("UpdateHostKeys=no", "CheckHostIP=no", "PreferredAuthentications=publickey"),
)


def ssh_command(*options: str) -> str:
    """Return a `GIT_SSH_COMMAND` that never prompts and never waits long."""
    return " ".join(("ssh", *(shlex.quote(f"-o{option}") for option in (*OPTIONS, *options))))


@asynccontextmanager
async def deploy_key(login: GitLogin, environ: Mapping[str, str]) -> AsyncIterator[dict[str, str]]:
    """Have git's ssh use a key in this block, by the yielded variables; the user's keys and configuration do not count.

    Raises:
        ReleaseError: The key cannot be used, OpenSSH's programs are not installed, or the temporary folder is full.
    """
    async with AsyncExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-ssh-"))
            known, socket = Path(folder, "known_hosts"), Path(folder, "agent")
            known.write_text(f"{login.known_hosts or large_hosts()}\n")
            agent = await stack.enter_async_context(
                processes.started(("ssh-agent", "-D", "-a", str(socket)), environ=environ)
            )
            await _listening(agent)
            additions = {
                "SSH_AUTH_SOCK": str(socket),
                "GIT_SSH_COMMAND": ssh_command(
                    f'UserKnownHostsFile="{known}"', f'IdentityAgent="{socket}"', *_PINNED
                )
                + " -F none",
            }
            await _hand_over(login.key, {**environ, **additions})
        except OSError as error:
            raise ReleaseError(
                f"the deploy key cannot be used: {error}",
                remedy="install the client programs of OpenSSH, and make room in the temporary folder",
            ) from error
        yield additions


def large_hosts() -> str:
    """Return the known_hosts lines that come with Mayfly."""
    return files("agent.secrets").joinpath("known_hosts").read_text("utf-8")


async def _listening(agent: asyncio.subprocess.Process) -> None:
    """Wait until ssh-agent prints its address, which it does when it listens."""
    if agent.stdout is None:
        raise AssertionError("it was started with pipes")
    try:
        async with asyncio.timeout(START_SECONDS):
            said = await agent.stdout.readline()
    except TimeoutError as error:
        raise ReleaseError(f"ssh-agent did not listen within {START_SECONDS:g} s") from error
    if not said:
        raise ReleaseError("ssh-agent ended at once", remedy="try it: ssh-agent -D")


async def _hand_over(key: str, environ: Mapping[str, str]) -> None:
    # ssh-add takes no carriage returns, and requires a newline after the last line.
    text = "\n".join(key.split("\r\n")) + "\n"
    try:
        done = await processes.run(
            ("ssh-add", "-q", "-"), environ=environ, seconds=START_SECONDS, stdin=text.encode()
        )
    except ProcessTimeout as error:
        raise ReleaseError(str(error)) from error
    if done.code != 0:
        raise ReleaseError(
            "the deploy key is not one that OpenSSH reads",
            remedy="make a new one: ssh-keygen -t ed25519 -N ''",
        )
