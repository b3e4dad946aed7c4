"""The stand-in for docker-selenium's standalone image, built from Debian packages and the real Selenium server.

No registry is needed. The first build takes two to three minutes; its root file system is kept as an archive in the
cache folder, and the image in the engine.
"""

import hashlib
import os
import platform
import shutil
import tempfile
from pathlib import Path

from tests.parts.cache import cache_folder, one_at_a_time
from tests.parts.command import output_of
from tests.parts.docker_engine import DockerEngine
from tests.parts.missing import program
from tests.parts.selenium_jar import VERSION, selenium_jar

FILES = Path(__file__).parent / "selenium_image"
# A host name that can never exist (RFC 6761), so that nobody takes it for the real image or tries to pull it.
REPOSITORY = "mayfly.test/selenium/standalone-chromium"
ROOT_SECONDS = 900
IMPORT_SECONDS = 300


def image_name() -> str:
    """The image's name; its tag names the server's version, as the real one's does, and what it was built from."""
    digest = hashlib.sha256(platform.machine().encode())
    for file in sorted(FILES.iterdir()):
        digest.update(file.read_bytes())
    return f"{REPOSITORY}:{VERSION}-{digest.hexdigest()[:12]}"


def ensure_image(engine: DockerEngine) -> str:
    """The name of the image, built when the engine does not have it."""
    name = image_name()
    # Of two test runs one builds; the other waits for it, as long as a build may take.
    with one_at_a_time("selenium-image"):
        if not engine.has(name):
            _build(engine, name)
    return name


def _build(engine: DockerEngine, name: str) -> None:
    root_name = f"{REPOSITORY}-root:{_root_key()}"
    if not engine.has(root_name):
        engine.do("import", str(_root_archive()), root_name, seconds=IMPORT_SECONDS)
    with tempfile.TemporaryDirectory() as context:
        shutil.copytree(FILES, context, dirs_exist_ok=True)
        shutil.copy(selenium_jar(), Path(context) / "selenium-server.jar")
        engine.build(name, Path(context), "--build-arg", f"ROOT={root_name}")


def _root_key() -> str:
    recipe = (FILES / "build-root.sh").read_bytes() + platform.machine().encode()
    return hashlib.sha256(recipe).hexdigest()[:12]


def _root_archive() -> Path:
    """The archive of the root file system, built when the cache does not have it."""
    archive = cache_folder() / f"selenium-root-{_root_key()}.tar"
    if not archive.exists():
        program("mmdebstrap")
        build = [str(FILES / "build-root.sh"), str(archive)]
        output_of(build, environ={**os.environ, "LC_ALL": "C.UTF-8"}, seconds=ROOT_SECONDS)
    return archive


def main() -> None:
    """Build the image ahead of the tests, so that no test has to wait for it."""
    with DockerEngine() as engine:
        print(ensure_image(engine))


if __name__ == "__main__":
    main()
