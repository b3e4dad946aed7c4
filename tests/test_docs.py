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

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
from generate import table  # noqa: E402 -- a program beside the pages, not a package

SECTIONS = [
    field.annotation
    for field in Settings.model_fields.values()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
]
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md")), ROOT / "scrapers" / "README.md"]
CODE = "".join(
    path.read_text("utf-8") for top in ("agent", "consumer") for path in (ROOT / top).rglob("*.py")
)
FILE = re.compile(
    r"`((?:agent|consumer|scrapers|systemd|packer|deploy|tests|benchmarks|docs)/[\w./-]+)`"
)
MADE = {"deploy/aws/ami.json"}
"""What a command writes."""
EVENT = re.compile(r"`((?:run|job|jobs|batch|slot|handoff|spool|recovery|shard)\.[a-z]+_[a-z_]+)`")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    """Files of the project, and events of its log; of a decision that was replaced, the words stay as they were."""
    text = page.read_text("utf-8")
    if "**Replaced** by" in text:
        return
    gone = [name for name in FILE.findall(text) if not (ROOT / name).exists()]
    assert [name for name in gone if name not in MADE] == []
    assert [name for name in EVENT.findall(text) if name not in CODE] == []
