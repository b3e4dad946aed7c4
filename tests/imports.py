"""What source files import, read from their text: for the rules of the architecture, and for what `make quick` runs."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
STARTS_PROGRAMS = {"subprocess", "asyncio.subprocess", "selenium", "boto3", "requests"}
"""Whoever imports one of these starts a program or asks a server."""


def source_of(module: str) -> Path:
    """Return where a module's source file is, if it is one of ours and no package."""
    return ROOT / f"{module.replace('.', '/')}.py"


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules that a source file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if source_of(name).is_file()}
    return frozenset(found)


@cache
def reaches_a_part(module: str) -> bool:
    """Whether a module of the tests imports, itself or through others of the tests, a real part or a program."""
    path = source_of(module)
    if not path.is_file():
        return False
    reached = imports(path)
    return not reached.isdisjoint(STARTS_PROGRAMS) or any(
        name.startswith("tests.parts") or reaches_a_part(name)
        for name in reached
        if name.startswith("tests.")
    )
