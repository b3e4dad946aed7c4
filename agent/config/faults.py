"""Faults of configuration files: all of them at once, each with its file, key and remedy. Decisions only."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from agent.base.errors import ExitCode, MayflyError

LONGEST_SHOWN = 200
"""Characters of a wrong value, or of what is wrong with it, that a person is shown."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a configuration file, an environment variable or a flag.

    Attributes:
        source: The file, or what else gave the value (`environment`, `--set`).
        key: The key's dotted path; empty for the file as a whole.
        problem: What is wrong.
        remedy: What to write instead; may be empty.
    """

    source: str
    key: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.source}: {self.key}" if self.key else self.source
        return f"{where}: {self.problem}" + (f" ({self.remedy})" if self.remedy else "")


class ConfigurationError(MayflyError):
    """One or more configuration files have faults: all that were found, in the order of the files."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, faults: Iterable[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))


def read_toml(text: str, source: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return a TOML document and its fault, if it cannot be read.

    No text in it has a NUL: neither an argument nor a variable nor a path can, and so nothing that is written here.
    """
    try:
        # Some editors write a byte order mark before everything.
        data = tomllib.loads(text.removeprefix("\ufeff"))
    except ValueError as error:  # not every number that it cannot make is a TOMLDecodeError
        return {}, [Fault(source, "", f"not valid TOML: {str(error)[:LONGEST_SHOWN]}")]
    except RecursionError:
        return {}, [Fault(source, "", "not valid TOML: nested too deeply")]
    if "0000" in text and _has_nul(data):
        return {}, [Fault(source, "", "has a NUL in a text (\\u0000)", "remove it")]
    return data, []


def _has_nul(data: Any) -> bool:
    waiting = [data]  # a key with thousands of dots makes as many tables: too many for calls
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and "\0" in value:
            return True
    return False


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return `did you mean "x"?` for the nearest known word, or the words to choose from."""
    words = sorted(known)
    near = difflib.get_close_matches(wrong, words, n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else f"known: {', '.join(words)}"


def faults_of(
    error: ValidationError,
    model: type[BaseModel],
    data: Mapping[str, Any],
    source: str,
) -> list[Fault]:
    """Translate pydantic's findings on `data` into faults with key and remedy."""
    found = error.errors(include_url=False)
    return [
        Fault(source, _key(each["loc"], data), _problem(each), _remedy(each, model))
        for each in found
        if not _is_echo(each, found)
    ]


def _is_echo(one: Any, found: list[Any]) -> bool:
    """Tell whether a list counts as too short only because its items have faults of their own."""
    depth = len(one["loc"])
    return one["type"] == "too_short" and any(
        len(other["loc"]) > depth and other["loc"][:depth] == one["loc"] for other in found
    )


def _key(location: tuple[int | str, ...], data: Any) -> str:
    """Return `job[quotes].timeout` rather than `job.0.timeout`: people know names, not positions."""
    path = ""
    for step in location:
        if isinstance(step, int):
            item = data[step] if isinstance(data, list) and step < len(data) else None
            name = item.get("name") if isinstance(item, dict) else None
            path += f"[{name if isinstance(name, str) else step + 1}]"
            data = item
            continue
        path += f".{step}" if path else step
        data = data.get(step) if isinstance(data, dict) else None
    return path


def _problem(found: Any) -> str:
    kind, message = str(found["type"]), str(found["msg"])
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(found["ctx"]["error"])
    if kind == "too_short":
        return "must not be empty"
    got = found["input"]
    return message[:1].lower() + message[1:] + _shown(got)


def _shown(got: object) -> str:
    """Return what stood there instead, where that helps: a long text or number does not."""
    if isinstance(got, int) and got.bit_length() > LONGEST_SHOWN:
        return ", not a number as large"  # Python itself refuses to print some
    if not isinstance(got, str | int | float | bool):
        return ""
    text = repr(got)
    return f", not {text}" if len(text) <= LONGEST_SHOWN else f", not {text[:LONGEST_SHOWN]}..."


def _remedy(found: Any, model: type[BaseModel]) -> str:
    if found["type"] != "extra_forbidden":
        return ""
    *parents, key = found["loc"]
    return suggest(str(key), _keys_at(model, parents))


def _keys_at(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """Return the keys that the model knows at a location."""
    here: type[BaseModel] | None = model
    named = False  # whether people chose the name that comes next
    for step in path:
        if here is None or isinstance(step, int) or named:
            named = False
            continue
        field = here.model_fields.get(step)
        here = _model_in(field.annotation) if field else None
        named = field is not None and get_origin(field.annotation) is dict
    return list(here.model_fields) if here else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model within an annotation such as `tuple[Job, ...]` or `Browser | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((part for part in parts if part is not None), None)
