"""`mayfly check`."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from agent import __version__
from agent.base.console import aligned, printable
from agent.base.errors import ContainerError, ExitCode
from agent.cli.surroundings import configuration_options, load, surroundings
from agent.config.explain import Explained, explained
from agent.config.faults import Fault
from agent.config.jobsfile import parse_jobs
from agent.config.locate import Surroundings
from agent.jobs.containers.stackfile import examine_stacks
from agent.release.checks import stack_faults
from agent.release.verify import signers_faults


@click.command()
@configuration_options
@click.argument("jobs", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the faults as JSON.")
@click.option(
    "--explain", is_flag=True, help="Print every key, its value, and where that comes from."
)
def check(
    config: Path | None,
    pairs: tuple[str, ...],
    store: str | None,
    jobs: Path | None,
    *,
    as_json: bool,
    explain: bool,
) -> None:
    """Check the configuration and a jobs file, and print all faults of both at once.

    JOBS is a jobs.toml, or a folder with one; by default the one in the working directory, if there is one.
    """
    around = surroundings()
    loaded = load(config, pairs, store, around)
    checked = [loaded.source]
    release = loaded.settings.release
    faults = [*loaded.faults, *signers_faults(release)]
    if release.allowed_signers is not None:
        checked.append(str(release.allowed_signers))
    path = _jobs_path(jobs, release.jobs, around)
    unchecked: list[str] = []
    if path is not None:
        checked.append(str(path))
        found, unchecked = _jobs_faults(path, around)
        faults += found
    if as_json:
        data = {
            "checked": checked,
            "unchecked": unchecked,
            "faults": [_data(fault) for fault in faults],
        }
        if explain:
            data["settings"] = [asdict(value) for value in explained(loaded)]
        click.echo(json.dumps(data))
    else:
        if explain:
            click.echo("\n".join(_lines(explained(loaded))))
        for reason in unchecked:
            click.echo(f"not checked: {reason}", err=True)
        for fault in faults:
            click.echo(str(fault))
        count = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}" if faults else "no faults"
        click.echo(f"checked {', '.join(checked)}: {count}", err=bool(faults))
    sys.exit(ExitCode.CONFIGURATION if faults else ExitCode.DONE)


def _jobs_path(named: Path | None, usual: str, around: Surroundings) -> Path | None:
    path = around.cwd / (named or usual)
    if path.is_dir():
        path /= usual
    return path if named is not None or path.exists() else None


def _jobs_faults(path: Path, around: Surroundings) -> tuple[list[Fault], list[str]]:
    """Return what is wrong with a jobs file and the stacks that it names, and which of them could not be checked."""
    try:
        text = around.read(path)
    except UnicodeDecodeError:
        return [Fault(str(path), "", "not a text file in UTF-8")], []
    except OSError as error:
        return [Fault(str(path), "", f"cannot be read: {error.strerror}")], []
    jobs, faults = parse_jobs(text, str(path), __version__)
    if jobs is None:
        return faults, []
    faults = stack_faults(jobs, path.parent, str(path))
    sound = [
        job
        for job in jobs.job
        if not any(fault.key.startswith(f"job[{job.name}].") for fault in faults)
    ]
    try:
        return [*faults, *asyncio.run(examine_stacks(sound, path.parent, around.environ))], []
    except ContainerError as error:
        stacks = dict.fromkeys(job.compose for job in sound if job.compose)
        return faults, [f"{', '.join(stacks)}: {error.with_remedy}"]


def _lines(values: list[Explained]) -> list[str]:
    rows = [
        [value.key, printable(json.dumps(value.value, ensure_ascii=False)), printable(value.source)]
        for value in values
    ]
    return aligned([["key", "value", "from"], *rows])


def _data(fault: Fault) -> dict[str, str]:
    return {
        "source": fault.source,
        "key": fault.key,
        "problem": fault.problem,
        "remedy": fault.remedy,
    }
