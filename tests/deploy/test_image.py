"""The home image in the real container engine: built from the Dockerfile, and run with as few rights as there are."""

import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

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
    docker_engine: DockerEngine, home_image: str, folder: Bucket
) -> None:
    """As nobody, on a read-only root, it reads the bucket, is healthy, exports metrics, pulls, and ends when told."""
    run = leave_run(folder.objects, STARTED).run
    with running(docker_engine, home_image, *options(folder)) as (name, url):
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
def test_it_pulls_once_and_has_no_more_than_home_needs(
    docker_engine: DockerEngine, home_image: str, folder: Bucket
) -> None:
    """As the CronJob has it pull; no AWS, no uv; it names its user, its command and its health."""
    run = leave_run(folder.objects, STARTED).run
    alone = ("run", "--rm", "--network", "none")
    pull = (*options(folder), home_image, "pull", "/data/scraped", "--json")
    assert run in docker_engine.do(*alone, *pull)
    packages = "/opt/mayfly/lib/python3.11/site-packages"
    listed = docker_engine.do(*alone, "--entrypoint", "ls", home_image, packages).split()
    assert not {"boto3", "botocore", "uv"} & set(listed)
    assert {"consumer", "prometheus_client", "obstore"} <= set(listed)
    form = "{{.Config.User}} {{.Config.Entrypoint}} {{len .Config.Healthcheck.Test}}"
    assert docker_engine.do("inspect", "-f", form, home_image) == "10001:10001 [mayfly] 4\n"


def options(folder: Bucket) -> list[str]:
    """Return what gives a container a bucket to read, and no rights."""
    return [
        *NO_RIGHTS,
        *("--volume", f"{folder.root}:/bucket:ro"),
        *("--env", "MAYFLY_STORE_URL=file:///bucket", "--env", "TZ=Asia/Tokyo"),
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
