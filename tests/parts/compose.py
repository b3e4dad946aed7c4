"""Docker compose: the plugin, as tests/parts/install.sh fetches it or as the machine has it."""

import os
import subprocess
from collections.abc import Mapping

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
