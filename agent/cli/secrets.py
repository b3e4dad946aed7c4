"""`mayfly secrets set|list|rm`. A value comes from a hidden prompt or from stdin, and is never shown."""

import json
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

import click

from agent.base.console import aligned, printable
from agent.base.errors import ExitCode, UsageError
from agent.cli.surroundings import Options, configuration_options, surroundings
from agent.config.settings import Settings
from agent.secrets.parameters import (
    BUCKET,
    GIT,
    JOBS,
    LONGEST_VALUE,
    Group,
    check_name,
    check_value,
    login_group,
    parameter_path,
)
from agent.secrets.private import check_git_value
from agent.secrets.registries import LOGIN_NAMES

if TYPE_CHECKING:
    from agent.secrets.ssm import Parameters

MANY_LINES = frozenset({"key", "known_hosts"})
"""Names of values with several lines, which are not typed."""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which secrets are meant; the command gets them as one `group`."""

    @wraps(command)
    def with_group(
        *arguments: Any,
        of_git: bool,
        of_store: bool,
        registry: str | None,
        index: str | None,
        **others: Any,
    ) -> Any:
        flagged = ((GIT, of_git), (BUCKET, of_store))
        asked = [group for group, wanted in flagged if wanted]
        named = (("registry", registry), ("index", index))
        asked += [login_group(section, name) for section, name in named if name]
        if len(asked) > 1:
            raise UsageError("only one kind of secrets at a time")
        return command(*arguments, group=asked[0] if asked else JOBS, **others)

    for option, metavar, what in (
        ("index", "NAME", "a package index"),
        ("registry", "HOST", "a registry"),
    ):
        help_text = f'Those of {what}, [{option}."{metavar}"]: {", ".join(LOGIN_NAMES)}.'
        with_group = click.option(f"--{option}", metavar=metavar, help=help_text)(with_group)
    for flag, name, group, what in (
        ("--git", "of_git", GIT, "The repository's"),
        ("--bucket", "of_store", BUCKET, "The bucket's own keys"),
    ):
        help_text = f"{what}, {group.key}: {', '.join(group.names)}."
        with_group = click.option(flag, name, is_flag=True, help=help_text)(with_group)
    return configuration_options(with_group)


@click.group()
def secrets() -> None:
    """Keep secrets in AWS: SSM parameters, encrypted, free of charge.

    Those of jobs are below the path of secrets.source, others where their own key of the configuration says.
    """


@secrets.command("set")
@click.argument("name")
@_options
def set_secret(name: str, *, group: Group, options: Options) -> None:
    """Set the secret NAME: type it at the prompt, or pipe it in (one newline at its end is dropped)."""
    check_name(name, group)
    path, parameters = _open(options, group)
    value = check_value(_value(name))
    if group is GIT:
        check_git_value(name, value)
    version = parameters.set(name, value)
    click.echo(f"{path}/{name}: {'set' if version == 1 else f'changed, version {version}'}")


@secrets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@_options
def list_secrets(*, as_json: bool, group: Group, options: Options) -> None:
    """List the secrets: names and dates, never values."""
    path, parameters = _open(options, group)
    found = parameters.all()
    if as_json:
        rows = [
            {"name": one.name, "changed": one.changed.isoformat(), "version": one.version}
            for one in found
        ]
        click.echo(json.dumps({"path": path, "secrets": rows}, indent=1))
        return
    if not found:
        click.echo(f"no secrets under {path}", err=True)
        return
    lines = [("NAME", "CHANGED", "VERSION")]
    lines += [
        (printable(one.name), f"{one.changed.astimezone():%Y-%m-%d %H:%M}", str(one.version))
        for one in found
    ]
    for line in aligned(lines, frozenset({2})):
        click.echo(line)


@secrets.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_options
def remove_secret(name: str, *, yes: bool, group: Group, options: Options) -> None:
    """Remove the secret NAME; this cannot be undone."""
    check_name(name, group)
    path, parameters = _open(options, group)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("no terminal to confirm it", remedy="say --yes")
        click.confirm(f"Remove {path}/{name}?", abort=True)
    if not parameters.remove(name):
        click.echo(f"{path}/{name}: was not there", err=True)
        sys.exit(ExitCode.PARTIAL)
    click.echo(f"{path}/{name}: removed")


def _open(options: Options, group: Group) -> "tuple[str, Parameters]":
    from agent.secrets.ssm import Parameters  # noqa: PLC0415 -- boto3 is slow to import

    around = surroundings()
    settings = options.load_or_fail(around)[0].settings
    path = parameter_path(_source(settings, group), group.key)
    return path, Parameters(path, around.environ)


def _source(settings: Settings, group: Group) -> str | None:
    """Return where the configuration says that the secrets are."""
    section, _, key = group.key.partition(".")
    table = getattr(settings, section)
    if not isinstance(table, Mapping):
        return cast("str | None", getattr(table, key))
    if key not in table:
        raise UsageError(
            f'agent.toml has no [{section}."{key}"]',
            remedy=f'write its credentials = "ssm:/mayfly/..." below [{section}."{key}"]',
        )
    return cast("str", table[key].credentials)


def _value(name: str) -> str:
    """Return the hidden input, or stdin; a byte more than is allowed is enough to reject it."""
    if sys.stdin.isatty():
        if name in MANY_LINES:
            raise UsageError(
                f"{name} has several lines", remedy=f"mayfly secrets set --git {name} < FILE"
            )
        return str(click.prompt(name, hide_input=True, confirmation_prompt=True, err=True))
    try:
        return sys.stdin.buffer.read(LONGEST_VALUE + 16).decode()
    except UnicodeDecodeError as error:
        raise UsageError("the value is not text in UTF-8") from error
