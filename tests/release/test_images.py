"""The browser's image that a release pins by its digest: had from a registry, or the last good release runs."""

import json
from collections.abc import Iterator

import pytest

from agent.base.logs import RunLogger
from agent.config.settings import Browser, Release
from agent.release.context import ReleaseContext
from agent.release.obtain import Obtained, obtain
from tests.parts.docker_engine import DockerEngine
from tests.parts.repo import Repo
from tests.release.conftest import JOBS, VERSION, Computer
from tests.release.registry import Registry

BROWSER_JOBS = JOBS + "browser = true\n"


@pytest.fixture
def registry(docker_engine: DockerEngine) -> Iterator[Registry]:
    """A registry, whose image the engine does not keep."""
    with Registry() as registry:
        yield registry
        docker_engine.docker("rmi", registry.name)


async def take(computer: Computer, docker: DockerEngine, pull_seconds: float = 60.0) -> Obtained:
    """Obtain the newest release where the engine is the one of the tests."""
    log = RunLogger(computer.events.append).log
    environ = {**computer.environ, **docker.environ}
    return await obtain(
        ReleaseContext(
            settings=Release.model_validate({"repository": computer.repository}),
            release_store=computer.release_store,
            memory=computer.remembered(),
            environ=environ,
            version=VERSION,
            now=computer.now,
            log=log,
            browser=Browser(),
            pull_seconds=pull_seconds,
        )
    )


async def publish(computer: Computer, repo: Repo, registry: Registry) -> str:
    """Publish a release that pins the image, after a good one; return the good one's commit."""
    good = repo.release("v1.0", {"jobs.toml": JOBS})
    await computer.run_well()
    repo.release("v2.0", {"jobs.toml": f'[browser]\nimage = "{registry.name}"\n\n{BROWSER_JOBS}'})
    return good


async def test_an_image_is_pulled_by_its_digest_and_once(
    computer: Computer, repo_builder: Repo, registry: Registry, docker_engine: DockerEngine
) -> None:
    """What the engine has then is what the digest says; it is noted, for the clean-up, and not asked for again."""
    await publish(computer, repo_builder, registry)
    obtained = await take(computer, docker_engine)
    assert (obtained.release.ref, obtained.on_trial, obtained.stale) == ("v2.0", True, None)
    inspected = docker_engine.docker("image", "inspect", registry.name).stdout
    assert registry.image.digest in json.loads(inspected)[0]["RepoDigests"][0]
    assert computer.remembered().images == (registry.name,)
    asked = len(registry.asked)
    assert (await take(computer, docker_engine)).release.ref == "v2.0"
    assert len(registry.asked) == asked


@pytest.mark.parametrize("where", ["manifests", "blobs"])
async def test_a_pull_that_stalls_costs_its_limit_and_the_release(
    computer: Computer,
    repo_builder: Repo,
    registry: Registry,
    docker_engine: DockerEngine,
    where: str,
) -> None:
    """The last good release runs; the new one is not bad, and is taken as soon as its image can be had."""
    good = await publish(computer, repo_builder, registry)
    registry.stalls = where
    obtained = await take(computer, docker_engine, pull_seconds=3.0)
    assert (obtained.release.commit, obtained.on_trial) == (good, False)
    (refused,) = obtained.record.refused
    assert (refused.ref, refused.kind) == ("v2.0", "install")
    assert registry.name in refused.reason
    assert "did not end within 3 s" in refused.reason
    assert computer.remembered().known.bad == ()
    registry.wakes()
    assert (await take(computer, docker_engine)).release.ref == "v2.0"


async def test_what_is_not_the_digests_image_is_refused(
    computer: Computer, repo_builder: Repo, registry: Registry, docker_engine: DockerEngine
) -> None:
    """A registry that gives something else under the digest gives nothing."""
    good = await publish(computer, repo_builder, registry)
    registry.forges = True
    obtained = await take(computer, docker_engine)
    assert obtained.release.commit == good
    assert [refused.kind for refused in obtained.record.refused] == ["install"]
    assert docker_engine.docker("image", "inspect", registry.name).returncode != 0
