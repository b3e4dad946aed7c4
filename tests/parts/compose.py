"""The composes: the plugin, as tests/parts/install.sh fetches it or as the machine has it, and the program of old."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.parts.cache import cache_folder
from tests.parts.missing import MissingPartError

CONFIG = "docker-config"
"""The folder in the cache that is `DOCKER_CONFIG` for tests that use the plugin."""


def with_plugin(environ: Mapping[str, str]) -> dict[str, str]:
    """What finds the plugin has in its environment.

    Raises:
        MissingPartError: It is neither in the cache nor installed.
    """
    config = cache_folder() / CONFIG
    found = {**environ, "DOCKER_CONFIG": str(config)} if config.is_dir() else dict(environ)
    done = subprocess.run(
        ["docker", "compose", "version"],
        env={**os.environ, **found},
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise MissingPartError("docker compose", "run tests/parts/install.sh")
    return found


def with_program(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What finds only `docker-compose` 1.29 has in its environment.

    Raises:
        MissingPartError: It is not installed.
    """
    if shutil.which("docker-compose") is None:
        raise MissingPartError("docker-compose", "run tests/parts/install.sh")
    return without_plugin(environ, folder)


def without_plugin(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What finds no plugin in its configuration has in its environment."""
    folder.mkdir(exist_ok=True)
    return {**environ, "DOCKER_CONFIG": str(folder)}
