"""The command `mayfly`. Only here, and in `consumer.cli`, are `os.environ` read and `sys.exit` called.

A command's module is imported when it is called, because a machine that is billed by the second pays for imports.
"""

import importlib
import sys

import click

from agent import __version__
from agent.core.errors import MayflyError, UsageError
from agent.core.faults import ConfigurationError
from agent.core.outcome import ExitCode

COMMANDS = {
    "run": ("agent.cli.run:run", "One run, here and now."),
    "demo": ("agent.cli.demo:demo", "A whole run on embedded defaults, with a local site and bucket."),
    "check": ("agent.cli.check:check", "Check the configuration and the jobs: all faults at once."),
    "doctor": ("agent.cli.doctor:doctor", "Try every part a run needs; each failure has its remedy."),
    "status": ("consumer.cli:status", "What the bucket says of recent runs."),
    "verify": ("consumer.cli:verify", "Check a run's files against its manifest, both ways."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed; its own help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names, in the order of a first encounter."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mayfly")
def mayfly() -> None:
    """A cheap machine wakes up, runs its batch, hands the files over and goes away.

    \b
    Exit codes: 0 done, 1 internal error, 2 usage, 3 partial, 4 configuration,
    5 no release could run, 6 hand-off failed (kept for the next run),
    7 interrupted, 8 all jobs failed.
    """


def main() -> None:
    """Run the command line; every expected failure ends with its remedy and its exit code."""
    try:
        mayfly(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(ExitCode.INTERRUPTED)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except ConfigurationError as error:
        for fault in error.faults:
            click.echo(f"error: {fault}", err=True)
        sys.exit(ExitCode.CONFIGURATION)
    except MayflyError as error:
        click.echo(f"error: {error}", err=True)
        if error.remedy:
            click.echo(f"       {error.remedy}", err=True)
        sys.exit(ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.INTERNAL)
