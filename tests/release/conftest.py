"""Releases obtained for real: a repository, a state directory, and what was logged."""

import os
import subprocess
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import uv

from agent.base import processes
from agent.base.logs import RunLogger
from agent.bucket.address import LocalBucket
from agent.bucket.store import Bucket
from agent.config.settings import Index, Release, Settings
from agent.contract.ids import run_id
from agent.jobs.interface import Isolation
from agent.release.context import ReleaseContext
from agent.release.memory import Memory, Writer
from agent.release.obtain import Obtained, obtain
from agent.release.operate import overview, unpin
from agent.release.repository import channel_of
from agent.release.store import Installed, ReleaseStore, good_of
from agent.secrets.keyring import Keyring
from tests.parts.repo import Repo, Signer, make_signer
from tests.parts.waiting import wait_until

VERSION = "0.2.0"
START = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
JOBS = '[[job]]\nname = "greet"\ncommand = ["sh", "greet.sh"]\n'
LOCKED_JOBS = '[[job]]\nname = "greet"\ncommand = ["python", "greet.py"]\n'
PROJECT = """[project]
name = "locked"
version = "1"
requires-python = ">=3.11"
dependencies = ["idna==3.10"]

[tool.uv]
package = false
"""
DEAD_PROXY = "http://127.0.0.1:9"
"""Nothing listens on the discard port: whoever uses it as a proxy has no network."""


@dataclass
class Computer:
    """A state directory of its own, and `obtain` with everything it needs.

    Attributes:
        state: The state directory.
        repository: What the configuration says.
        environ: The agent's environment.
        release_store: Where releases are.
        events: What was logged.
        now: The time; each call is an hour after the one before.
        machine: Whether nobody watches.
        index: The package indexes that want a login.
        isolation: How programs of new releases are checked; None leaves the self-check out.
    """

    state: Path
    repository: str
    environ: dict[str, str]
    cache: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    now: datetime = START
    timeout: float = 60.0
    machine: bool = False
    index: dict[str, Index] = field(default_factory=dict)
    isolation: Callable[[], Awaitable[Isolation]] | None = None
    memory: Memory = field(init=False)

    @property
    def release_store(self) -> ReleaseStore:
        """Where releases are."""
        return ReleaseStore.at(self.state, self.cache)

    async def obtain(self, *, version: str = VERSION, **settings: Any) -> Obtained:
        """Obtain the release to run."""
        self.now += timedelta(hours=1)
        values = {"repository": self.repository, "timeout": self.timeout, **settings}
        release = Release.model_validate(values)
        self.memory = self.remembered(release)
        return await obtain(
            ReleaseContext(
                settings=release,
                release_store=self.release_store,
                memory=self.memory,
                environ=self.environ,
                version=version,
                now=self.now,
                log=RunLogger(self.events.append).log,
                machine=self.machine,
                isolation=self.isolation,
                keyring=Keyring(Settings(release=release, index=self.index), self.environ),
            )
        )

    def login_to_index(self, source: str) -> None:
        """Have the agent know a login to the index `team-index`."""
        self.index = {"team-index": Index(credentials=source)}

    async def ran(
        self,
        repo: Repo,
        version: str,
        files: Mapping[str, str] = MappingProxyType({"jobs.toml": JOBS}),
        signer: Signer | None = None,
        **settings: Any,
    ) -> str:
        """Publish a release, and have it run and prove itself; return its commit."""
        commit = repo.release(version, dict(files), signer=signer)
        await self.run_well(**settings)
        return commit

    async def run_well(self, **settings: Any) -> Obtained:
        """Obtain a release that then proves itself."""
        obtained = await self.obtain(**settings)
        self.promote(obtained)
        return obtained

    def promote(self, obtained: Obtained) -> None:
        """Say that a release proved itself, as a run does."""
        self.memory.learn(good=good_of(obtained.release))
        self.memory.end_trials()

    def remembered(self, release: Release | None = None) -> Memory:
        """Return what this disk knows of releases; each time it is a run of its own that asks."""
        return Memory(
            channel_of(release or Release()),
            Writer(run_id(self.now, os.urandom(3)), "computer", self.now + timedelta(minutes=30)),
            copy=self.release_store.copy,
            now=lambda: self.now,
            log=RunLogger(self.events.append).log,
        )

    async def decide(
        self,
        act: Callable[..., Coroutine[Any, Any, Any]],
        *values: Any,
        branch: str | None = None,
        **named: Any,
    ) -> None:
        """Have an operator decide, in a bucket that has what this disk knows."""

        async def bucket() -> Bucket:
            return Bucket.open(LocalBucket(self.state / "bucket"), None)

        memory = self.remembered(Release(branch=branch))
        await memory.connect(bucket())
        rows = overview(memory.known, self.release_store, VERSION, self.now)
        await act(memory, *([] if act is unpin else [rows]), *values, **named)

    @property
    def good(self) -> str | None:
        """The commit of the last good release."""
        return next((one.commit for one in self.remembered().known.good(VERSION)), None)

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the logged events of one name."""
        return [line for line in self.events if line["event"] == event]


def reason_of(obtained: Obtained) -> str:
    """Return why an older release runs than the one that is wanted."""
    assert obtained.stale is not None
    return obtained.stale.reason


def running_in(folder: Path) -> list[str]:
    """Return the commands that run with a folder's path in their arguments or their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            try:
                parts = [(process / name).read_bytes() for name in ("cmdline", "environ")]
            except OSError:  # ended, or another user's
                continue
            if str(folder).encode() in b"".join(parts):
                found.append(parts[0].replace(b"\0", b" ").decode(errors="replace"))
    return found


