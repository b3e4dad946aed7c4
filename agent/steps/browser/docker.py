"""The container engine's command line: every call bounded, every refusal explained."""

import re
from collections.abc import Mapping

from agent.core.errors import BrowserError, ProcessTimeout
from agent.steps import processes
from agent.steps.processes import Finished

ANSWER_SECONDS = 20.0
"""Limit of a call that only asks; a dockerd that is busy with an image answers in a few seconds."""

WITHOUT = "or install chromium and chromedriver, or set browser.url to a running WebDriver endpoint"

_PASSED_ON = re.compile(r"PATH|HOME|LANG|XDG_RUNTIME_DIR|DOCKER_\w+|(?i:https?_proxy|no_proxy)")


class Docker:
    """`docker`, found on the PATH of `environ`, which also says where the engine is (`DOCKER_HOST`)."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {
            name: value for name, value in environ.items() if _PASSED_ON.fullmatch(name)
        }

    async def ask(self, *arguments: str, seconds: float = ANSWER_SECONDS) -> Finished:
        """Run `docker ARGUMENTS` and return what came of it, whatever its exit code.

        Raises:
            BrowserError: There is no docker, or it did not answer in time.
        """
        try:
            return await processes.run(
                ("docker", *arguments), environ=self._environ, seconds=seconds
            )
        except OSError as error:
            raise BrowserError(
                f"docker could not be started: {error.strerror}",
                remedy=f"install Docker, {WITHOUT}",
            ) from error
        except ProcessTimeout as error:
            raise BrowserError(
                f"docker {arguments[0]} did not end within {seconds:g} s",
                remedy="look at the engine: docker info, journalctl -u docker",
            ) from error

    async def do(self, *arguments: str, seconds: float = ANSWER_SECONDS) -> str:
        """Run `docker ARGUMENTS` and return what it printed.

        Raises:
            BrowserError: It failed, for whatever reason.
        """
        done = await self.ask(*arguments, seconds=seconds)
        if done.code != 0:
            raise refusal(arguments[0], done.complaint)
        return done.stdout.decode(errors="replace").strip()


def refusal(action: str, complaint: str) -> BrowserError:
    """Return what a failed `docker ACTION` means, with the remedy where it is known."""
    said = complaint.lower()
    if "permission denied" in said and "daemon" in said:
        remedy = "let this user use the engine (group docker), or run as root"
    elif "cannot connect to the docker daemon" in said or "is the docker daemon running" in said:
        remedy = f"start the engine (systemctl start docker), {WITHOUT}"
    elif "no space left" in said:
        remedy = "free some disk space: docker system prune"
    else:
        remedy = ""
    return BrowserError(f"docker {action} failed: {complaint}", remedy=remedy)
