"""How tests call `mayfly`: as a program of its own or in this process, without this computer's configuration."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from agent.cli import mayfly as program
from tests.parts.waiting import wait_until


class CommandError(Exception):
    """A program that must succeed did not; the message has the end of what it said."""


MAYFLY = (sys.executable, "-m", "agent")
COMMAND_SECONDS = 120


def surroundings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without what would configure Mayfly, and with `environ`."""
    ours = ("MAYFLY_", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "MAYFLY_CONFIG": os.devnull, **environ}


def completed(
    command: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    at: Path | None = None,
    stdin: str | None = None,
    seconds: float = COMMAND_SECONDS,
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, whatever that is; it gets this process's environment if no other is given."""
    return subprocess.run(
        command,
        env=None if environ is None else dict(environ),
        cwd=at,
        input=stdin or "",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )


def output_of(
    command: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    at: Path | None = None,
    stdin: str | None = None,
    seconds: float = COMMAND_SECONDS,
) -> str:
    """Run a program as `completed` does, and return its standard output."""
    done = completed(command, environ=environ, at=at, stdin=stdin, seconds=seconds)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-4000:]
        raise CommandError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


def logged(
    command: Sequence[str], log: Path, *, environ: Mapping[str, str], seconds: float
) -> None:
    """Run a program that takes long and must succeed, with its output at the end of a file, for a person to follow."""
    with log.open("ab") as said:
        done = subprocess.run(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    if done.returncode != 0:
        end = log.read_text(errors="replace")[-6000:]
        raise CommandError(f"{command[0]} ended with {done.returncode} ({log}):\n{end}")


def script(path: Path, text: str) -> Path:
    """Write a program that stands in for another, and return it."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def mayfly(
    *arguments: str, environ: Mapping[str, str], at: Path | None = None, stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, whatever that is; it gets `environ` and nothing else."""
    return completed([*MAYFLY, *arguments], environ=environ, at=at, stdin=stdin)


def call(
    *arguments: str, environ: Mapping[str, str] | None = None, stdin: bytes | None = None
) -> Result:
    """Call a command in this process; whatever it raises but its own end is raised."""
    known = surroundings(environ or {})
    unset: dict[str, str | None] = {name: None for name in os.environ if name not in known}
    result = CliRunner().invoke(program, list(arguments), stdin, env={**unset, **known})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def events_in(log: str) -> list[dict[str, Any]]:
    """Return the events of a log; a last line that is not whole yet is none."""
    lines = log[: log.rfind("\n") + 1].splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


class LogFile:
    """The log of a program that may still run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self, name: str = "", **fields: object) -> list[dict[str, Any]]:
        """Return the events so far, of a name and with these fields if given."""
        return [
            event
            for event in events_in(self.path.read_text())
            if name in ("", event["event"]) and fields.items() <= event.items()
        ]

    def wait_for(
        self, name: str, *, count: int = 1, seconds: float = 60.0, **fields: object
    ) -> None:
        """Wait until so many of these events are there."""
        wait_until(
            lambda: len(self.events(name, **fields)) >= count,
            seconds=seconds,
            what=f"{count} times {name} {fields or ''}",
        )
