"""The world of these machines: an AWS that has nothing but what AWS has, git and a bucket elsewhere."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.aws.stack import Stack
from tests.bucket.bucket import Bucket, Run
from tests.cloud.releases import FORM, PREFIX, TOKEN
from tests.parts.certificate import Certificate
from tests.parts.ec2.hardware import GIT, STORE
from tests.parts.ec2.room import MachineRoom
from tests.parts.gitserver import GitServer
from tests.parts.machine import Disk
from tests.parts.machine_release import BUCKET
from tests.parts.repo import Repo
from tests.parts.rights import Call, allowed
from tests.parts.seaweed import S3Server

NIGHT_SECONDS = 900
"""From a launch until the machine is off. Emulated beside other work it takes two to six minutes."""


@dataclass
class World:
    """Everything that is not the machine.

    Attributes:
        room: EC2, SSM and what else there is of AWS.
        repo: The scrapers' repository.
        git: The server that hands it out.
        bucket: The machines' bucket.
        seen: Runs whose entries a test has looked at.
        asked_by_packer: What Packer asked EC2 when it built the image.
    """

    room: MachineRoom
    repo: Repo
    git: GitServer
    bucket: Bucket
    seen: set[str] = field(default_factory=set)
    asked_by_packer: list[dict[str, str]] = field(default_factory=list)

    def new_runs(self) -> list[Run]:
        """Return the runs that no earlier call returned, in the order in which they began."""
        runs = [run for name, run in sorted(self.bucket.runs.items()) if name not in self.seen]
        self.seen.update(run.id for run in runs)
        return runs

    def asked_git(self, path: str) -> bool:
        """Tell whether a machine asked the git server for a path."""
        return any(one == path for _, one in self.git.requests)

    def stack(self, image: str, **parameters: str) -> Stack:
        """Make a stack of the template; its instance role is what the machines' calls are judged by."""
        stack = Stack(self.room, ImageId=image, **FORM, **parameters)
        policies = stack.policies("InstanceRole")
        self.room.judge = lambda _, action, resource: (
            allowed(policies, Call(action, resource)).allowed
        )
        return stack


@contextmanager
def world(folder: Path, base: Disk, trusted: Certificate | None = None) -> Iterator[World]:
    """Start everything; `trusted` is the certificate of the room in which the image was made, if not in this one."""
    (folder / "git").mkdir()
    (folder / "aws").mkdir()
    with ExitStack() as stack:
        s3 = stack.enter_context(S3Server(folder / "s3"))
        s3.make_bucket(BUCKET)
        git = stack.enter_context(GitServer(folder / "git"))
        services = {GIT: _port(git.base_url), STORE: s3.port}
        room = stack.enter_context(MachineRoom(folder / "aws", base, services, trusted=trusted))
        ssm = room.client("ssm")
        for name, value in {
            "store/access_key_id": s3.access_key,
            "store/secret_access_key": s3.secret_key,
            "jobs/TOKEN": TOKEN,
        }.items():
            ssm.put_parameter(Name=f"{PREFIX}/{name}", Value=value, Type="SecureString")
        yield World(room, Repo(folder / "git"), git, Bucket.on_s3(s3, BUCKET, "prod"))


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
