"""The machine of these tests: the image that `make image` builds, booted in QEMU.

`MAYFLY_TEST_DISK=/folder`, with `disk.qcow2`, `vmlinuz`, `initrd` and `key` in it, names an image that is there
already.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.machine.inside import STAY_UP, Inside, Row
from tests.parts.machine import Disk, Machine
from tests.parts.machine_disk import built_disk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder that boots a machine is marked, so that `make test` leaves it to its own target."""
    here = Path(__file__).parent
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if here in item.path.parents and "disk" in fixtures:
            item.add_marker("machine")


@pytest.fixture(scope="session")
def disk() -> Iterator[Disk]:
    """The image that machines boot from; built by Packer when its inputs have changed."""
    folder = os.environ.get("MAYFLY_TEST_DISK")
    with nullcontext(Disk.at(Path(folder))) if folder else built_disk() as image:
        yield image


@pytest.fixture
def machine(disk: Disk, tmp_path: Path) -> Iterator[Machine]:
    """A machine, not booted yet, that is killed at the end."""
    with Machine(disk, tmp_path / "machine") as one:
        yield one


@pytest.fixture(scope="session")
def inside(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """One machine for all these tests, with a metadata service beside it."""
    folder = tmp_path_factory.mktemp("inside")
    with Machine(disk, folder / "machine", memory=3072) as machine:
        machine.boot(append=STAY_UP)
        machine.wait_up()
        bench = Inside(machine, folder / "releases")
        machine.put(Path(__file__).with_name("metadata_stand_in.sh"), "/root")
        bench.sh("bash /root/metadata_stand_in.sh")
        bench.sh("mkdir -p -m 700 /etc/mayfly")
        bench.sh("install -m 600 /dev/stdin /etc/mayfly/secrets.env <<< TOKEN=CANARY")
        bench.sh("systemctl start docker.service mayfly-fence.service", seconds=600)
        yield bench


@pytest.fixture
def row(capsys: pytest.CaptureFixture[str]) -> Row:
    """Prints a row of the table of cases."""

    def show(case: str, seen: object) -> None:
        with capsys.disabled():
            print(f"| {case} | {seen} |")

    return show
