"""An AWS with real machines, and the image that the real Packer builds in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.image import build_image
from tests.cloud.releases import CONFIG, WHICH, publish
from tests.cloud.world import World, world
from tests.parts.ec2.base import base_disk


@pytest.fixture(scope="session")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world; the time line of its machines is printed at its end."""
    with base_disk() as base, world(tmp_path_factory.mktemp("cloud"), base) as one:
        yield one
        print("\n" + "\n".join(one.room.told))


@pytest.fixture(scope="session")
def image(around: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the image, with a release baked in."""
    publish(around.repo, "v1.0.0", WHICH)
    folder: Path = tmp_path_factory.mktemp("image")
    made = build_image(around.room, CONFIG, folder / "build")
    around.room.say(f"Packer made {made}")
    return made
