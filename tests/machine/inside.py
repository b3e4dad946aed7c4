"""Whole runs inside a booted machine, started over ssh: a repository, a bucket in a folder, the real `mayfly run`."""

import json
import shlex
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bucket.bucket import Run, read_runs
from tests.parts.command import events_in
from tests.parts.machine import Machine
from tests.run.bench import NOWHERE, Ran

MASKED = (
    *("mayfly.service", "mayfly-off.service", "mayfly-boots.service"),
    *("mayfly-deadman.timer", "mayfly-idle.timer"),
)
"""Units that would start a run of their own, or end the machine while it is being looked at."""

STAY_UP = " ".join(f"systemd.mask={unit}" for unit in MASKED)
"""Words for the kernel's command line."""

EC2 = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://169.254.169.254"}
"""Says that the machine has a metadata service; the firmware of this one does not."""

Row = Callable[[str, object], None]
"""Prints a row of the table of cases: case, what was seen."""

BUCKET = "/srv/bucket"
REPOSITORY = "/srv/scrapers"
MAYFLY = "/opt/mayfly/bin/mayfly"
RUN_SECONDS = 900


class Inside:
    """A machine that stays up, seen as a workbench for runs."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        """Use a machine that answers ssh.

        Args:
            machine: The machine.
            folder: Where releases are put together before they are copied into it.
        """
        self.machine = machine
        self._folder = folder
        self._count = 0
        self.environ: dict[str, str] = {}

    @property
    def state(self) -> str:
        """The agent's state directory: an empty one for each release, so that none is a worse version of another."""
        return f"/var/lib/mayfly/{self._count}"

    def sh(self, command: str, *, seconds: float = 300, check: bool = True) -> str:
        """Run a shell command as root; return what it printed."""
        return self.machine.ssh(command, seconds=seconds, check=check).stdout

    def release(self, jobs: str, files: Mapping[str, str] | None = None) -> str:
        """Publish a release in a new repository, for a bucket that knows of no other; return its tag."""
        self._count += 1
        tag = f"v{self._count}"
        folder = self._folder / tag
        folder.mkdir(parents=True)
        for name, text in {"jobs.toml": jobs, **(files or {})}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
            path.chmod(0o755 if text.lstrip().startswith("#!") else 0o644)
        self.sh(f"rm -rf {REPOSITORY} {BUCKET}")
        self.machine.put(folder, REPOSITORY)
        git = f"git -C {REPOSITORY} -c user.name=tests -c user.email=tests@example.org"
        self.sh(f"{git} init -q && {git} add -A && {git} commit -qm {tag} && {git} tag {tag}")
        return tag

    def command(self, *arguments: str, **settings: str) -> str:
        """Return the shell command of a run: outcome on stdout, log on stderr."""
        pairs = {
            "release.repository": REPOSITORY,
            "release.trust": "none",
            "paths.state": self.state,
            "power.after": "nothing",
            "browser.url": NOWHERE,
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        sets = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
        environ = {"MAYFLY_CONFIG": "/dev/null", "LANG": "C.UTF-8", **self.environ}
        words = [
            *("env", *(f"{name}={value}" for name, value in environ.items())),
            *(MAYFLY, "run", "--json", "--log", "json", "--store", BUCKET, *sets, *arguments),
        ]
        return shlex.join(words)

    def run(self, *arguments: str, **settings: str) -> Ran:
        """Do a run to its end."""
        done = self.machine.ssh(
            self.command(*arguments, **settings), seconds=RUN_SECONDS, check=False
        )
        return ran(done)

    def told(self, run_id: str, bucket: str = BUCKET) -> Run:
        """Return a run, as a bucket in the machine tells of it."""
        return read_runs(_Objects(self, bucket))[run_id]


@dataclass(frozen=True)
class _Objects:
    """A bucket in the machine."""

    inside: Inside
    bucket: str

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with a prefix, in order."""
        said = self.inside.sh(
            f"cd {self.bucket} && find . -type f -path './{prefix}*' -printf '%P\\n'"
        )
        return sorted(said.splitlines())

    def get(self, key: str) -> bytes:
        """Return an object's content."""
        return self.inside.sh(f"cat {shlex.quote(f'{self.bucket}/{key}')}").encode()


def ran(done: "subprocess.CompletedProcess[str]") -> Ran:
    """Return what a run said that has ended."""
    outcome = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
    return Ran(done.returncode, outcome, events_in(done.stderr), done.stderr)
