"""git, as the agent runs it: no configuration but ours, no prompts, a wall-clock limit on every command.

Nothing that a repository holds or configures is executed: hooks, the file system monitor and credential helpers are
pinned on the command line, and there is no work tree, so that neither filters nor attributes apply.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.base import processes
from agent.base.errors import (
    ProcessOverflow,
    ProcessTimeout,
    ReleaseError,
    SecretsError,
    SecretsUnreachable,
)
from agent.base.logs import Log
from agent.base.redact import Redactor
from agent.release.repository import (
    Repository,
    Trouble,
    answer_for,
    login_mismatch,
    meaning_of,
    trouble_of,
)
from agent.release.ssh import deploy_key, ssh_command
from agent.secrets.private import GitLogin

ReadLogin = Callable[[], Awaitable[GitLogin | None]]

ATTEMPTS = 6
"""With the pauses they take about half a minute: name resolution may need that long after a boot."""
SLOW_BYTES = 1000
SLOW_SECONDS = 20
"""A transfer below this many bytes a second for this long is aborted, while there is time for a retry."""
LEAST_SECONDS = 0.1
MARK = "MAYFLY_RELEASES_BESIDE"
"""Variable of git and uv, with the mirror's path: by it, programs of a killed agent are found and ended."""

_CREDENTIAL_HELPER = '!f() { test "$1" = get || exit 0; cat "/dev/fd/$MAYFLY_GIT_LOGIN"; }; f'
"""Prints a pipe that git's processes inherit, so that no argument, variable or file has the login."""

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
"""Options of every git command, whatever the mirror's own configuration says."""


class GitError(ReleaseError):
    """A git command failed; `trouble` is what its complaint means."""

    def __init__(self, message: str, trouble: Trouble, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.trouble = trouble


class Git:
    """Runs git in a bare repository that the agent owns.

    Args:
        mirror: That repository; its `.gitconfig` is the whole global configuration.
        repository: The repository that it mirrors.
        environ: The agent's environment; git gets only proxies, certificates and ssh settings of it.
        seconds: Limit of each command that needs no network.
        log: Gets an event for each retry.
        login: Reads the repository's credentials when it is asked; None leaves them to git and ssh of this user.
    """

    def __init__(
        self,
        mirror: Path,
        repository: Repository,
        environ: Mapping[str, str],
        *,
        seconds: float,
        log: Log,
        login: ReadLogin | None = None,
    ) -> None:
        self.mirror = mirror
        self.repository = repository
        self.seconds = seconds
        self.log = log
        self.login = login
        pins = dict(PINNED)
        if repository.server:
            # For this one server: a redirect to another must not take the password along.
            pins[f"credential.{repository.server}.helper"] = _CREDENTIAL_HELPER
        options = (part for key, value in pins.items() for part in ("-c", f"{key}={value}"))
        self.command = ("git", f"--git-dir={mirror}", *options)
        self.environ = _environment(mirror, repository, environ)

    async def local(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        """Return the output of a command that needs no network.

        Raises:
            GitError: It failed or took too long.
        """
        return (await self._run(arguments, self.environ, self.seconds, stdin=stdin)).stdout

    async def verify(self, kind: str, oid: str, signers: Path) -> tuple[bool, str]:
        """Return whether git and ssh-keygen accept an object's signature, and their output.

        A key counts with the validity that the allowed_signers file `signers` (absolute) gives it at the object's own
        time. `kind` is `tag` or `commit`; the mirror has the object.

        Raises:
            GitError: git could not be started, or took too long.
        """
        pin = f"gpg.ssh.allowedSignersFile={signers}"
        arguments = ("-c", pin, f"verify-{kind}", "--raw", oid)
        done = await self._run(arguments, self.environ, self.seconds, check=False)
        return done.code == 0, done.stderr.decode(errors="replace")

    async def network(self, *arguments: str, until: float) -> bytes:
        """Return the output of a command that asks the repository; it is retried while that is unreachable.

        No attempt outlasts `until`, on the event loop's clock.

        Raises:
            GitError: It failed.
        """
        # Imported here: it takes 30 ms, and what asks no repository does without.
        from tenacity import (  # noqa: PLC0415
            AsyncRetrying,
            retry_if_exception,
            stop_after_attempt,
            stop_before_delay,
            wait_random_exponential,
        )

        attempts = AsyncRetrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, GitError) and error.trouble is Trouble.UNREACHABLE
            ),
            stop=stop_after_attempt(1 if self.repository.local else ATTEMPTS)
            | stop_before_delay(max(0.0, until - _now())),
            wait=wait_random_exponential(multiplier=1, max=10),
            before_sleep=lambda state: self.log.info(
                "release.retry",
                attempt=state.attempt_number,
                reason=str(state.outcome.exception()) if state.outcome else "",
            ),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                return await self._ask(arguments, until)
        raise AssertionError("tenacity ends with a result or an error")

    async def _ask(self, arguments: tuple[str, ...], until: float) -> bytes:
        login = await self._read_login(until)
        if login is not None and login.key:
            try:
                async with deploy_key(login, self.environ) as ssh:
                    seconds = until - _now()
                    environ = self.environ | ssh
                    done = await self._run(arguments, environ, seconds, login=login, network=True)
                    return done.stdout
            except GitError:
                raise
            except ReleaseError as error:
                raise GitError(str(error), Trouble.REFUSED, remedy=error.remedy) from error
        with _piped(answer_for(self.repository, login, self.environ)) as (variables, pipes):
            environ = self.environ | variables
            seconds = until - _now()
            done = await self._run(
                arguments, environ, seconds, pipes=pipes, login=login, network=True
            )
            return done.stdout

    async def _read_login(self, until: float) -> GitLogin | None:
        if self.repository.local or self.login is None:
            return None
        try:
            async with asyncio.timeout_at(until):
                login = await self.login()
        except TimeoutError as error:
            said = "reading the repository's credentials timed out"
            raise GitError(f"unreachable: {said}", Trouble.UNREACHABLE) from error
        except SecretsError as error:
            passing = isinstance(error, SecretsUnreachable)
            trouble = Trouble.UNREACHABLE if passing else Trouble.REFUSED
            raise GitError(f"{trouble.value}: {error}", trouble, remedy=error.remedy) from error
        mismatch = None if login is None else login_mismatch(self.repository, login)
        if mismatch is not None:
            problem, remedy = mismatch
            raise GitError(f"refused: {problem}", Trouble.REFUSED, remedy=remedy)
        return login

    async def _run(
        self,
        arguments: tuple[str, ...],
        environ: Mapping[str, str],
        seconds: float,
        *,
        stdin: bytes | None = None,
        pipes: Sequence[int] = (),
        login: GitLogin | None = None,
        network: bool = False,
        check: bool = True,
    ) -> processes.Finished:
        action, seconds = action_of(arguments), max(LEAST_SECONDS, seconds)
        try:
            done = await processes.run(
                (*self.command, *arguments),
                environ=environ,
                seconds=seconds,
                stdin=stdin,
                limited=True,  # no valid listing of refs or files is so long
                keeps_open=pipes,
            )
        except ProcessTimeout as error:
            trouble = Trouble.UNREACHABLE if network else Trouble.STUCK
            what = "network" if network else "disk of this machine"
            raise GitError(
                f"{trouble.value}: {action} did not end within {seconds:.0f} s",
                trouble,
                remedy=f"check the {what}, or raise release.timeout",
            ) from error
        except ProcessOverflow as error:
            raise GitError(f"{action}: {error}", Trouble.ENDLESS) from error
        except OSError as error:
            raise GitError(
                f"git could not be started: {error}", Trouble.OTHER, remedy="install git"
            ) from error
        if check and done.code != 0:
            raise _failure(action, done, login)
        return done


