"""The world that a machine of these tests wakes up in: git, a bucket, a site and a metadata service on this machine."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bucket.bucket import Bucket, Run
from tests.parts.command import mayfly, surroundings
from tests.parts.demo_site import DemoSite, serving_demo
from tests.parts.faultproxy import FaultProxy
from tests.parts.gitserver import GitServer
from tests.parts.machine import Disk, Machine
from tests.parts.machine_release import BUCKET, GIT, SITE, STORE, publish_baked
from tests.parts.metadata import Metadata
from tests.parts.ports import free_port
from tests.parts.repo import Repo
from tests.parts.seaweed import REGION, S3Server

OFF_SECONDS = 900
"""From power-on to power-off, jobs and all; emulated beside other work it takes one to five minutes."""

MEMORY = 3072


@dataclass
class World:
    """Everything that is not the machine.

    Attributes:
        repo: The scrapers' repository.
        git: The server that hands it out.
        s3: The store.
        bucket: The machine's bucket in it.
        proxy: What stands before the store, to hold it up.
        metadata: The metadata service; its role has the keys of the store.
        site: The demo site.
        seen: Runs that a test has looked at.
        rows: What came of each case, for the table.
    """

    repo: Repo
    git: GitServer
    s3: S3Server
    bucket: Bucket
    proxy: FaultProxy
    metadata: Metadata
    site: DemoSite
    seen: set[str] = field(default_factory=set)
    rows: list[tuple[str, str]] = field(default_factory=list)

    def services(self, *, git: bool = True) -> dict[str, int]:
        """Return what a machine sees; without `git`, nobody listens at its address."""
        return {
            GIT: _port(self.git.base_url) if git else free_port(),
            STORE: _port(self.proxy.url),
            SITE: _port(self.site.url),
        }

    def machine(self, disk: Disk, folder: Path) -> Machine:
        """Return a machine in this world, not booted yet."""
        return Machine(
            disk, folder, memory=MEMORY, services=self.services(), metadata=self.metadata.port
        )

    def closed(self) -> list[Run]:
        """Return the runs that closed and that no earlier call returned, oldest first."""
        runs = [run for run in self.bucket.working if run.closed and run.id not in self.seen]
        self.seen.update(run.id for run in runs)
        return runs

    def visits(self, path: str) -> int:
        """Return how often the demo site was asked for a path."""
        return sum(one.endswith(f" {path}") for one in self.site.requests)

    def verify(self, run: str = "latest") -> str:
        """Run `mayfly verify` as home would, and return what it says.

        Raises:
            AssertionError: It found a difference.
        """
        around = surroundings({**self.bucket.environ, "MAYFLY_STORE_REGION": REGION})
        done = mayfly("verify", run, environ=around)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def tell(self, case: str, what: str) -> None:
        """Add a row to the table, and print it."""
        self.rows.append((case, what))
        print(f"\n{case:34} {what}", flush=True)


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Start everything; the repository has the release that is baked into the image."""
    (folder / "git").mkdir()
    repo = Repo(folder / "git")
    publish_baked(repo)
    with ExitStack() as stack:
        s3 = stack.enter_context(S3Server(folder / "s3"))
        s3.make_bucket(BUCKET)
        yield World(
            repo=repo,
            git=stack.enter_context(GitServer(folder / "git")),
            s3=s3,
            bucket=Bucket.on_s3(s3, BUCKET, "prod"),
            proxy=stack.enter_context(FaultProxy(s3)),
            metadata=stack.enter_context(Metadata(credentials=(s3.access_key, s3.secret_key))),
            site=stack.enter_context(serving_demo(folder)),
        )


def live(machine: Machine, *, append: str = "") -> float:
    """Boot a machine and leave it alone until its power is off; return its seconds."""
    begun = time.monotonic()
    machine.boot(append=append)
    machine.wait_off(OFF_SECONDS)
    return time.monotonic() - begun


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
