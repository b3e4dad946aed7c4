"""Writes the JSON Schemas from the models, or checks with `--check` that what is committed is what they say."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agent.core.jobsfile import JobsFile
from agent.core.manifest import IndexEntry, Manifest, StartedMarker
from agent.core.settings import Settings

HERE = Path(__file__).parent
MODELS: dict[str, type[BaseModel]] = {
    "agent": Settings,
    "jobs": JobsFile,
    "manifest": Manifest,
    "index": IndexEntry,
    "started": StartedMarker,
}


def schema(model: type[BaseModel]) -> str:
    """Return a model's JSON Schema (2020-12) as text."""
    document: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    document |= model.model_json_schema()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check all schemas; the exit code is that of the check."""
    stale = []
    for name, model in MODELS.items():
        path, text = HERE / f"{name}.schema.json", schema(model)
        if "--check" not in sys.argv:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"not as the models say: {', '.join(stale)}; run `make schemas`", file=sys.stderr)  # noqa: T201
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
