"""Credentials for private repositories, registries and indexes: read when first needed, hidden in every log."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from agent.config.settings import Settings
from agent.secrets.docker import client_folder, ecr_login
from agent.secrets.private import GitLogin, git_login, parse_git_file
from agent.secrets.registries import Login, index_variables, login_from, needed
from agent.secrets.sources import read_credentials

Hide = Callable[[Mapping[str, str]], None]


class Keyring:
    """The credentials of repository, registries and package indexes.

    What could not be read is read again at the next need; what was read is kept, so that a run sees one state. `hide`
    gets each secret before it is used.
    """

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], hide: Hide = lambda _: None
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._hide = hide
        self._git: GitLogin | None = None
        self._logins: dict[str, Login] = {}
        self._reading = asyncio.Lock()

    async def git(self) -> GitLogin | None:
        """Return the repository's credentials; None leaves it to git and ssh of this user.

        Raises:
            SecretsError: They could not be read, or are invalid.
        """
        source = self._settings.release.credentials
        if source is None:
            return None
        async with self._reading:
            if self._git is None:
                key = "release.credentials"
                found = await read_credentials(source, key, self._environ, parse_git_file)
                login = git_login(found, source)
                self._hide(login.secrets)
                self._git = login
            return self._git

    async def registry(self, host: str) -> Login:
        """Return the login of a registry: the configured one, or for ECR the role's.

        Raises:
            SecretsError: There is none.
        """
        entry = self._settings.registry.get(host)
        if entry is None:
            return await self._login(f"registry {host}", lambda: ecr_login(host, self._environ))
        return await self._stored("registry", host, entry.credentials)

    async def indexes(self) -> dict[str, str]:
        """Return the variables by which uv logs in to the configured indexes.

        Raises:
            SecretsError: A login could not be read.
        """
        entries = self._settings.index.items()
        return index_variables(
            {name: await self._stored("index", name, one.credentials) for name, one in entries}
        )

    async def _stored(self, section: str, name: str, source: str) -> Login:
        async def read() -> Login:
            key = f'{section}."{name}".credentials'
            return login_from(await read_credentials(source, key, self._environ), source)

        return await self._login(f"{section} {name}", read)

    async def _login(self, name: str, read: Callable[[], Awaitable[Login]]) -> Login:
        async with self._reading:
            if name not in self._logins:
                login = await read()
                self._hide({name: login.password})
                self._logins[name] = login
            return self._logins[name]

    @asynccontextmanager
    async def docker(
        self, images: Iterable[str], builds: Iterable[str] = ()
    ) -> AsyncIterator[Path | None]:
        """Yield a folder for `docker --config` with the logins for `images` and for those named in `builds`, if any.

        Raises:
            SecretsError: A login could not be read.
        """
        hosts = needed(images, builds, self._settings.registry)
        if not hosts:
            yield None
            return
        logins = {host: await self.registry(host) for host in hosts}
        with client_folder(logins, self._environ) as folder:
            yield folder
