"""`mayfly secrets set|list|rm`. A value comes from a hidden prompt or from stdin, and is never shown."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.base.console import aligned, printable
from agent.base.errors import ExitCode, UsageError
from agent.cli.surroundings import configuration_options, load_or_fail, surroundings
from agent.secrets.parameters import (
    LONGEST_VALUE,
    STORE_NAMES,
    check_name,
    check_value,
    parameter_path,
)

if TYPE_CHECKING:
    from agent.secrets.ssm import Parameters


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    option = click.option(
        "--bucket",
        "of_store",
        is_flag=True,
        help=f"The bucket's own keys, store.credentials: {', '.join(STORE_NAMES)}.",
    )
    return configuration_options(option(command))


@click.group()
def secrets() -> None:
    """Keep the secrets of jobs, and the bucket's keys, in AWS: SSM parameters, encrypted, free of charge.

    They are below the path of secrets.source, or with --bucket of store.credentials.
    """


@secrets.command("set")
@click.argument("name")
@_options
def set_secret(
    name: str,
    *,
    of_store: bool,
    config: Path | None,
    pairs: tuple[str, ...],
    store: str | None,
) -> None:
    """Set the secret NAME: type it at the prompt, or pipe it in (one newline at its end is dropped)."""
    check_name(name, store=of_store)
    path, parameters = _open(config, pairs, store, of_store=of_store)
    version = parameters.set(name, check_value(_value(name)))
    click.echo(f"{path}/{name}: {'set' if version == 1 else f'changed, version {version}'}")


@secrets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@_options
def list_secrets(
    *,
    as_json: bool,
    of_store: bool,
    config: Path | None,
    pairs: tuple[str, ...],
    store: str | None,
) -> None:
    """List the secrets: names and dates, never values."""
    path, parameters = _open(config, pairs, store, of_store=of_store)
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
def remove_secret(
    name: str,
    *,
    yes: bool,
    of_store: bool,
    config: Path | None,
    pairs: tuple[str, ...],
    store: str | None,
) -> None:
    """Remove the secret NAME; there is no way back."""
    check_name(name, store=of_store)
    path, parameters = _open(config, pairs, store, of_store=of_store)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to be asked", remedy="say --yes")
        click.confirm(f"Remove {path}/{name}?", abort=True)
    if not parameters.remove(name):
        click.echo(f"{path}/{name}: was not there", err=True)
        sys.exit(ExitCode.PARTIAL)
    click.echo(f"{path}/{name}: removed")


def _open(
    config: Path | None, pairs: tuple[str, ...], store: str | None, *, of_store: bool
) -> "tuple[str, Parameters]":
    from agent.secrets.ssm import Parameters  # noqa: PLC0415 -- boto3 is slow to import

    around = surroundings()
    settings = load_or_fail(config, pairs, store, around)[0].settings
    key = "store.credentials" if of_store else "secrets.source"
    source = settings.store.credentials if of_store else settings.secrets.source
    path = parameter_path(source, key)
    return path, Parameters(path, around.environ)


def _value(name: str) -> str:
    """Return what was typed, unseen, or what stdin has; a byte more than is allowed is enough to refuse it."""
    if sys.stdin.isatty():
        return str(click.prompt(name, hide_input=True, confirmation_prompt=True, err=True))
    try:
        return sys.stdin.buffer.read(LONGEST_VALUE + 16).decode()
    except UnicodeDecodeError as error:
        raise UsageError("the value is not text in UTF-8") from error
