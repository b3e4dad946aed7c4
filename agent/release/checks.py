"""Checks before a release may run: its jobs file is valid for this agent, and its programs exist."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

Problem = tuple[str, str, str]
"""Key, problem and remedy of a fault of a job."""

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})


@dataclass(frozen=True, slots=True)
class Checks:
    """What a release is checked against: the PATH of `environ` finds the programs that it does not bring."""

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
    missing = _faults(checks.jobs, jobs, lambda job: _program_problem(job, path))
    _refuse((*missing, *file_faults(jobs, tree, checks.jobs)))
    return jobs


def file_faults(jobs: JobsFile, tree: Path, source: str) -> list[Fault]:
    """Return the faults of the release's files that jobs name, as far as they show on any computer.

    These are the scripts and programs that jobs start, and compose files.
    """
    scripts = _faults(source, jobs, lambda job: _script_problem(job, tree))
    return [*scripts, *_faults(source, jobs, lambda job: _stack_problem(job, tree))]


def _faults(source: str, jobs: JobsFile, look: Callable[[Job], Problem | None]) -> Iterator[Fault]:
    """Yield a fault for each job that has a problem."""
    for job in jobs.job:
        if found := look(job):
            key, problem, remedy = found
            yield Fault(source, f"job[{job.name}].{key}", problem, remedy)


def _stack_problem(job: Job, tree: Path) -> Problem | None:
    """Return what is wrong with a job's compose file; compose itself validates the YAML."""
    if job.compose is None or job.service is None:
        return None
    if problem := path_problem(job.compose):
        return "compose", f'is "{job.compose}", and {problem}', "write a path in the release"
    try:
        with open_regular(tree / job.compose) as file:
            text = file.read(MAX_JOBS_BYTES).decode(errors="replace")
    except OSError as error:
        return "compose", f"{job.compose} cannot be read: {error.strerror}", "commit the file"
    # A service may come from a file that this one names.
    if any(word in text for word in (job.service, "include", "extends")):
        return None
    return "service", f'{job.compose} has no service "{job.service}"', ""


def _script_problem(job: Job, tree: Path) -> Problem | None:
    """Return why a job's own file cannot be started. Kernel and shells take a CR as part of the line."""
    program = program_of(job)
    if not program or job.command is None:
        return None
    if _is_own(program) and not shutil.which(tree / program):
        problem = f'"{program}" is not an executable file'
        return "command", problem, "commit it with its executable bit"
    script = job.command[0] if "/" in job.command[0] else _script_of_shell(job.command)
    if script is None or not (_is_own(script) or script != program):
        return None
    try:
        with open_regular(tree / script) as file:
            line = file.readline(MAX_LINE_BYTES)
    except OSError:
        return None
    if not line.endswith(b"\r\n") or not (line.startswith(b"#!") or script != job.command[0]):
        return None
    return (
        "command",
        f'the lines of "{script}" end in CRLF, so that no interpreter is found or understands it',
        f"save it with LF, and keep it so: write `{script.removeprefix('./')} text eol=lf` into .gitattributes",
    )


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


def _program_problem(job: Job, path: str) -> Problem | None:
    """Return why a job's program cannot be started; None for containers."""
    program = program_of(job)
    if not program or _is_own(program) or shutil.which(program, path=path):
        return None
    if "/" in program:
        problem = f'"{program}" does not exist on this machine'
        return "command", problem, "install it in the machine's image"
    problem = f'no program "{program}" in the release\'s environment or on the PATH'
    return "command", problem, "add what brings it to the release's lock"
