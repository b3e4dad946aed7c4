"""Checks before a release may run: its jobs file is valid for this agent, and its programs exist."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.base.errors import ReleaseError
from agent.base.regular import open_regular
from agent.base.units import show_size
from agent.config.faults import Fault
from agent.config.jobsfile import Job, JobsFile, family_of, parse_jobs, program_of
from agent.contract.names import path_problem

MAX_JOBS_BYTES = 1024**2
MAX_LINE_BYTES = 4096
NO_JOBS_FILE = "add one, or say where it is: release.jobs"
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})


@dataclass(frozen=True, slots=True)
class Checks:
    """What a release is checked against.

    Attributes:
        jobs: Path of the jobs file in a release.
        version: This agent's version.
        environ: Its PATH finds the programs that the release does not bring.
    """

    jobs: str
    version: str
    environ: Mapping[str, str]


def checked_jobs(tree: Path, programs: Path | None, checks: Checks) -> JobsFile:
    """Return the jobs of the release in `tree`; `programs` is the `bin` of its environment, if it has one.

    Raises:
        ReleaseError: It cannot run here; the message has every fault.
    """
    jobs = read_jobs(tree, checks)
    path = checks.environ.get("PATH", os.defpath)
    path = path if programs is None else f"{programs}{os.pathsep}{path}"
    programs_missing = (
        Fault(checks.jobs, f"job[{job.name}].command", problem, remedy)
        for job in jobs.job
        for problem, remedy in _program_problems(job, path)
    )
    _refuse(
        (
            *programs_missing,
            *file_faults(jobs, tree, checks.jobs),
            *stack_faults(jobs, tree, checks.jobs),
        )
    )
    return jobs


def stack_faults(jobs: JobsFile, tree: Path, source: str) -> list[Fault]:
    """Return the faults of the compose files that jobs name, as far as they show without an engine."""
    return [
        Fault(source, f"job[{job.name}].{key}", problem, remedy)
        for job in jobs.job
        if job.compose is not None and job.service is not None
        for key, problem, remedy in _stack_problems(job.compose, job.service, tree)
    ]


def _stack_problems(compose: str, service: str, tree: Path) -> list[tuple[str, str, str]]:
    """Return key, problem and remedy for each fault of a stack; compose validates the YAML."""
    if problem := path_problem(compose):
        return [("compose", f'is "{compose}", and {problem}', "write a path in the release")]
    try:
        with open_regular(tree / compose) as file:
            text = file.read(MAX_JOBS_BYTES).decode(errors="replace")
    except OSError as error:
        return [("compose", f"{compose} cannot be read: {error.strerror}", "commit the file")]
    # A service may come from a file that this one names.
    if service in text or any(word in text for word in ("include", "extends")):
        return []
    return [("service", f'{compose} has no service "{service}"', "")]


def file_faults(jobs: JobsFile, tree: Path, source: str) -> list[Fault]:
    """Return the faults of the release's files that jobs start, as far as they show on any computer."""
    return [
        Fault(source, f"job[{job.name}].command", problem, remedy)
        for job in jobs.job
        for problem, remedy in _script_problems(job, tree)
    ]


def _script_problems(job: Job, tree: Path) -> list[tuple[str, str]]:
    """Return why a job's own file cannot be started. Kernel and shells take a CR as part of the line."""
    program = program_of(job)
    if not program or job.command is None:
        return []
    if _is_own(program) and not shutil.which(tree / program):
        return [(f'"{program}" is not an executable file', "commit it with its executable bit")]
    script = job.command[0] if "/" in job.command[0] else _script_of_shell(job.command)
    if script is None or not (_is_own(script) or script != program):
        return []
    try:
        with open_regular(tree / script) as file:
            line = file.readline(MAX_LINE_BYTES)
    except OSError:
        return []
    if not line.endswith(b"\r\n") or not (line.startswith(b"#!") or script != job.command[0]):
        return []
    return [
        (
            f'the lines of "{script}" end in CRLF, so that no interpreter is found or understands it',
            f"save it with LF, and keep it so: write `{script.removeprefix('./')} text eol=lf` into .gitattributes",
        )
    ]


def _is_own(program: str) -> bool:
    """Tell whether a program is a file of the release."""
    return "/" in program and not program.startswith("/")


def _script_of_shell(command: Sequence[str]) -> str | None:
    """Return the file that a shell runs; None for another program, or another use of a shell."""
    if command[0] not in _SHELLS:
        return None
    names = [each for each in command[1:2] if not each.startswith("-")]
    return names[0] if names else None


def read_jobs(tree: Path, checks: Checks) -> JobsFile:
    """Return the jobs of a release that has no environment yet: programs are not looked for.

    Raises:
        ReleaseError: The jobs file is missing or has faults; the message has every one.
    """
    jobs, faults = parse_jobs(_read(tree, checks.jobs), checks.jobs, checks.version)
    _refuse(faults)
    if jobs is None:
        raise AssertionError("a jobs file without faults has jobs")
    return jobs


def missing_jobs(before: Iterable[str], jobs: JobsFile) -> list[str]:
    """Return the jobs `before` that a newer release has neither kept nor retired.

    Names are compared as they are written: a matrix with fewer values is no accident.
    """
    return sorted(set(before) - set(map(family_of, jobs.job)) - set(jobs.retired))


def _refuse(faults: Iterable[Fault]) -> None:
    text = "; ".join(str(fault) for fault in faults)
    if text:
        raise ReleaseError(text)


def _read(tree: Path, name: str) -> str:
    problem = path_problem(name)
    if problem is not None:
        raise ReleaseError(
            f'release.jobs is "{name}", and {problem}', remedy='write for example "jobs.toml"'
        )
    try:
        with open_regular(tree / name) as file:
            content = file.read(MAX_JOBS_BYTES + 1)
        if len(content) > MAX_JOBS_BYTES:
            raise ReleaseError(f"{name} is larger than {show_size(MAX_JOBS_BYTES)}")
        return content.decode()
    except FileNotFoundError as error:
        raise ReleaseError(f"it has no {name}", remedy=NO_JOBS_FILE) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{name} cannot be read: {error}") from error


def _program_problems(job: Job, path: str) -> list[tuple[str, str]]:
    """Return why a job's program cannot be started, with the remedy; none for containers."""
    program = program_of(job)
    if not program or _is_own(program) or shutil.which(program, path=path):
        return []
    if "/" in program:
        return [
            (f'"{program}" does not exist on this machine', "install it in the machine's image")
        ]
    where = "the release's environment or on the PATH"
    return [(f'no program "{program}" in {where}', "add what brings it to the release's lock")]
