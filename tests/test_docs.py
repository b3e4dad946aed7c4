"""The generated pages say what the models do."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from agent.config.jobsfile import Expect, Job, ReleaseBrowser
from agent.config.settings import Settings

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
from generate import table  # noqa: E402 -- a program beside the pages, not a package

SECTIONS = [
    field.annotation
    for field in Settings.model_fields.values()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
]
ROW = re.compile(r"^\| `(\w+)` \| (?:`(.+?)`)? \|", re.MULTILINE)


@pytest.mark.parametrize("model", [*SECTIONS, Job, Expect, ReleaseBrowser])
def test_a_documented_default_is_the_default(model: type[BaseModel]) -> None:
    """What the page gives as a key's default, written into the file, is what the key is without it."""
    rows = ROW.findall(table(model))
    assert rows or "required" in table(model)
    for name, text in rows:
        if text:
            field = model.model_fields[name]
            annotation: Any = field.annotation
            written = tomllib.loads(f"key = {text}")["key"]
            for parser in field.metadata:
                if func := getattr(parser, "func", None):
                    written = func(written)
            assert (
                TypeAdapter[Any](annotation).validate_python(written, strict=False) == field.default
            ), (name, text)


def test_a_documented_default_is_written_as_people_write_it() -> None:
    """Durations and sizes have units; counts and prices have none."""
    page = (DOCS / "configuration.md").read_text("utf-8")
    for line in ("| `port` | `4444` |", '| `run` | `"2h"` |', '| `shared_memory` | `"2GiB"` |'):
        assert line in page
