"""An AWS with real machines, and the image that the real Packer builds in it.

`MAYFLY_TEST_CLOUD_IMAGE=/folder` names an image that is there already: its `disk.qcow2`, and the `server.pem` and
`server.key` of the room in which it was made.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.image import build_image
from tests.cloud.releases import CONFIG, WHICH, publish
from tests.cloud.world import World, world
from tests.parts.certificate import Certificate
from tests.parts.ec2.base import base_disk

MADE = Path(name) if (name := os.environ.get("MAYFLY_TEST_CLOUD_IMAGE")) else None


@pytest.fixture(scope="session")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world; the time line of its machines is printed at its end."""
    trusted = Certificate(MADE / "server.pem", MADE / "server.key") if MADE else None
    with base_disk() as base, world(tmp_path_factory.mktemp("cloud"), base, trusted) as one:
        yield one
        print("\n" + "\n".join(one.room.told))


@pytest.fixture(scope="session")
def image(around: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the image, with a release baked in."""
    publish(around.repo, "v1.0.0", WHICH)
    if MADE:
        return around.room.register(MADE / "disk.qcow2")
    folder: Path = tmp_path_factory.mktemp("image")
    before = len(around.room.asked)
    made = build_image(around.room, CONFIG, folder / "build")
    around.asked_by_packer = around.room.asked[before:]
    around.room.say(f"Packer made {made}")
    return made
