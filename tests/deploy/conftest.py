"""The images and the bucket that the tests of deployments share."""

import pytest

from tests.consumer.conftest import folder
from tests.deploy.images import FLEET, HOME, build_image
from tests.parts.docker_engine import DockerEngine

__all__ = ["folder"]


@pytest.fixture(scope="session")
def home_image(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the home image, built from this checkout."""
    return build_image(HOME, docker_engine, tmp_path_factory.mktemp("home-image"))


@pytest.fixture(scope="session")
def fleet_image(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the image of a shard, built from this checkout."""
    return build_image(FLEET, docker_engine, tmp_path_factory.mktemp("fleet-image"))
