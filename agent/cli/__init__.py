"""The command `mayfly`. Only here, and in `consumer.cli`, are `os.environ` read and `sys.exit` called.

A command's module is imported when it is called, because a machine that is billed by the second pays for imports.
"""

import gc
import importlib
import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import click

from agent import __version__
from agent.base.console import printable
from agent.base.errors import ExitCode, MayflyError, UsageError

GARBAGE = 10_000
"""New objects after which the garbage collector runs, instead of 700: imports make many objects and no garbage."""

COMMANDS = {
    "run": ("agent.cli.run:run", "One run, here and now."),
    "rerun": ("agent.cli.rerun:rerun", "A job of an earlier run once more, here."),
    "demo": (
        "agent.cli.demo:demo",
        "A whole run on embedded defaults, with a local site and bucket.",
    ),
    "check": ("agent.cli.check:check", "Check the configuration and the jobs: all faults at once."),
    "doctor": (
        "agent.cli.doctor:doctor",
        "Try every part a run needs; each failure has its remedy.",
    ),
    "prepare": ("agent.cli.prepare:prepare", "Fetch what a run needs, and run nothing."),
    "secrets": ("agent.cli.secrets:secrets", "Set, list and remove secrets in AWS."),
    "release": (
        "agent.cli.release:release",
        "Which releases are here; pin one, go back, make a new one.",
    ),
    "maintain": ("agent.cli.maintain:maintain", "Keep the machine on for a person, for a while."),
    "status": ("consumer.cli.status:status", "Did the last runs work, and what fails now?"),
    "show": ("consumer.cli.show:show", "What happened in a run, or to a job of it."),
    "logs": ("consumer.cli.logs:logs", "The log of a run, also while it goes on."),
    "cost": ("consumer.cli.cost:cost", "What the runs of a month cost, and a forecast."),
    "pull": ("consumer.cli.pull:pull", "Fetch new runs into a folder, verified and whole."),
    "diff": ("consumer.cli.diff:diff", "What changed in a job's results since the run before."),
    "serve": ("consumer.cli.serve:serve", "At home: metrics, status page, and pulling."),
    "verify": (
        "consumer.cli.verify:verify",
        "Check all that a run, a job or a pulled folder names, byte by byte.",
    ),
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

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; every expected failure prints its remedy and ends with its exit code."""
        try:
            _require_folder()
            return super().invoke(ctx)
        except MayflyError as error:
            sys.exit(_complain(error))

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
    5 no release could run, 6 hand-off failed (kept where the disk stays),
    7 interrupted, 8 all jobs failed.
    """  # noqa: D301 -- \b is the backspace that tells click to keep the lines


def main() -> NoReturn:
    """Run the command line and end the process."""
    gc.set_threshold(GARBAGE)
    # Without this, pydantic searches the metadata of every installed package for a plugin.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    code: int = ExitCode.DONE
    _open_closed_streams()
    try:
        mayfly(standalone_mode=False)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else ExitCode.INTERNAL
    except click.exceptions.Abort:
        code = ExitCode.INTERRUPTED
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        code = ExitCode.USAGE
    except BaseException as error:  # noqa: BLE001 -- a defect of ours, told with all that is known of it
        with suppress(OSError):
            click.echo(_unprinted(error) or _safe(traceback.format_exc()), err=True, nl=False)
        code = ExitCode.INTERNAL
    leave(code)


def _open_closed_streams() -> None:
    """Give a process that was started with `<&-` or `>&-` streams that read and take nothing, as others have."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 -- until the process ends


def _unprinted(error: BaseException) -> str:
    """Return a line about output that could not be written, as on a full disk; empty for another error."""
    raised_in = traceback.extract_tb(error.__traceback__)[-1].name
    if not isinstance(error, OSError) or raised_in != click.echo.__name__:
        return ""
    return f"error: the output cannot be written: {error.strerror}\n"


def _require_folder() -> None:
    try:
        os.getcwd()  # noqa: PTH109 -- only whether there is one
    except OSError as error:
        raise UsageError(
            f"the working directory cannot be used: {error.strerror}", remedy="cd into another one"
        ) from error


def _complain(error: MayflyError) -> ExitCode:
    """Print an error and its remedy; the text may come from a bucket, so control characters are removed."""
    for line in _safe(str(error)).splitlines():
        click.echo(f"error: {printable(line)}", err=True)
    if error.remedy:
        click.echo(f"       {printable(_safe(error.remedy))}", err=True)
    return error.exit_code


def _safe(text: str) -> str:
    """Return an error's text without secrets, as far as they are known without the configuration."""
    from agent.base.redact import Redactor, without_credentials  # noqa: PLC0415 -- only failures need them
    from agent.base.urlsecrets import environment_secrets  # noqa: PLC0415

    return Redactor(environment_secrets(os.environ)).text(without_credentials(text))


def leave(code: int) -> NoReturn:
    """End the process without the interpreter's own shutdown.

    The bucket's client has threads that may want the interpreter's lock while it is being finalised, which ends the
    process with SIGABRT in about one of ten listings (docs/decisions/0003). All our own clean-up has happened by now.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(int(code))
