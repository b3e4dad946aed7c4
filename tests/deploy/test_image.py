"""The home image in the real container engine: built from the Dockerfile, and run with as few rights as there are."""

import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.entries import leave_run
from tests.deploy.tools import REPOSITORY
from tests.parts.docker_engine import DockerEngine
from tests.parts.program import answers
from tests.parts.waiting import wait_until

DOCKERFILE = REPOSITORY / "deploy" / "home" / "Dockerfile"
SECONDS = 60
STARTED = datetime.now(UTC) - timedelta(days=1)
# The first build makes a root file system and fetches packages, which takes minutes where the machine is busy.
pytestmark = pytest.mark.timeout(900)
NO_RIGHTS = (
    "--read-only",
    *("--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),
    *("--tmpfs", "/tmp"),
)


def test_the_dockerfile_names_the_locked_uv() -> None:
    """The uv that installs is the one that locked, and no image is `latest`."""
    named = re.search(r"ARG UV=\S+:(\S+)", DOCKERFILE.read_text("utf-8"))
    locked = re.search(
        r'name = "uv"\nversion = "(.+)"', (REPOSITORY / "uv.lock").read_text("utf-8")
    )
    assert named
    assert locked
    assert named[1] == locked[1]
    assert ":latest" not in DOCKERFILE.read_text("utf-8")


@pytest.mark.long
def test_it_serves_and_pulls_without_any_rights(
    docker_engine: DockerEngine, home_image: str, folder: Bucket, tmp_path: Path
) -> None:
    """As nobody, on a read-only root, it reads the bucket, is healthy, exports metrics, pulls, and ends when told."""
    run = leave_run(folder.objects, STARTED).run
    options = [*NO_RIGHTS, *with_bucket(tmp_path), "--env", "TZ=Asia/Tokyo"]
    with running(docker_engine, home_image, *options) as (name, url):
        wait_until(lambda: answers(f"{url}/healthz"), seconds=SECONDS, what="health")
        seen = (
            'mayfly_run_last_status{bucket="file:///bucket",schedule="main",status="succeeded"} 1.0'
        )
        wait_until(lambda: seen in text(f"{url}/metrics"), seconds=SECONDS, what="the run")
        assert answers(f"{url}/")

        def pulled() -> bool:
            listing = docker_engine.docker("exec", name, "ls", "/data/scraped/quotes")
            return listing.stdout.startswith(run)

        wait_until(pulled, seconds=SECONDS, what="the pull")
        assert docker_engine.do("exec", name, "id", "-u") == "10001\n"
        assert docker_engine.docker("exec", name, "touch", "/opt/mayfly/x").returncode != 0
        docker_engine.do("stop", "--time", "60", name)
        assert docker_engine.do("inspect", "-f", "{{.State.ExitCode}}", name) == "0\n"


@pytest.mark.long
def test_it_pulls_once_and_ends(
    docker_engine: DockerEngine, home_image: str, folder: Bucket, tmp_path: Path
) -> None:
    """The same image pulls by itself, as the CronJob has it do."""
    run = leave_run(folder.objects, STARTED).run
    options = [*NO_RIGHTS, *with_bucket(tmp_path), "--env", "TZ=Asia/Tokyo"]
    pull = ("run", "--rm", "--network", "none", *options, home_image, "pull", "/data/scraped")
    assert run in docker_engine.do(*pull, "--json")


@pytest.mark.long
def test_it_has_what_home_needs_and_no_more(docker_engine: DockerEngine, home_image: str) -> None:
    """No AWS, no uv, no shell of its own as its command; it names its port, its user and its health."""
    listing = ["run", "--rm", "--network", "none", "--entrypoint", "ls", home_image]
    packages = docker_engine.do(*listing, "/opt/mayfly/lib/python3.11/site-packages")
    assert not {"boto3", "botocore", "uv"} & set(packages.split())
    assert {"consumer", "prometheus_client", "obstore"} <= set(packages.split())
    form = "{{.Config.User}} {{.Config.Entrypoint}} {{len .Config.Healthcheck.Test}}"
    assert docker_engine.do("inspect", "-f", form, home_image) == "10001:10001 [mayfly] 4\n"


def with_bucket(folder: Path) -> list[str]:
    """Return what gives a container the bucket of `folder`, to read."""
    return [
        *("--volume", f"{folder / 'bucket'}:/bucket:ro"),
        *("--env", "MAYFLY_STORE_URL=file:///bucket"),
    ]


@contextmanager
def running(engine: DockerEngine, image: str, *options: str) -> Iterator[tuple[str, str]]:
    """Run a container with its port on the loopback address; yields its name and URL."""
    name = engine.do("run", "--detach", "--publish", "127.0.0.1::9464", *options, image).strip()
    try:
        address = engine.do("port", name, "9464").strip()
        yield name, f"http://{address}"
    finally:
        engine.docker("rm", "--force", "--volumes", name)


def text(url: str) -> str:
    """Return what a URL answers."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())