def action_of(arguments: Sequence[str]) -> str:
    """Return `git` with the subcommand, for messages; options with their values stand before it."""
    return f"git {next(word for word in arguments if not word.startswith('-') and '=' not in word)}"


def _failure(action: str, done: processes.Finished, login: GitLogin | None) -> GitError:
    said = done.stderr.decode(errors="replace")
    trouble = trouble_of(said)
    meaning, remedy = meaning_of(said, trouble, with_login=login is not None)
    parts = ("" if trouble is Trouble.OTHER else trouble.value, action, meaning)
    # A server may repeat what it was sent.
    complaint = Redactor(login.secrets if login else {}).text(done.complaint)
    return GitError(
        ": ".join(filter(None, (*parts, complaint or f"exit code {done.code}"))),
        trouble,
        remedy=remedy,
    )


@contextmanager
def _piped(text: str | None) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Put a text into a pipe; yield the variable that names its end, and the descriptor to keep open."""
    if text is None:
        yield {}, ()
        return
    reading, writing = os.pipe()
    try:
        # Nobody reads yet: writing to a full pipe would never return.
        os.set_blocking(writing, False)
        data = text.encode()
        try:
            whole = os.write(writing, data) == len(data)
        finally:
            os.close(writing)
        if not whole:
            raise GitError(
                f"refused: a login of {len(data)} bytes is longer than any server's",
                Trouble.REFUSED,
            )
        yield {"MAYFLY_GIT_LOGIN": str(reading)}, (reading,)
    finally:
        os.close(reading)


def _environment(
    mirror: Path, repository: Repository, environ: Mapping[str, str]
) -> dict[str, str]:
    return allowed(environ, _ALLOWED) | {
        # Older versions of git look for their global configuration here.
        "HOME": str(mirror),
        "GIT_CONFIG_GLOBAL": str(mirror / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": repository.protocols,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_SSH_COMMAND": environ.get("GIT_SSH_COMMAND", ssh_command()),
        "LC_ALL": "C",
        MARK: str(mirror),
    }


def allowed(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the variables that git and uv get, and those of `names`, as far as they are set: never a secret."""
    wanted = {"PATH": os.defpath} | dict(environ)
    return {name: wanted[name] for name in (*_ALWAYS, *names) if name in wanted}


_ALWAYS = (
    *("PATH", "TMPDIR", "TZ"),
    *("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"),
    *("NO_PROXY", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"),
)
_ALLOWED = (
    *("GIT_ASKPASS", "GIT_PROXY_SSL_CAINFO", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
    *("SSH_AUTH_SOCK", "USER", "LOGNAME"),
)
"""Variables of an operator for git, besides those that every program gets."""


def _now() -> float:
    return asyncio.get_running_loop().time()
