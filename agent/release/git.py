"""git, as the agent runs it: nobody's configuration but ours, no prompts, a wall-clock limit on every command.

Nothing that a repository holds or configures is executed: hooks, the file system monitor and credential helpers are
pinned on the command line, and there is no work tree, so that neither filters nor attributes apply.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from agent.base import processes
from agent.base.errors import ProcessTimeout, ReleaseError
from agent.base.logs import Log
from agent.release.passing import mark, passed
from agent.release.repository import Repository, Trouble, trouble_of

ATTEMPTS = 6
"""With the pauses between them about half a minute: what name resolution takes to be up after a boot."""
SLOW_BYTES = 1000
SLOW_SECONDS = 20
"""A transfer below this many bytes a second for this long is given up, while there is time for another attempt."""
KEEP_BYTES = 16 * 1024**2
"""No listing of refs or files that we accept is longer; a flood of either is not held in memory."""
LEAST_SECONDS = 0.1

_CREDENTIAL_HELPER = (
    '!f() { test "$1" = get || exit 0; printf "username=%s\\n" "$MAYFLY_GIT_USER";'
    ' test -z "${MAYFLY_GIT_PASSWORD+x}" || printf "password=%s\\n" "$MAYFLY_GIT_PASSWORD"; }; f'
)
_SSH = "ssh -oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=5 -oServerAliveCountMax=3"

PINNED = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.fsync": "all",
    "core.askPass": "",
    # Streamed to disk from this size on, so that a blob of gigabytes costs no memory.
    "core.bigFileThreshold": "16m",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    # A pack is synced to disk as a whole; loose objects would not be.
    "fetch.unpackLimit": "1",
    "gc.auto": "0",
    # A signature names its own kind, so that the programs of the other kinds are pinned as well.
    "gpg.format": "ssh",
    "gpg.program": "false",
    "gpg.openpgp.program": "false",
    "gpg.x509.program": "false",
    "gpg.ssh.program": "ssh-keygen",
    "gpg.ssh.defaultKeyCommand": "false",
    "gpg.minTrustLevel": "fully",
    "http.followRedirects": "initial",
    "http.lowSpeedLimit": str(SLOW_BYTES),
    "http.lowSpeedTime": str(SLOW_SECONDS),
    "maintenance.auto": "false",
    "protocol.version": "2",
}
"""What holds for every git command, whatever the mirror's own configuration says."""


