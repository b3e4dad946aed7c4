"""A job with very many files: memory stays flat."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MORE_MIB = 24.0
"""What the peak may be above that of a thousand files: pages of the database, an upload of parts, a listing's page."""
PROGRAM = """
import asyncio, json, re, sys
from pathlib import Path
from tests.delivery.world import World, folder_bucket

async def main(root, count):
    world = World.make(root / "state", folder_bucket(root / "bucket"))
    async with world.under_way("a") as delivery:
        space = world.run.workspace("a", 1)
        space.make()
        for number in range(count):
            folder = space.output / str(number // 500)
            folder.mkdir(exist_ok=True)
            (folder / f"file-{number}").write_bytes(b"%d" % number)
        await delivery.ended(world.finished("a"))
        assert await delivery.flush(3000) == []
        files = world.run.jobs()[0].entry.files
        await delivery.close(world.record(), [], keeps_disk=True)
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\\s+([0-9]+)", status)[1]) / 1024
    print(json.dumps([files, peak]))

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def _peak(folder: Path, count: int) -> float:
    """Return the peak memory, in MiB, of a delivery of so many files."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr.decode()
    files, peak = json.loads(done.stdout)
    assert files == count
    return float(peak)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    """A package of thirty megabytes, in pieces."""
    few, many = _peak(tmp_path / "few", 1000), _peak(tmp_path / "many", 100_000)
    print(f"peak memory: {few:.0f} MiB with 1,000 files, {many:.0f} MiB with 100,000")
    assert many - few < MORE_MIB
