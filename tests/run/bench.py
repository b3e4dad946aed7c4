"""A workbench for whole runs: a repository of releases, a state directory, a bucket, and the real `mayfly`."""

import json
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import __version__
from agent.release.known import Known
from agent.release.memory import read_copy
from tests.bucket.bucket import Bucket
from tests.parts.command import MAYFLY, LogFile, events_in, mayfly, surroundings
from tests.parts.repo import Repo

NOWHERE = "http://127.0.0.1:9"
"""An address at which nothing listens: as `browser.url` it keeps runs that need no browser from starting one."""

RUN_SECONDS = 240.0
"""No run of these tests may take longer, whatever is broken in it."""


def job(name: str, command: str | Sequence[str], **keys: object) -> str:
    """Return a job of a jobs.toml; a command that is one text is a script of the shell."""
    words = ["sh", "-c", command] if isinstance(command, str) else command
    pairs = {"name": name, "command": words, **keys}
    return "\n".join(["[[job]]", *(f"{key} = {_toml(value)}" for key, value in pairs.items()), ""])


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        inner = (f"{json.dumps(key)} = {_toml(part)}" for key, part in value.items())
        return f"{{ {', '.join(inner)} }}"
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Ran:
    """What one run left behind: exit code, its outcome on stdout, its log on stderr."""

    code: int
    outcome: dict[str, Any]
    log: list[dict[str, Any]]
    stderr: str

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self.outcome["run_id"])

    def job(self, name: str) -> dict[str, Any]:
        """Return a job's result."""
        return next(job for job in self.outcome["jobs"] if job["name"] == name)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log's events of a name."""
        return [event for event in self.log if event["event"] == name]


@dataclass
class Bench:
    """A computer on which Mayfly runs, in a folder.

    Attributes:
        folder: Everything is in it.
        repo: The scrapers' repository.
        store: The bucket's URL.
        environ: What the command's environment has besides the usual.
        settings: `section.key` to value, given as `--set`.
        program: What runs start as `mayfly`.
        bucket: The bucket as a test reads it, where `deliver_to` chose one.
    """

    folder: Path
    repo: Repo
    store: str
    environ: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    program: Sequence[str] = MAYFLY
    bucket: Bucket = field(init=False)
    _ended: int = field(default=0, init=False)

    @classmethod
    def make(cls, folder: Path, bucket: Bucket | None = None) -> "Bench":
        """Return a computer without a browser, with nothing in its state, its repository and its bucket.

        Args:
            folder: Everything is in it, the bucket too if no other is given.
            bucket: Where the runs deliver to.
        """
        (git := folder / "git").mkdir(parents=True, exist_ok=True)
        bench = cls(folder, Repo(git), "", settings={"browser.url": NOWHERE})
        bench.deliver_to(bucket or Bucket.in_folder(folder / "bucket"))
        return bench

    def with_browser(self) -> None:
        """Let the runs to come have a browser, which the first one starts before it knows whether a job wants it."""
        del self.settings["browser.url"]

    def deliver_to(self, bucket: Bucket) -> None:
        """Let the runs to come deliver into a bucket."""
        self.bucket = bucket
        self.store = bucket.environ["MAYFLY_STORE_URL"]
        if endpoint := bucket.objects.store.endpoint:
            self.settings["store.endpoint"] = endpoint
        self.environ |= bucket.objects.credentials

    @property
    def state(self) -> Path:
        """The agent's state directory."""
        return self.folder / "state"

    @property
    def good(self) -> Path:
        """The folder of the last good release, as this disk's copy of what is known has it."""
        known = Known.of(read_copy(self.state / "releases" / "known.json").facts)
        return self.state / "releases" / known.good(__version__)[0].commit

    @property
    def log(self) -> LogFile:
        """The log of the last run, which may be under way."""
        return LogFile(self.folder / "stderr.log")

    @property
    def spool(self) -> list[Path]:
        """The runs that wait in the spool."""
        return sorted(path for path in (self.state / "spool").glob("*") if path.name[0].isdigit())

    def release(self, tag: str, jobs: str, files: Mapping[str, str] | None = None) -> str:
        """Publish a release: a jobs.toml and scripts, committed, tagged and pushed; return its commit."""
        content = {"jobs.toml": textwrap.dedent(jobs)}
        content |= {name: textwrap.dedent(text) for name, text in (files or {}).items()}
        return self.repo.release(tag, content)

    def secrets(self, text: str) -> Path:
        """Have the jobs' secrets in a file from now on; return it."""
        path = self.folder / "secrets.env"
        path.touch(0o600)
        path.write_text(text)
        self.settings["secrets.source"] = str(path)
        return path

    def sets(self, **settings: str) -> list[str]:
        """Return the options with what commands on this computer are told, and with settings of one command alone."""
        pairs = {
            "release.repository": str(self.repo.bare),
            "paths.state": str(self.state),
            "power.after": "nothing",
            # Runs of several tests at once would contend for the usual one.
            "browser.port": "0",
            # Each run of a test is a day of its own, but where it is about catching up.
            "limits.catch_up": "0",
            **self.settings,
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        return [text for key, value in pairs.items() for text in ("--set", f"{key}={value}")]

    def command(self, *arguments: str, **settings: str) -> list[str]:
        """Return the command line of a run."""
        told = ("--store", self.store, *self.sets(**settings))
        return [*self.program, "run", "--json", *told, *arguments]

    def environment(self) -> dict[str, str]:
        """Return the command's environment: the test's own, without this machine's Mayfly and account at AWS."""
        return surroundings({"HOME": str(self.folder), **self.environ})

    def mayfly(
        self, *arguments: str, at: Path | None = None, **environ: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run another command on this computer to its end."""
        around = {**self.environment(), **environ}
        return mayfly(*arguments, environ=around, at=at or self.folder)

    def at_home(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of home's to its end; it is told of the bucket by its environment."""
        return self.mayfly(*arguments, at=self.folder, **self.bucket.environ)

    def run(self, *arguments: str, code: int | None = None, **settings: str) -> Ran:
        """Do a run to its end, with an exit code if one is given."""
        with self.running(*arguments, **settings) as process:
            return finish(process, code)

    @contextmanager
    def running(self, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
        """Start a run; leaving the block kills it, if it is still there."""
        # Ids of runs sort by second, and by chance within one: a run begins after the second in which the last ended.
        while int(time.time()) <= self._ended:
            time.sleep(0.05)
        try:
            with self.started(self.command(*arguments, **settings)) as process:
                yield process
        finally:
            self._ended = int(time.time())

    @contextmanager
    def started(self, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        """Start a run by another command line, at once; leaving the block kills it as well."""
        process = subprocess.Popen(
            command,
            env=self.environment(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=self.log.path.open("w+"),
            text=True,
            start_new_session=True,
        )
        process.args = str(self.log.path)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(RUN_SECONDS)


def finish(process: "subprocess.Popen[str]", code: int | None = None) -> Ran:
    """Wait for a run, which must end with `code` if that is given, and collect what it said."""
    stdout, _ = process.communicate(timeout=RUN_SECONDS)
    stderr = Path(str(process.args)).read_text()
    assert code in (None, process.returncode), (process.returncode, stderr[-3000:])
    outcome = json.loads(stdout) if stdout.strip() else {}
    return Ran(process.returncode, outcome, events_in(stderr), stderr)