class GitError(ReleaseError):
    """A git command failed.

    Attributes:
        trouble: What its complaint means.
    """

    def __init__(self, message: str, trouble: Trouble, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.trouble = trouble


class Git:
    """Runs git in a bare repository that the agent owns.

    Args:
        mirror: That repository; its `.gitconfig` is all of the global configuration there is.
        repository: The one it mirrors.
        environ: The agent's environment; git gets proxies, certificates and ssh settings of it, and nothing else.
        log: Gets an event for each attempt that is repeated.
    """

    def __init__(
        self, mirror: Path, repository: Repository, environ: Mapping[str, str], log: Log
    ) -> None:
        self._repository = repository
        self._log = log
        pins = dict(PINNED)
        if repository.user is not None:
            # For this one server: a redirect to another must not take the password along.
            pins[f"credential.{repository.server}.helper"] = _CREDENTIAL_HELPER
        options = (part for key, value in pins.items() for part in ("-c", f"{key}={value}"))
        self.command = ("git", f"--git-dir={mirror}", *options)
        self.environ = _environment(mirror, repository, environ)

    async def local(self, *arguments: str, seconds: float, stdin: bytes | None = None) -> bytes:
        """Return what a command that needs no network printed.

        Raises:
            GitError: It failed or took longer than `seconds`.
        """
        return await self._run(arguments, self.environ, seconds, stdin)

    async def verify(
        self, kind: str, oid: str, signers: Path, *, seconds: float
    ) -> tuple[bool, str]:
        """Return whether git and ssh-keygen accept an object's signature, and what they said.

        A key counts with the validity that `signers` gives it at the time that the object says it was made.

        Args:
            kind: `tag` or `commit`.
            oid: The object, which the mirror has.
            signers: The allowed_signers file, absolute.
            seconds: Limit of it.

        Raises:
            GitError: It could not be asked, or took too long.
        """
        pin = f"gpg.ssh.allowedSignersFile={signers}"
        command = (*self.command, "-c", pin, f"verify-{kind}", "--raw", oid)
        done = await self._finished(f"verify-{kind}", command, self.environ, seconds)
        return done.code == 0, done.stderr.decode(errors="replace")

    async def network(self, *arguments: str, until: float) -> bytes:
        """Return what a command that asks the repository printed; what was unreachable is asked again.

        Args:
            arguments: The command.
            until: When the last attempt must have ended, on the event loop's clock.

        Raises:
            GitError: It failed.
        """
        # 70 ms that a run without a new release would otherwise spend at its start.
        from tenacity import (  # noqa: PLC0415
            AsyncRetrying,
            retry_if_exception,
            stop_after_attempt,
            stop_before_delay,
            wait_random_exponential,
        )

        environ = self.environ | _credentials(self._repository, self.environ)
        attempts = AsyncRetrying(
            retry=retry_if_exception(_worth_another),
            stop=stop_after_attempt(1 if self._repository.local else ATTEMPTS)
            | stop_before_delay(max(0.0, until - _now())),
            wait=wait_random_exponential(multiplier=1, max=10),
            before_sleep=lambda state: self._log.info(
                "release.retry",
                attempt=state.attempt_number,
                reason=str(state.outcome.exception()) if state.outcome else "",
            ),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                return await self._run(arguments, environ, until - _now())
        raise AssertionError("tenacity ends with a result or an error")

    async def _run(
        self,
        arguments: tuple[str, ...],
        environ: Mapping[str, str],
        seconds: float,
        stdin: bytes | None = None,
    ) -> bytes:
        action = f"git {arguments[0]}"
        command = (*self.command, *arguments)
        done = await self._finished(action, command, environ, seconds, stdin)
        if done.code != 0:
            raise _failure(action, done)
        if len(done.stdout) >= KEEP_BYTES:
            raise GitError(f"{action}: the answer has no end", Trouble.OTHER)
        return done.stdout

    async def _finished(
        self,
        action: str,
        command: tuple[str, ...],
        environ: Mapping[str, str],
        seconds: float,
        stdin: bytes | None = None,
    ) -> processes.Finished:
        try:
            return await processes.run(
                command,
                environ=environ,
                seconds=max(LEAST_SECONDS, seconds),
                stdin=stdin,
                keep=KEEP_BYTES,
            )
        except ProcessTimeout as error:
            raise GitError(
                f"unreachable: {action} did not end within {seconds:.0f} s",
                Trouble.UNREACHABLE,
                remedy="look at the network, or raise release.timeout",
            ) from error
        except OSError as error:
            raise GitError(
                f"git could not be started: {error}", Trouble.OTHER, remedy="install git"
            ) from error


def _worth_another(error: BaseException) -> bool:
    return isinstance(error, GitError) and error.trouble is Trouble.UNREACHABLE


def _failure(action: str, done: processes.Finished) -> GitError:
    trouble = trouble_of(done.stderr.decode(errors="replace"))
    remedy = {
        Trouble.REFUSED: "check the credentials in release.repository, or the machine's key and known hosts",
        Trouble.MISSING: "check release.repository and that its host lets this machine in",
    }
    what = "" if trouble is Trouble.OTHER else f"{trouble.value}: "
    return GitError(
        f"{what}{action}: {done.complaint or f'exit code {done.code}'}",
        trouble,
        remedy=remedy.get(trouble, ""),
    )


def _environment(
    mirror: Path, repository: Repository, environ: Mapping[str, str]
) -> dict[str, str]:
    return passed(environ, _PASSED) | {
        # Also where older versions of git look for their global configuration.
        "HOME": str(mirror),
        "GIT_CONFIG_GLOBAL": str(mirror / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": repository.protocols,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_SSH_COMMAND": environ.get("GIT_SSH_COMMAND", _SSH),
        "LC_ALL": "C",
        **mark(mirror),
    }


_PASSED = (
    *("GIT_ASKPASS", "GIT_PROXY_SSL_CAINFO", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
    *("SSH_AUTH_SOCK", "USER", "LOGNAME"),
)
"""What an operator may say to git, beside what every program gets."""


def _credentials(repository: Repository, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the credential helper reads: in one process's environment, and nowhere else."""
    if repository.user is None:
        return {}
    named = {"MAYFLY_GIT_USER": repository.user}
    if repository.password is None and "GIT_ASKPASS" in environ:
        return named
    # A token alone may stand where the user name does, with no password at all.
    return named | {"MAYFLY_GIT_PASSWORD": repository.password or ""}


def _now() -> float:
    return asyncio.get_running_loop().time()
