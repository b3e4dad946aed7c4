"""The browser's image that a release pins by its digest: had from a registry, or the last good release runs."""

import json
from collections.abc import Iterator

import pytest

from agent.config.settings import Browser
from tests.parts.docker_engine import DockerEngine
from tests.release.conftest import JOBS, Computer, kinds
from tests.release.registry import Registry


@pytest.fixture
def registry(docker_engine: DockerEngine) -> Iterator[Registry]:
    """A registry, whose image the engine does not keep."""
    with Registry() as registry:
        yield registry
        docker_engine.docker("rmi", registry.name)


@pytest.fixture
async def good(computer: Computer, registry: Registry, docker_engine: DockerEngine) -> str:
    """The commit of a good release, after which one is published that pins the image."""
    good = await computer.ran("v1.0")
    jobs = f'[browser]\nimage = "{registry.name}"\n\n{JOBS}browser = true\n'
    computer.publish("v2.0", {"jobs.toml": jobs})
    computer.environ |= docker_engine.environ
    computer.context["browser"] = Browser()
    return good


@pytest.mark.usefixtures("good")
async def test_an_image_is_pulled_by_its_digest_and_once(
    computer: Computer, registry: Registry, docker_engine: DockerEngine
) -> None:
    """What the engine has then is what the digest says; it is noted, for the clean-up, and not asked for again."""
    obtained = await computer.obtain()
    assert (obtained.release.ref, obtained.on_trial, obtained.stale) == ("v2.0", True, None)
    inspected = docker_engine.docker("image", "inspect", registry.name).stdout
    assert registry.digest in json.loads(inspected)[0]["RepoDigests"][0]
    assert computer.remembered().images == (registry.name,)
    asked = len(registry.asked)
    assert (await computer.obtain()).release.ref == "v2.0"
    assert len(registry.asked) == asked


@pytest.mark.parametrize("where", ["manifests", "blobs"])
async def test_a_pull_that_stalls_costs_its_limit_and_the_release(
    computer: Computer, good: str, registry: Registry, where: str
) -> None:
    """The last good release runs; the new one is not bad, and is taken as soon as its image can be had."""
    registry.stalls = where
    computer.context["pull_seconds"] = 3.0
    obtained = await computer.obtain()
    assert (obtained.release.commit, obtained.on_trial) == (good, False)
    (refused,) = obtained.record.refused
    assert (refused.ref, refused.kind) == ("v2.0", "install")
    assert registry.name in refused.reason
    assert "did not end within 3 s" in refused.reason
    assert computer.bad == []
    registry.wakes()
    computer.context["pull_seconds"] = 60.0
    assert (await computer.obtain()).release.ref == "v2.0"


async def test_what_is_not_the_digests_image_is_refused(
    computer: Computer, good: str, registry: Registry, docker_engine: DockerEngine
) -> None:
    """A registry that gives something else under the digest gives nothing."""
    registry.forges = True
    obtained = await computer.obtain()
    assert (obtained.release.commit, kinds(obtained)) == (good, ["install"])
    assert docker_engine.docker("image", "inspect", registry.name).returncode != 0
