"""Which file declares a release's dependencies, whether it pins them, and what uv does with it. Decisions only."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from agent.base.errors import ReleaseError

Read = Callable[[str], bytes | None]
"""Returns the content of a file of the release, by its path; None without such a file."""

UV_LOCK, PYLOCK, POETRY, PIPENV = "uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock"
REQUIREMENTS, PROJECT = "requirements.txt", "pyproject.toml"
READ = (UV_LOCK, PYLOCK, REQUIREMENTS, POETRY, PIPENV, PROJECT)
"""Files that count. A `requirements.txt` without hashes comes after the locks."""

NOT_READ = {
    "Pipfile": "pipenv lock, and commit Pipfile.lock",
    "pdm.lock": "pdm export --format pylock --output pylock.toml",
    "requirements.in": "uv pip compile --generate-hashes requirements.in --output-file requirements.txt",
    "environment.yml": "packages of conda are not installed: name them in pyproject.toml, or run a container",
    "environment.yaml": "packages of conda are not installed: name them in pyproject.toml, or run a container",
    "setup.py": "write a pyproject.toml with [build-system], then uv lock",
    "setup.cfg": "write a pyproject.toml with [build-system], then uv lock",
}
"""Files that people expect to count, and what to do instead."""

POETRY_FORMAT = (2, 1)
"""The first that has each package's groups and conditions (Poetry 2)."""
SHOWN = 5
"""Requirements that a message names."""

_REQUIRES_PYTHON = re.compile(rb'^requires-python = "([^"]*)"', re.MULTILINE)
_ASKS_GIT = re.compile(r"setuptools[-_]scm|hatch-vcs|pbr|pdm-backend|dynamic-versioning")
_INCLUDES = re.compile(r"-r|--requirement")
_EDITABLE = re.compile(r"-e|--editable")


@dataclass(frozen=True, slots=True)
class InstallStep:
    """One call of uv; if it `builds` the release itself, that may ask git for a version."""

    arguments: tuple[str, ...]
    stdin: bytes | None = None
    builds: bool = False


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The dependencies of a release.

    Attributes:
        file: The file that declares them, from the release's folder.
        steps: The calls of uv in that file's folder.
        python: The Python it asks for, as a version specifier; empty for any.
        unpinned: Why another day may install something else; empty if every file has a hash.
    """

    file: str
    steps: tuple[InstallStep, ...]
    python: str = ""
    unpinned: str = ""

    @property
    def folder(self) -> str:
        """The file's folder."""
        return str(PurePosixPath(self.file).parent)


def dependencies_of(read: Read, jobs: str) -> Dependencies | None:
    """Return a release's dependencies, given the path of its jobs file; None if no file declares them.

    The nearest file counts: beside the jobs file, else in the folders above it, up to the release's own.

    Raises:
        ReleaseError: The file that counts is invalid.
    """
    for folder in PurePosixPath(jobs).parents:
        found = _in_folder(lambda name, folder=folder: read(str(folder / name)), folder)  # type: ignore[misc]
        if found is not None:
            return found
    return None


def _in_folder(read: Read, folder: PurePosixPath) -> Dependencies | None:
    def file(name: str) -> str:
        return str(folder / name)

    if (lock := read(UV_LOCK)) is not None:
        found = _REQUIRES_PYTHON.search(lock)
        python = found.group(1).decode(errors="replace") if found else ""
        return Dependencies(file(UV_LOCK), _sync(_project(read(PROJECT))), python)
    if read(PYLOCK) is not None:
        return Dependencies(
            file(PYLOCK), (InstallStep(("pip", "install", "--requirement", PYLOCK)),)
        )
    content = read(REQUIREMENTS)
    requirements = None if content is None else _decoded(content, file(REQUIREMENTS))
    if requirements is not None and not _requirements(requirements):
        requirements = None  # it is there for its comments
    bare = unhashed(requirements) if requirements is not None else []
    if requirements is not None and not bare:
        return Dependencies(file(REQUIREMENTS), (_pip(content, requirements, hashed=True),))
    for name, convert in ((POETRY, poetry_requirements), (PIPENV, pipenv_requirements)):
        if (lock := read(name)) is not None:
            text = convert(_decoded(lock, file(name)), file(name))
            return Dependencies(file(name), (_pip(None, text, hashed=True),))
    if requirements is not None:
        text = f"{file(REQUIREMENTS)} has no hashes for {', '.join(bare[:SHOWN])}"
        steps = (_pip(content, requirements, hashed=False),)
        return Dependencies(file(REQUIREMENTS), steps, unpinned=text)
    return _of_project(_project(read(PROJECT)), file(PROJECT))


