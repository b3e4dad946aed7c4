"""Which Python code a job's command starts, by the command alone. Decisions only."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_PLAIN = frozenset("bBdEhiIOPqsSuvVx?")
"""Options of the interpreter that stand alone."""
_WITH_VALUE = frozenset("WX")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a Python program begins: a module's name (`python -m`), or a file, relative to the release or absolute."""

    module: str = ""
    script: str = ""


def is_python(program: str) -> bool:
    """Tell whether a program is a Python interpreter, by its name."""
    return _PYTHON.fullmatch(program.rpartition("/")[2]) is not None


def entry_of(command: Sequence[str]) -> Entry | None:
    """Return where the Python program of a command begins; None if the command does not say."""
    arguments = list(command[1:])
    while arguments:
        first = arguments.pop(0)
        if not first.startswith("-") or first == "-":
            return None if first == "-" else Entry(script=first)
        letters = first[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter == "m":
                module = letters or (arguments[0] if arguments else "")
                return Entry(module=module) if module else None
            if letter in _WITH_VALUE:
                if not letters and arguments:
                    arguments.pop(0)
                break
            if letter not in _PLAIN:
                return None
    return None