def ends_in(folder: Path) -> None:
    """Wait until nothing runs there: a killed process is seen until the kernel has taken it apart.

    Raises:
        WaitedTooLongError: Something goes on.
    """
    wait_until(lambda: running_in(folder) == [], what=f"processes in {folder} to end")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment as an agent has it, with a secret that nobody may pass on."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "TMPDIR"}
        or name.startswith(("SSL_", "UV_INDEX", "COVERAGE_"))
        or name.upper().endswith("_PROXY")
    }
    return {**kept, "HOME": str(home), "AWS_SECRET_ACCESS_KEY": "never-passed-on"}


@pytest.fixture
def computer(tmp_path: Path, environ: dict[str, str], repo_builder: Any) -> Computer:
    """A computer for the repository of `repo_builder`, by its path."""
    return Computer(tmp_path / "state", str(repo_builder.bare), environ, tmp_path / "cache")


@pytest.fixture
def ada(tmp_path: Path) -> Signer:
    """Somebody who may sign releases."""
    return make_signer(tmp_path)


@pytest.fixture
def signers(tmp_path: Path, ada: Signer) -> Path:
    """The file that names Ada."""
    file = tmp_path / "allowed_signers"
    file.write_text(f"# who may publish\n{ada.allowed_signers_line}")
    return file


async def greeting(release: Installed) -> str:
    """Return what the release's own Python prints for its job."""
    assert release.programs is not None
    command = [str(release.programs / "python"), "greet.py"]
    done = await processes.run(command, environ={}, seconds=60, cwd=release.tree)
    assert done.code == 0, done.complaint
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class Locked:
    """The files of a release whose environment holds one small package, by either kind of lock.

    Attributes:
        project: Files with `uv.lock`.
        requirements: The other form, `requirements.txt`.
        cache: A cache that holds the package, for tests that are about something else than getting it.
    """

    project: Mapping[str, str]
    requirements: str
    cache: Path


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Locked:
    """A lock file and a `requirements.txt` with hashes, made by uv itself."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "pyproject.toml").write_text(PROJECT)
    _uv("lock", "--quiet", at=folder)
    _uv(
        *("pip", "compile", "--quiet", "--generate-hashes", "pyproject.toml"),
        *("--output-file", "requirements.txt"),
        at=folder,
    )
    cache = tmp_path_factory.mktemp("warm")
    _uv("sync", "--quiet", "--frozen", "--cache-dir", str(cache / "uv"), at=folder)
    return Locked(
        {
            "pyproject.toml": PROJECT,
            "uv.lock": (folder / "uv.lock").read_text(),
            "jobs.toml": LOCKED_JOBS,
            "greet.py": "import idna\nprint(idna.__version__)\n",
        },
        (folder / "requirements.txt").read_text(),
        cache,
    )


def _uv(*arguments: str, at: Path) -> None:
    subprocess.run([uv.find_uv_bin(), *arguments], cwd=at, check=True, timeout=120)
