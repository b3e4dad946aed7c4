"""An engine's stand-in: starts shards as separate processes, kills some, and starts again what was lost."""

import asyncio
import os
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from agent.base.processes import kill_marked
from tests.bucket.bucket import Bucket
from tests.parts.command import LogFile
from tests.run.bench import RUN_SECONDS, Bench


@dataclass
class Member:
    """One process of one shard.

    Attributes:
        shard: Which one, from 0.
        process: It.
        folder: Its own disk, which dies with it.
    """

    shard: int
    process: "subprocess.Popen[str]"
    folder: Path

    @property
    def log(self) -> LogFile:
        """What it has logged so far."""
        return LogFile(self.folder / "stderr.log")

    def tells(self, event: str, count: int = 1) -> bool:
        """Tell whether it has logged an event so many times."""
        return len(self.log.events(event)) >= count

    def wait(self, seconds: float = RUN_SECONDS) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(seconds)

    def told_to_stop(self) -> None:
        """Ask it to end, as an engine does that evicts it."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, which is at work, and everything it started, at once, as a node that is gone does."""
        assert self.process.poll() is None, f"shard {self.shard} has ended before it was killed"
        self.end()

    def end(self) -> None:
        """End what is left of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(RUN_SECONDS)
        for run in {each["run_id"] for each in self.log.events() if "run_id" in each}:
            asyncio.run(kill_marked(f"MAYFLY_RUN_ID={run}"))


@dataclass
class Fleet:
    """Shards of one group, told which they are as Kubernetes does it.

    Attributes:
        bench: What they have in common: release, bucket, settings.
        group: The group's name.
        shards: How many there are.
    """

    bench: Bench
    group: str
    shards: int
    started: list[Member] = field(default_factory=list)

    def start(self, shard: int, *arguments: str, **settings: str) -> Member:
        """Start a shard, on a disk of its own."""
        folder = self.bench.folder / f"disk-{len(self.started)}"
        folder.mkdir()
        environ = self.bench.environment() | {
            "JOB_COMPLETION_INDEX": str(shard),
            "MAYFLY_SHARDS": str(self.shards),
            "MAYFLY_GROUP": self.group,
            "HOME": str(folder),
        }
        with (folder / "stderr.log").open("w") as log:
            process = subprocess.Popen(
                self.bench.command(
                    *arguments, **{"paths__state": str(folder / "state"), **settings}
                ),
                env=environ,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        member = Member(shard, process, folder)
        self.started.append(member)
        return member

    def end(self) -> None:
        """End what is left of it."""
        for member in self.started:
            if member.process.poll() is None:
                member.end()


def succeeded(bucket: Bucket) -> Counter[str]:
    """Return how many runs say of each job that it succeeded."""
    return Counter(
        name
        for run in bucket.runs.values()
        for name, status in run.statuses.items()
        if status == "succeeded"
    )
