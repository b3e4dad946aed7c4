"""The image of a shard in the real container engine: run as Kubernetes runs it, stopped, killed and started again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import ExitCode
from tests.bucket.bucket import Bucket
from tests.bucket.sound import Broken, Looker, all_sound, examine
from tests.deploy.test_fleet import IMAGE, job, pod, variables
from tests.deploy.test_image import NO_RIGHTS
from tests.deploy.tools import accepts
from tests.parts.command import events_in
from tests.parts.docker_engine import DockerEngine
from tests.parts.gitserver import GitServer
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.parts.waiting import wait_until
from tests.run.bench import NOWHERE
from tests.run.fleet import succeeded

# The first build makes a root file system and fetches packages, which takes minutes where the machine is busy.
pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
SECONDS = 120.0
GROUP = "fleet-29381234"
SHARDS = 2
VALUES = [f"shop-{number}" for number in range(8)]
JOBS = f"""
[[job]]
name = "shop"
command = ["sh", "shop.sh"]
matrix = {{ shop = {[value.removeprefix("shop-") for value in VALUES]} }}
"""
SHOP = """
echo "$MAYFLY_JOB" >> /site/visits
echo "price of $MAYFLY_JOB, seen by $(id -u)" > "$MAYFLY_OUTPUT_DIR/price"
[ ! -e /site/closed ] || [ "$(wc -l < /site/visits)" -lt 2 ] || sleep 300
"""
"""The site counts its visitors; while it is closed, all but the first wait there."""


@dataclass
class Engine:
    """Starts shards in containers, each told which it is as the manifests in deploy/kubernetes/fleet have it told.

    Attributes:
        docker: The real engine.
        image: The image.
        folder: Its `site` is the site's side of each visit.
        environ: What all shards are told.
    """

    docker: DockerEngine
    image: str
    folder: Path
    environ: Mapping[str, str]
    started: list[str] = field(default_factory=list)

    def start(self, shard: int) -> str:
        """Start a shard on an empty disk, and return the container's name."""
        told = self.folder / "environment"
        told.touch(mode=0o600)
        pairs = {**self.environ, "JOB_COMPLETION_INDEX": str(shard), "MAYFLY_GROUP": GROUP}
        told.write_text("".join(f"{name}={value}\n" for name, value in pairs.items()))
        name = self.docker.do(
            *("run", "--detach", "--network", "host", "--env-file", str(told), *NO_RIGHTS),
            *("--volume", f"{self.folder / 'site'}:/site", self.image),
            *pod()["containers"][0]["args"],
        ).strip()
        self.started.append(name)
        return name

    def wait(self, name: str) -> int:
        """Wait for the end of a container, and return its exit code."""
        return int(self.docker.do("wait", name, seconds=SECONDS))

    def told(self, name: str) -> list[dict[str, Any]]:
        """Return what a container has logged."""
        return events_in(self.docker.docker("logs", name).stderr)

    def until_visited(self, times: int) -> None:
        """Wait until the site was visited so many times."""
        wait_until(lambda: len(self.visits) == times, seconds=SECONDS, what=f"{times} visits")

    @property
    def visits(self) -> list[str]:
        """The jobs that have visited the site, in order."""
        return (self.folder / "site" / "visits").read_text().splitlines()

    def close(self, *, closed: bool) -> None:
        """Let visitors wait from now on, or let them go."""
        gate = self.folder / "site" / "closed"
        gate.touch() if closed else gate.unlink()


@pytest.fixture
def bucket(s3_server: S3Server, s3_bucket: str) -> Bucket:
    """The bucket of the shards."""
    return Bucket.on_s3(s3_server, s3_bucket)


@pytest.fixture
def environ(repo_builder: Repo, git_server: GitServer, bucket: Bucket) -> dict[str, str]:
    """The settings of the manifests, but for where the release and the bucket are."""
    repo_builder.release("v1.0.0", {"jobs.toml": JOBS, "shop.sh": SHOP})
    return variables() | {
        "MAYFLY_SHARDS": str(SHARDS),
        "MAYFLY_RELEASE_REPOSITORY": git_server.url(),
        "MAYFLY_BROWSER_URL": NOWHERE,
        "MAYFLY_LIMITS_JOBS": "1",
        **bucket.environ,
    }


