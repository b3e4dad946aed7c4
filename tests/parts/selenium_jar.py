"""The Selenium server, as `install.sh` puts it into the cache folder."""

from pathlib import Path

from tests.parts.cache import cache_folder
from tests.parts.missing import MissingPartError

VERSION = "4.48.0"


def selenium_jar() -> Path:
    """The path of the server's archive."""
    jar = cache_folder() / f"selenium-server-{VERSION}.jar"
    if not jar.exists():
        raise MissingPartError(jar.name)
    return jar
