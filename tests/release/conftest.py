"""Releases obtained for real: a repository, a state directory, and what was logged."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Coroutine, Mapping
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
from agent.release.checks import Checks
from agent.release.context import ReleaseContext
from agent.release.memory import Memory, Writer
from agent.release.obtain import Obtained, obtain
from agent.release.operate import overview, unpin
from agent.release.repository import channel_of
from agent.release.store import Installed, ReleaseStore, good_of, last_here
from agent.secrets.keyring import Keyring
from tests.parts.repo import Repo, Signer, make_signer
from tests.parts.waiting import wait_until

VERSION = "0.2.0"
START = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
JOBS = '[[job]]\nname = "greet"\ncommand = ["sh", "greet.sh"]\n'
RELEASE: Mapping[str, str] = MappingProxyType({"jobs.toml": JOBS})
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
        repo: The repository of its releases.
        repository: What the configuration calls that.
        environ: The agent's environment.
        cache: Where caches are.
        settings: What else `[release]` says in every call.
        context: What else a run gives to each step, such as its isolation.
        signer: Who signs what is published here.
        now: The time; each call is an hour after the one before.
        index: The package indexes that want a login.
    """

    state: Path
    repo: Repo
    repository: str
    environ: dict[str, str]
    cache: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    signer: Signer | None = None
    now: datetime = START
    index: dict[str, Index] = field(default_factory=dict)
    memory: Memory = field(init=False)

    @property
    def release_store(self) -> ReleaseStore:
        """Where releases are."""
        return ReleaseStore.at(self.state, self.cache)

    def publish(self, version: str, files: Mapping[str, str] = RELEASE) -> str:
        """Publish a release, and return its commit."""
        return self.repo.release(version, dict(files), signer=self.signer)

    def commit(self, files: Mapping[str, str]) -> str:
        """Push a commit to the branch `main`, and return it."""
        for path, text in files.items():
            self.repo.write(path, text)
        commit = self.repo.commit_signed(self.signer) if self.signer else self.repo.commit()
        self.repo.push()
        return commit

    def move(self, tag: str) -> str:
        """Force a tag to the present commit, and return that."""
        commit = self.repo.tag(tag, signer=self.signer, force=True)
        self.repo.push()
        return commit

    def git(self, *arguments: str) -> None:
        """Change the repository, and push that."""
        self.repo.git(*arguments)
        self.repo.push()

    async def obtain(self, *, version: str = VERSION, **settings: Any) -> Obtained:
        """Obtain the release to run."""
        self.now += timedelta(hours=1)
        values = {"repository": self.repository, "timeout": 60.0, **self.settings, **settings}
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
                keyring=Keyring(Settings(release=release, index=self.index), self.environ),
                **self.context,
            )
        )

    async def run_well(self, **settings: Any) -> Obtained:
        """Obtain a release that then proves itself."""
        obtained = await self.obtain(**settings)
        self.promote(obtained)
        return obtained

    async def ran(self, version: str, files: Mapping[str, str] = RELEASE) -> str:
        """Publish a release, and have it run and prove itself; return its commit."""
        commit = self.publish(version, files)
        await self.run_well()
        return commit

    def promote(self, obtained: Obtained) -> None:
        """Say that a release proved itself, as a run does."""
        self.memory.learn(good=good_of(obtained.release))
        self.memory.end_trials()

    def remembered(self, release: Release | None = None) -> Memory:
        """Return what this disk knows of releases; each time it is a run of its own that asks."""
        return Memory(
            channel_of(release or Release.model_validate(self.settings)),
            Writer(run_id(self.now, os.urandom(3)), "computer", self.now + timedelta(minutes=30)),
            copy=self.release_store.copy,
            now=lambda: self.now,
            log=RunLogger(self.events.append).log,
        )

    async def decide(
        self, act: Callable[..., Coroutine[Any, Any, Any]], *values: Any, **named: Any
    ) -> None:
        """Have an operator decide, in a bucket that has what this disk knows."""

        async def bucket() -> Bucket:
            return Bucket.open(LocalBucket(self.state / "bucket"), None)

        memory = self.remembered()
        await memory.connect(bucket())
        rows = overview(memory.known, self.release_store, VERSION, self.now)
        await act(memory, *([] if act is unpin else [rows]), *values, **named)

    @property
    def good(self) -> str | None:
        """The commit of the last good release."""
        return next((one.commit for one in self.remembered().known.good(VERSION)), None)

    @property
    def bad(self) -> list[str]:
        """The tags of the releases that were found bad."""
        return [fact.bad.ref for fact in self.remembered().known.bad if fact.bad]

    @property
    def here(self) -> Installed | None:
        """The last good release that is on the disk."""
        checks = Checks("jobs.toml", VERSION, self.environ)
        return last_here(self.release_store, self.remembered().known.good(VERSION), checks)

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the logged events of one name."""
        return [line for line in self.events if line["event"] == event]

    def lose_the_network(self) -> None:
        """Have no proxy answer."""
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            self.environ[name] = self.environ[name.lower()] = DEAD_PROXY
        self.environ["UV_HTTP_RETRIES"] = "0"


def reason_of(obtained: Obtained) -> str:
    """Return why an older release runs than the one that is wanted."""
    assert obtained.stale is not None
    return obtained.stale.reason


def kinds(obtained: Obtained) -> list[str]:
    """Return at which step each release was rejected."""
    return [refused.kind for refused in obtained.record.refused]


def ends_in(folder: Path) -> None:
    """Wait until nothing runs there: a killed process is seen until the kernel has taken it apart."""

    def runs(process: Path) -> bool:
        try:
            texts = [(process / name).read_bytes() for name in ("cmdline", "environ")]
        except OSError:  # ended, or another user's
            return False
        return process.name != str(os.getpid()) and str(folder).encode() in b"".join(texts)

    wait_until(
        lambda: not any(map(runs, Path("/proc").glob("[0-9]*"))),
        what=f"processes in {folder} to end",
    )


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
def computer(tmp_path: Path, environ: dict[str, str], repo_builder: Repo) -> Computer:
    """A computer that reaches its repository by the path."""
    bare = str(repo_builder.bare)
    return Computer(tmp_path / "state", repo_builder, bare, environ, tmp_path / "cache")


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


@pytest.fixture
def signed(computer: Computer, ada: Signer, signers: Path) -> Computer:
    """A computer that runs what Ada signed; what is published through it she signs."""
    computer.signer = ada
    computer.settings["allowed_signers"] = signers
    return computer


async def greeting(release: Installed) -> str:
    """Return what the release's own Python prints for its job."""
    assert release.programs is not None
    command = [str(release.programs / "python"), "greet.py"]
    done = await processes.run(command, environ={}, seconds=60, cwd=release.tree)
    assert done.code == 0, done.complaint
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class Locked:
    """Releases whose environment holds one small package.

    Attributes:
        files: The files of one, by the name of its lock.
        cache: A cache that holds the package, for tests that are about something else than getting it.
    """

    files: Mapping[str, Mapping[str, str]]
    cache: Path


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Locked:
    """By `uv.lock` and a `requirements.txt` that uv itself makes, and by the locks of other tools."""
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
    requirements = (folder / "requirements.txt").read_text()
    hashes = re.findall(r"sha256:[0-9a-f]{64}", requirements)
    listed = ", ".join(f'{{file = "{each}", hash = "{each}"}}' for each in hashes)
    jobs = {"jobs.toml": LOCKED_JOBS, "greet.py": "import idna\nprint(idna.__version__)\n"}
    locks = {
        "uv.lock": (folder / "uv.lock").read_text(),
        "requirements.txt": requirements,
        "Pipfile.lock": json.dumps({"default": {"idna": {"version": "==3.10", "hashes": hashes}}}),
        "poetry.lock": (
            f'[[package]]\nname = "idna"\nversion = "3.10"\ngroups = ["main"]\nfiles = [{listed}]\n'
            '[metadata]\nlock-version = "2.1"\n'
        ),
    }
    files = {name: {**jobs, name: text} for name, text in locks.items()}
    files["uv.lock"]["pyproject.toml"] = PROJECT
    return Locked(files, cache)


def _uv(*arguments: str, at: Path) -> None:
    subprocess.run([uv.find_uv_bin(), *arguments], cwd=at, check=True, timeout=120)
