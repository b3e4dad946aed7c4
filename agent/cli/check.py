"""`mayfly check`."""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

import click

from agent import __version__
from agent.base.console import aligned, printable
from agent.base.errors import ContainerError, ExitCode
from agent.cli.surroundings import Options, configuration_options, surroundings
from agent.config.explain import Explained, explained
from agent.config.faults import Fault
from agent.config.jobsfile import JobsFile, parse_jobs
from agent.config.locate import MACHINE_SIGNERS, Surroundings, config_file
from agent.config.settings import Release
from agent.jobs.containers.stackfile import examine_stacks
from agent.release.advice import advice, expected, release_faults
from agent.release.checks import NO_JOBS_FILE
from agent.release.verify import REMEDY, signers_faults

BESIDE = (
    "lay it beside agent.toml, one line a signer (docs/releases.md): the image takes it from there"
)


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found of a release: its faults, what was not checked, and notes for a person."""

    faults: list[Fault] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@click.command()
@configuration_options
@click.argument("jobs", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the faults as JSON.")
@click.option(
    "--explain", is_flag=True, help="Print every key, its value, and where that comes from."
)
def check(options: Options, jobs: Path | None, *, as_json: bool, explain: bool) -> None:
    """Check the configuration and a jobs file, and print all faults of both at once.

    JOBS is a jobs.toml, or a folder with one; by default the one in the working directory, if there is one.
    """
    around = surroundings()
    loaded = options.load(around)
    checked = [loaded.source]
    release = loaded.settings.release
    signers, remedy = release.allowed_signers, REMEDY
    if signers == MACHINE_SIGNERS and not around.machine:
        # The image gets it from the configuration's folder (packer/payload.sh).
        config, _ = config_file(options.config, around.environ)
        signers, remedy = around.cwd / config.parent / signers.name, BESIDE
    faults = [*loaded.faults, *signers_faults(signers, remedy)]
    if signers is not None:
        checked.append(str(signers))
    path = _jobs_path(jobs, release.jobs, around)
    looked = Looked()
    if path is not None:
        checked.append(str(path))
        looked = _look(path, release, around)
        faults += looked.faults
    if as_json:
        data = {
            "checked": checked,
            "unchecked": looked.unchecked,
            "notes": looked.notes,
            "faults": [asdict(fault) for fault in faults],
        }
        if explain:
            data["settings"] = [asdict(value) for value in explained(loaded)]
        click.echo(json.dumps(data))
    else:
        if explain:
            click.echo("\n".join(_lines(explained(loaded))))
        # A jobs file may be a stranger's, and has whatever TOML can escape.
        for reason in looked.unchecked:
            click.echo(f"not checked: {printable(reason)}", err=True)
        for note in looked.notes:
            click.echo(f"note: {printable(note)}", err=True)
        for fault in faults:
            click.echo(printable(str(fault)))
        count = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}" if faults else "no faults"
        click.echo(f"checked {', '.join(checked)}: {count}", err=bool(faults))
    sys.exit(ExitCode.CONFIGURATION if faults else ExitCode.DONE)


def _jobs_path(named: Path | None, usual: str, around: Surroundings) -> Path | None:
    path = around.cwd / (named or usual)
    if path.is_dir():
        path /= usual
    return path if named is not None or path.exists() else None


def _look(path: Path, release: Release, around: Surroundings) -> Looked:
    """Check a jobs file and the release around it, as the machine will before it runs anything of it."""
    try:
        text = around.read(path)
    except UnicodeDecodeError:
        return Looked([Fault(str(path), "", "not a text file in UTF-8")])
    except OSError as error:
        remedy = NO_JOBS_FILE if isinstance(error, FileNotFoundError) else ""
        return Looked([Fault(str(path), "", f"cannot be read: {error.strerror}", remedy)])
    jobs, faults = parse_jobs(text, str(path), __version__)
    if jobs is None:
        return Looked(faults)
    tree, name = _tree(path, release.jobs)
    signed = release.allowed_signers is not None
    faults = release_faults(tree, jobs, name, source=str(path), signed=signed)
    looked = Looked(
        faults, notes=[*advice(tree, jobs, name), *expected(tree, jobs, name, around.environ)]
    )
    _look_at_stacks(looked, jobs, tree, around)
    return looked


def _tree(path: Path, usual: str) -> tuple[Path, str]:
    """Return the release's folder, and the jobs file's path in it: `release.jobs` may be in a folder."""
    parts = PurePosixPath(usual).parts
    if path.absolute().parts[-len(parts) :] == parts:
        return path.absolute().parents[len(parts) - 1], usual
    return path.absolute().parent, path.name


def _look_at_stacks(looked: Looked, jobs: JobsFile, tree: Path, around: Surroundings) -> None:
    """Add what compose says of the stacks that jobs without a fault name."""
    sound = [
        job
        for job in jobs.job
        if not any(fault.key.startswith(f"job[{job.name}].") for fault in looked.faults)
    ]
    try:
        found = asyncio.run(examine_stacks(sound, tree, around.environ))
    except ContainerError as error:
        names = dict.fromkeys(job.compose for job in sound if job.compose)
        looked.unchecked.append(f"{', '.join(names)}: {error.with_remedy}")
        return
    looked.faults.extend(found.faults)
    looked.notes.extend(found.notes)


def _lines(values: list[Explained]) -> list[str]:
    rows = [
        [value.key, printable(json.dumps(value.value, ensure_ascii=False)), printable(value.source)]
        for value in values
    ]
    return aligned([["key", "value", "from"], *rows])
