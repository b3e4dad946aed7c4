"""Docker compose: the plugin, as tests/parts/install.sh fetches it or as the machine has it."""

import os
from collections.abc import Mapping

from tests.parts.cache import cache_folder
from tests.parts.command import completed
from tests.parts.missing import MissingPartError

CONFIG = "docker-config"
"""The folder in the cache that is `DOCKER_CONFIG` for tests that use the plugin."""


def with_plugin(environ: Mapping[str, str]) -> dict[str, str]:
    """What finds the plugin has in its environment."""
    config = cache_folder() / CONFIG
    found = {**environ, "DOCKER_CONFIG": str(config)} if config.is_dir() else dict(environ)
    done = completed(["docker", "compose", "version"], environ={**os.environ, **found})
    if done.returncode != 0:
        raise MissingPartError("docker compose", "run tests/parts/install.sh")
    return found
