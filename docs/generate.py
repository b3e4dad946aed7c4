"""Writes what follows from the models: the JSON Schemas and the configuration reference. `--check` only compares."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agent.base.units import parse_duration, parse_size, parse_span
from agent.config.jobsfile import Expect, Job, JobsFile, ReleaseBrowser
from agent.config.settings import Settings
from agent.contract.entries import Entry
from agent.contract.manifest import Manifest
from agent.contract.package import Package
from agent.contract.releases import ReleaseEntry

HERE = Path(__file__).parent
MODELS: dict[str, type[BaseModel]] = {
    "agent": Settings,
    "jobs": JobsFile,
    "entry": Entry,
    "job-package": Package,
    "run-manifest": Manifest,
    "release": ReleaseEntry,
}
HEAD = """# Configuration

This page is generated from the models (`make docs`); `mayfly check` finds all faults of both files at once.

## agent.toml

Read from `--config`, else `$MAYFLY_CONFIG`, else `/etc/mayfly/agent.toml`. Every key is optional. On a machine of
EC2's, [what it was launched with](launch.md) stands above the file, key by key; above that an environment variable
(`MAYFLY_STORE_URL` for `store.url`), and above that a flag (`--set store.url=...`). `mayfly check --explain` says where
each value comes from.
Durations are written `"90s"`, `"10m"` or `"1h30m"`, sizes `"500kB"` (1000) or `"2GiB"` (1024). Editors that
know JSON Schema can use [schemas/agent.schema.json](schemas/agent.schema.json).
"""
JOBS = """
## jobs.toml

At the root of a release (`release.jobs`). Schema: [schemas/jobs.schema.json](schemas/jobs.schema.json).
"""


def schema(model: type[BaseModel]) -> str:
    """Return a model's JSON Schema (2020-12) as text."""
    document: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    document |= model.model_json_schema()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def reference() -> str:
    """Return the configuration reference."""
    parts = [HEAD]
    for name, field in Settings.model_fields.items():
        section, title = field.annotation, name
        if named := get_args(section):  # a table of tables, by names that people choose
            section, title = named[-1], f'{name}."..."'
        if isinstance(section, type) and issubclass(section, BaseModel):
            parts.append(f"\n### [{title}]\n\n{section.__doc__}\n\n{table(section)}")
    parts += [JOBS, f"\n{table(JobsFile)}"]
    for title, model in (("[[job]]", Job), ("expect", Expect), ("[browser]", ReleaseBrowser)):
        parts.append(f"\n### {title}\n\n{table(model)}")
    return "".join(parts)


def table(model: type[BaseModel]) -> str:
    """Return a model's keys as a Markdown table."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    rows += [
        f"| `{name}` | {default(field)} | {(field.description or '').replace('|', chr(92) + '|')} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join(rows) + "\n"


def default(field: FieldInfo) -> str:
    """Return a key's default as it would be written."""
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ((), {}) or isinstance(value, BaseModel):
        return ""
    if not isinstance(value, bool):
        written = next(filter(None, map(WRITTEN.get, parsers(field))), None)
        if written is not None:
            return f"`{json.dumps(written(value))}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def duration(seconds: float) -> str:
    """Return a duration as it would be written: `2h`, `10m`, `45s`."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def size(number: int) -> str:
    """Return a size as it would be written: `2GiB`, `1MiB`, `100B`."""
    for unit, power in (("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if number and number % 1024**power == 0:
            return f"{number // 1024**power}{unit}"
    return f"{number}B"


WRITTEN: dict[object, Callable[[Any], str]] = {
    parse_duration: duration,
    parse_span: duration,
    parse_size: size,
}
"""How a value is written, by the function that reads it."""


def parsers(field: FieldInfo) -> Iterator[object]:
    """Yield the functions that read a key's value, wherever its type names them."""
    waiting: list[Any] = [*field.metadata, field.annotation]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BeforeValidator):
            yield part.func
        waiting += get_args(part)


def documents() -> Iterator[tuple[Path, str]]:
    """Yield every generated file with its text."""
    yield HERE / "configuration.md", reference()
    for name, model in MODELS.items():
        yield HERE / "schemas" / f"{name}.schema.json", schema(model)


def main() -> int:
    """Write or check all documents; the exit code is that of the check."""
    stale = []
    for path, text in documents():
        if "--check" not in sys.argv:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"not as the models say: {', '.join(stale)}; run `make docs`", file=sys.stderr)  # noqa: T201
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