def _sync(project: Mapping[str, Any]) -> tuple[InstallStep, ...]:
    command = ("sync", "--frozen", "--no-dev", "--no-editable")
    if not asks_git(project):
        return (InstallStep(command),)
    # uv tells the version to everything that it builds, so that dependencies are built before, without it.
    return (InstallStep((*command, "--no-install-project")), InstallStep(command, builds=True))


def _pip(content: bytes | None, text: str, *, hashed: bool) -> InstallStep:
    command = ("pip", "install", *(("--require-hashes",) if hashed else ()), "--requirement")
    plain = text.encode()
    if content == plain:
        return InstallStep((*command, REQUIREMENTS))  # so that uv's complaints name the file
    return InstallStep((*command, "-"), stdin=plain)


def _of_project(project: Mapping[str, Any], file: str) -> Dependencies | None:
    """Return the dependencies of a `pyproject.toml` without a lock; one that only configures tools has none."""
    table, tool = project.get("project"), _table(project, "tool")
    built = "build-system" in project and _table(tool, "poetry").get("package-mode") is not False
    built = built and _table(tool, "uv").get("package") is not False
    if not isinstance(table, dict) and not built:
        return None
    steps = [InstallStep(("pip", "install", "--requirement", PROJECT))] if table else []
    steps += [InstallStep(("pip", "install", "."), builds=True)] if built else []
    python = str(_table(project, "project").get("requires-python", ""))
    return Dependencies(file, tuple(steps), python, f"{file} has no lock beside it")


def asks_git(project: Mapping[str, Any]) -> bool:
    """Tell whether building a project asks git for its version: a release has no git history."""
    build = _table(project, "build-system").get("requires")
    asks = isinstance(build, list) and any(_ASKS_GIT.search(str(each)) for each in build)
    return asks and "version" not in _table(project, "project")


def pretended(version: str) -> dict[str, str]:
    """Return the variables that give a version to builds that ask git for one."""
    return dict.fromkeys(
        (
            "SETUPTOOLS_SCM_PRETEND_VERSION",  # hatch-vcs asks setuptools-scm
            "PBR_VERSION",
            "PDM_BUILD_SCM_VERSION",
            "POETRY_DYNAMIC_VERSIONING_BYPASS",
            "UV_DYNAMIC_VERSIONING_BYPASS",
        ),
        version,
    )


def not_read(names: Sequence[str], found: Dependencies | None) -> Iterator[tuple[str, str]]:
    """Yield the files of a release that do not count although a person may expect it, each with a sentence."""
    for path in sorted(names):
        name = PurePosixPath(path).name
        same = found is not None and str(PurePosixPath(path).parent) == found.folder
        if name in NOT_READ and not same:
            yield path, f"is not read: {NOT_READ[name]}"
        elif name in READ and name != PROJECT and (found is None or path != found.file):
            counts = f"{found.file} is" if found else "only one beside the jobs file or above is"
            yield path, f"is not read: {counts}"


def unhashed(text: str) -> list[str]:
    """Return the requirements of a `requirements.txt` that have no hash.

    If anything here has a hash, files that it includes are checked by uv, which gets `--require-hashes`; else they
    count as requirements without.
    """
    lines = _requirements(text)
    some = any("--hash=" in line for line in lines)
    return [
        re.split(r"[\s;]", line)[0] if not line.startswith("-") else line
        for line in lines
        if "--hash=" not in line and not (some and _INCLUDES.match(line))
    ]