@pytest.fixture
def engine(
    docker_engine: DockerEngine, fleet_image: str, environ: dict[str, str], tmp_path: Path
) -> Iterator[Engine]:
    """The real engine, which has the image, and a site."""
    site = tmp_path / "site"
    site.mkdir()
    site.chmod(0o777)
    (site / "visits").touch()
    (site / "visits").chmod(0o666)
    engine = Engine(docker_engine, fleet_image, tmp_path, environ)
    yield engine
    for name in engine.started:
        docker_engine.docker("rm", "--force", "--volumes", name)


def test_the_dockerfile_is_clean() -> None:
    """Hadolint has nothing to say."""
    accepts("hadolint", IMAGE)


def test_the_image_has_what_a_shard_needs(docker_engine: DockerEngine, fleet_image: str) -> None:
    """Git, the verifier of signatures and uv are there, and no unit that switches anything off."""
    form = "{{.Config.User}} {{.Config.Entrypoint}} {{.Config.Cmd}}"
    assert (
        docker_engine.do("inspect", "-f", form, fleet_image)
        == "10001:10001 [mayfly] [run --log=json]\n"
    )
    shell = ["run", "--rm", "--network", "none", *NO_RIGHTS, "--entrypoint", "sh", fleet_image]
    script = "git --version; uv --version; command -v ssh-keygen; ls -d /usr/lib/mayfly; touch x && id -u"
    done = docker_engine.docker(*shell, "-c", script, seconds=SECONDS)
    said_so = done.stdout.splitlines()
    assert [line.split()[0] for line in said_so] == ["git", "uv", "/usr/bin/ssh-keygen", "10001"]
    assert "/usr/lib/mayfly" in done.stderr


def test_shards_are_told_by_their_index_and_end_by_their_exit_code(
    engine: Engine, bucket: Bucket
) -> None:
    """As nobody, on a read-only root, without a capability: each does its part, and the index names it."""
    shards = [engine.start(shard) for shard in range(SHARDS)]
    assert [engine.wait(shard) for shard in shards] == [0, 0], engine.told(shards[0])
    parts = sorted(
        (run.began["group"], run.began["shard"], run.began["shards"]) for run in bucket.working
    )
    assert parts == [(GROUP, 0, SHARDS), (GROUP, 1, SHARDS)]
    assert succeeded(bucket) == dict.fromkeys(VALUES, 1)
    files = {
        path: text for run in all_sound(bucket) for path, text in bucket.run(run).files.items()
    }
    prices = {text.decode() for path, text in files.items() if path.endswith("/price")}
    assert prices == {f"price of {value}, seen by 10001\n" for value in VALUES}
    for shard in shards:
        assert not [one for one in engine.told(shard) if one["event"].startswith("power.")]


def test_a_shard_that_is_started_again_repeats_only_what_was_not_committed(
    engine: Engine, bucket: Bucket
) -> None:
    """Evicted, it closes, and ends with 7; killed, it says nothing more; the next attempt does the rest."""
    engine.close(closed=True)
    evicted = engine.start(0)
    engine.until_visited(2)
    engine.docker.do("stop", "--time", "60", evicted)
    assert engine.wait(evicted) == 7
    done, cut = engine.visits
    killed = engine.start(0)
    engine.until_visited(3)
    engine.docker.do("kill", killed)
    assert engine.wait(killed) == 137
    engine.close(closed=False)
    assert engine.wait(engine.start(0)) == 0
    first, cut_off, last = bucket.working
    assert [run.status for run in (first, cut_off, last)] == ["interrupted", "running", "succeeded"]
    assert examine(Looker(bucket.objects).look(), (), gone={cut_off.id}) == Broken()
    assert engine.visits.count(done) == 1
    assert engine.visits.count(cut) == 3
    assert set(succeeded(bucket).values()) == {1}
    assert last.planned is not None
    (left_out,) = last.planned["left_out"]
    assert (left_out["name"], first.id in left_out["reason"]) == (done, True)


def test_what_no_attempt_can_mend_is_not_tried_again(engine: Engine, bucket: Bucket) -> None:
    """A pod that is not told how many shards there are ends with a code that the manifests call final."""
    engine.environ = {key: value for key, value in engine.environ.items() if key != "MAYFLY_SHARDS"}
    code = engine.wait(engine.start(1))
    final = job()["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
    assert (code, code in final) == (ExitCode.USAGE, True)
    assert bucket.working == []
