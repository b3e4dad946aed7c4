"""The temporary configuration of docker's client."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.base.errors import SecretsError
from agent.secrets.docker import client_folder
from agent.secrets.registries import Login

LOGINS = {"ghcr.io": Login("me", "hunter2-canary")}


def test_the_users_own_plugins_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DOCKER_CONFIG` may be relative; only this user can read what has the password."""
    plugins = tmp_path / "own" / "cli-plugins"
    plugins.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    environ = {"DOCKER_CONFIG": "own", "XDG_RUNTIME_DIR": str(tmp_path)}
    with client_folder(LOGINS, environ) as folder:
        assert (folder / "cli-plugins").resolve() == plugins
        assert (folder / "config.json").stat().st_mode & 0o077 == 0
    assert not folder.exists()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow within the block."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_nothing_is_an_expected_failure(tmp_path: Path) -> None:
    """A run without its container goes on; nothing is left."""
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    with (
        pytest.raises(SecretsError, match="docker's client cannot be given a login") as caught,
        full_disk(),
        client_folder(LOGINS, environ),
    ):
        pass
    assert "make room" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
