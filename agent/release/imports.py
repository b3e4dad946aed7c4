"""Executes the imports of Python programs, and nothing else of them. Run by a release's own interpreter.

It is passed to `python -c`, so it uses the standard library alone, and no syntax that an old Python lacks. It gets
a word, and a list of programs as JSON; it prints the word, a space and the problem of each program as JSON.

A program cannot start without the imports at its left margin. Imports within `try` or `if`, or later ones, may fail.
The program is not imported as a whole: one without `if __name__ == "__main__"` would run.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys


def source_of(module: str) -> tuple[str | None, str | None]:
    """Return the file of a module, and the package that its relative imports refer to."""
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        module += ".__main__"
        spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModuleNotFoundError("No module named " + repr(module))
    found = spec.origin if spec.origin and spec.origin.endswith(".py") else None
    return found, spec.parent


def try_imports(file: str, package: str | None) -> None:
    """Execute the imports at the left margin of a file."""
    with open(file, "rb") as stream:  # noqa: PTH123
        tree = ast.parse(stream.read(), file)
    names = {"__name__": "mayfly_self_check", "__package__": package, "__file__": file}
    for node in tree.body:
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not future:
            exec(compile(ast.Module([node], []), file, "exec"), names)  # noqa: S102


def problem_of(program: dict[str, str]) -> str:
    """Return why a program could not start, or an empty text.

    Only what no environment could mend counts: a module may want a secret, or a folder of the run, to be imported.
    """
    path = list(sys.path)
    try:
        if program["module"]:
            file, package = source_of(program["module"])
        else:
            package = None
            file = program["script"]
            sys.path[0] = os.path.dirname(os.path.abspath(file))  # noqa: PTH100, PTH120
        if file is not None:
            try_imports(file, package)
    except (ImportError, SyntaxError) as error:
        return type(error).__name__ + ": " + str(error)
    except BaseException:  # noqa: BLE001, S110 -- whether the job fails as well, its first run shows
        pass
    finally:
        sys.path[:] = path
    return ""


if __name__ == "__main__":
    word, programs = sys.argv[1], json.loads(sys.argv[2])
    problems = [problem_of(program)[:500] for program in programs]
    sys.stdout.flush()
    os.write(1, ("\n" + word + " " + json.dumps(problems) + "\n").encode())
    # Threads that an import began must not keep the process alive.
    os._exit(0)