def _requirements(text: str) -> list[str]:
    """Return the lines of a `requirements.txt` that bring packages; options, such as an index, bring none."""
    lines = re.sub(r"\\\r?\n", " ", text).splitlines()
    wanted = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [
        line
        for line in wanted
        if line and (not line.startswith("-") or _INCLUDES.match(line) or _EDITABLE.match(line))
    ]


def poetry_requirements(text: str, file: str) -> str:
    """Return the packages of a `poetry.lock` without its optional groups, as requirements with hashes.

    Raises:
        ReleaseError: It is invalid, is of an older Poetry, or has a package without a hash.
    """
    try:
        lock = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{file} cannot be installed: not valid TOML: {error}"[:300]) from error
    version = str(_table(lock, "metadata").get("lock-version", ""))[:20]
    if tuple(int(part) for part in version.split(".") if part.isdecimal()) < POETRY_FORMAT:
        raise ReleaseError(
            f"{file} cannot be installed: its format, {version or 'of an early Poetry'}, does not say which group a"
            " package is in",
            remedy="poetry lock with Poetry 2 or newer, and commit it",
        )
    packages = [each for each in _list(lock, "package", file) if isinstance(each, dict)]
    return "".join(
        _requirement(
            file,
            each.get("name"),
            each.get("version")
            if _table(each, "source").get("type", "legacy") == "legacy"
            else None,
            [
                str(one["hash"])
                for one in _list(each, "files", file)
                if isinstance(one, dict) and "hash" in one
            ],
            _marker(each.get("markers")),
        )
        for each in packages
        if "main" in _list(each, "groups", file, absent=["main"]) and not each.get("optional")
    )


def pipenv_requirements(text: str, file: str) -> str:
    """Return the default packages of a `Pipfile.lock` as requirements with hashes.

    Raises:
        ReleaseError: It is invalid, or has a package without a hash.
    """
    try:
        lock = json.loads(text)
        packages = {**_table(lock, "default")}
    except (ValueError, RecursionError, AttributeError) as error:
        raise ReleaseError(f"{file} cannot be installed: it is not JSON") from error
    return "".join(
        _requirement(
            file,
            name,
            str(each.get("version", "")).removeprefix("=="),  # what comes from git has none
            [str(one) for one in _list(each, "hashes", file)],
            str(each.get("markers", "")),
        )
        for name, each in packages.items()
        if isinstance(each, dict)
    )


def _requirement(
    file: str, name: str | None, version: str | None, hashes: Sequence[str], marker: str
) -> str:
    if not (name and version and hashes):
        shown = (name or "one of its packages").encode(errors="replace").decode()
        raise ReleaseError(
            f"{file} cannot be installed: no hash pins {shown}",
            remedy="take it from an index, or use uv.lock",
        )
    condition = f" ; {marker}" if marker else ""
    pins = "".join(f" --hash={one}" for one in hashes)
    line = f"{name}=={version}{condition}{pins}"
    # A second line could be an option of uv, and half a character is no text.
    if not line.isprintable():
        raise ReleaseError(f"{file} cannot be installed: {line[:80]!a} is no requirement")
    return f"{line}\n"


def _marker(markers: object) -> str:
    """Return the condition of a package in Poetry's main group; it may have one a group."""
    return str(markers.get("main", "")) if isinstance(markers, dict) else str(markers or "")


def _decoded(content: bytes, file: str) -> str:
    """Return a file's text: UTF-8, or UTF-16 with a byte order mark, as PowerShell writes it."""
    encoding = "utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ReleaseError(
            f"{file} cannot be read: it is not UTF-8", remedy="save it so"
        ) from error


def _project(content: bytes | None) -> Mapping[str, Any]:
    """Return a `pyproject.toml`; empty if it is invalid, which uv reports."""
    try:
        return tomllib.loads(content.decode()) if content else {}
    except (ValueError, RecursionError):
        return {}


def _list(
    data: Mapping[str, Any], key: str, file: str, absent: Sequence[Any] = ()
) -> Sequence[Any]:
    """Return a list of the lock `file`.

    Raises:
        ReleaseError: It is something else.
    """
    value = data.get(key, absent)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ReleaseError(f"{file} cannot be installed: {key} is not a list")
    return value


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
