"""Clean-up after the commit: old releases, images and caches go; what a run may need stays."""

import json
from pathlib import Path

import pytest

from tests.parts.docker_engine import DockerEngine
from tests.run.bench import Bench, job

JOB = job("only", "echo x > $MAYFLY_OUTPUT_DIR/file")


def releases(bench: Bench) -> set[str]:
    """Return the refs of the releases on disk."""
    markers = (bench.state / "releases").glob("*/release.json")
    return {json.loads(marker.read_text())["ref"] for marker in markers}


def publish(bench: Bench, *versions: str) -> None:
    """Publish versions, each a little larger than a megabyte, and run each."""
    for version in versions:
        bench.release(version, JOB, {"data": version * 300_000})
        bench.run(code=0)


@pytest.mark.long
def test_the_newest_good_releases_stay_while_all_fits_on_the_disk(bench: Bench) -> None:
    """Two former good ones for an operator, and the image's; with no room even these go, and the mirror is emptied."""
    publish(bench, "v1.0")
    (bench.state / "baked").symlink_to(Path("releases", bench.good.name))
    publish(bench, "v2.0", "v3.0", "v4.0", "v5.0")
    kept = {"v1.0", "v3.0", "v4.0", "v5.0"}
    assert releases(bench) == kept
    (bench.state / "baked").unlink()
    bench.settings["limits.disk"] = "1kB"
    bench.run(code=0)
    assert releases(bench) == kept - {"v1.0"}  # nothing new came, and nothing is measured
    publish(bench, "v6.0")
    assert releases(bench) == {"v6.0"}
    assert not list((bench.state / "mirror.git").rglob("*.pack"))
    publish(bench, "v7.0")  # it comes all the same
    assert releases(bench) == {"v7.0"}


@pytest.mark.long
def test_what_is_dear_goes_last(bench: Bench) -> None:
    """Former good releases, the older first, then uv's cache, then the mirror; what fits then stays."""
    publish(bench, "v1.0", "v2.0", "v3.0")
    caches = [bench.state / "cache" / "uv" / "wheel", bench.state / "mirror.git" / "pack"]
    for file in caches:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(2_000_000))
    steps: tuple[tuple[str, str, set[str], list[Path]], ...] = (
        ("v4.0", "7MB", {"v3.0", "v4.0"}, caches),
        ("v5.0", "5.5MB", {"v5.0"}, caches),
        ("v6.0", "4MB", {"v6.0"}, caches[1:]),
        ("v7.0", "2MB", {"v7.0"}, []),
    )
    for version, limit, left, files in steps:
        bench.settings["limits.disk"] = limit
        publish(bench, version)
        assert (releases(bench), [file for file in caches if file.exists()]) == (left, files)


def test_images_that_releases_brought_go_with_them(
    bench: Bench, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    """Only what the agent fetched for a release is removed, once no release on disk pins it."""
    bench.environ |= docker_engine.environ
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    names = ["mayfly-test/ours:1", "mayfly-test/theirs:1"]
    for name in names:
        docker_engine.docker("import", str(tmp_path / "empty.tar"), name)
    publish(bench, "v1.0")
    record = bench.state / "releases" / "known.json"
    memory = json.loads(record.read_text())
    record.write_text(json.dumps({**memory, "images": ["mayfly-test/ours:1"]}))
    bench.run(code=0)
    listed = docker_engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout
    assert names[0] not in listed
    assert names[1] in listed
    docker_engine.docker("rmi", names[1])
    assert json.loads(record.read_text())["images"] == []
