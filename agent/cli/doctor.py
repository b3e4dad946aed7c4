"""`mayfly doctor`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from agent import __version__
from agent.base import threads
from agent.base.logs import RunLogger, console_sink
from agent.base.urlsecrets import environment_secrets
from agent.cli.surroundings import Options, colors, configuration_options, surroundings
from agent.config.jobsfile import JobsFile, parse_jobs
from agent.config.locate import Surroundings, locate
from agent.doctor.aws import aws_checks
from agent.doctor.checks import CHECKS
from agent.doctor.cloud import Deployment
from agent.doctor.examine import Check, Installation, examine
from agent.doctor.report import as_data, as_lines, exit_code

STACK = "mayfly"
DEPLOYMENT = Path(__file__).parents[2] / "deploy" / "aws"


@click.command()
@configuration_options
@click.option("--aws", is_flag=True, help="Look at the stack on AWS instead, from this computer.")
@click.option("--stack", default=STACK, show_default=True, help="The stack of --aws.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show what the parts say meanwhile.")
def doctor(options: Options, *, aws: bool, stack: str, as_json: bool, verbose: bool) -> None:
    """Try every part that a run needs, all at once; each failure prints its remedy.

    Nothing is run and nothing is kept: what is written to the bucket is deleted again. With --aws it is asked whether
    the stack will do its work tonight: template, image, configuration, secrets, role, schedules, quota.
    """
    around = surroundings()
    loaded = options.load(around)
    sinks = [console_sink(sys.stderr, colors=colors(sys.stderr, around))] if verbose else []
    run_logger = RunLogger(*sinks)
    run_logger.add_secrets(loaded.settings.sensitive() | environment_secrets(around.environ))
    installation = Installation(
        settings=loaded.settings,
        source=loaded.source,
        faults=loaded.faults,
        places=locate(loaded.settings.paths, around),
        environ=around.environ,
        machine=around.machine,
        log=run_logger.log,
        jobs=_jobs_here(around, loaded.settings.release.jobs),
    )
    checks: Sequence[Check] = CHECKS
    if aws:
        deployment = Deployment(
            *(around.environ, stack, DEPLOYMENT),
            configure=lambda launch: options.load(replace(around, launch=launch)),
        )
        checks = aws_checks(deployment)
    findings = threads.run(examine(installation, checks))
    if as_json:
        click.echo(json.dumps(as_data(findings), indent=1))
    else:
        coloured = colors(sys.stdout, around)
        for line in as_lines(
            findings, lambda text, colour: click.style(text, fg=colour) if coloured else text
        ):
            click.echo(line)
    sys.exit(exit_code(findings))


def _jobs_here(around: Surroundings, name: str) -> JobsFile | None:
    """Return the jobs of the working directory, where it has a jobs file without faults."""
    try:
        text = around.read(around.cwd / name)
    except (OSError, UnicodeDecodeError):
        return None
    return parse_jobs(text, name, __version__)[0]
