"""What a person should know of a release before it runs, and what keeps it from running: read from its files."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from agent.base.errors import ReleaseError
from agent.base.regular import open_regular
from agent.base.zones import zone_of
from agent.config.faults import Fault
from agent.config.jobsfile import JobsFile, program_of
from agent.release.checks import file_faults
from agent.release.dependencies import Dependencies, dependencies_of, not_read
from agent.release.programs import entry_of, is_python

MAX_BYTES = 32 * 1024**2
"""Bytes that are read of a lock."""
PINNED = "uv lock, or uv pip compile --generate-hashes"
_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_POINTER_BYTES = 1024
"""More than any pointer of Git LFS has, by its specification."""
_SHOWN = 3
_IMPORT = re.compile(
    r"^(?:from[ \t]+([A-Za-z_][\w.]*)|import[ \t]+([A-Za-z_][\w., \t]*))", re.MULTILINE
)
_SKIPPED = re.compile(r"\.|node_modules|venv|__pycache__")
"""Folders that never hold a person's lock."""


def needed(tree: Path, jobs: JobsFile, name: str) -> Dependencies | None:
    """Return a release's dependencies; None if no job needs any (containers bring their own), or no file declares them.

    `name` is the path of its jobs file in its `tree`.

    Raises:
        ReleaseError: The file that counts is invalid.
    """
    if all(job.in_container for job in jobs.job):
        return None
    return dependencies_of(lambda path: _content(tree / path), name)


def refuse_unpinned(found: Dependencies | None, *, signed: bool) -> None:
    """Require hashes in signed releases: without them, what runs is not what was signed.

    Raises:
        ReleaseError: It is signed, and something has no hash.
    """
    if signed and found is not None and found.unpinned:
        raise ReleaseError(f"{found.unpinned}, and releases are signed here", remedy=PINNED)


def advice(tree: Path, jobs: JobsFile, name: str) -> tuple[str, ...]:
    """Return what a person should know of a release that can run; arguments as for `needed`."""
    found, notes = None, list[str]()
    with suppress(ReleaseError):
        found = needed(tree, jobs, name)
    if found is not None and found.unpinned:
        notes.append(f"{found.unpinned}: another day may install something else (pin it: {PINNED})")
    if pointers := sorted(_lfs_pointers(tree)):
        more = f" and {len(pointers) - _SHOWN} more" if len(pointers) > _SHOWN else ""
        notes.append(
            f"{', '.join(pointers[:_SHOWN])}{more}: stored with Git LFS, of which a release gets the pointer and not"
            " the content (git lfs migrate export, or have the job download it)"
        )
    return tuple(notes)


def release_faults(
    tree: Path, jobs: JobsFile, name: str, *, source: str, signed: bool
) -> list[Fault]:
    """Return the faults of a release's files besides its jobs file, as far as they show on any computer.

    Arguments as for `needed`; `source` is what a person calls the jobs file, `signed` whether releases are signed here.
    """
    faults = file_faults(jobs, tree, source)
    try:
        refuse_unpinned(needed(tree, jobs, name), signed=signed)
    except ReleaseError as error:
        faults.append(Fault(str(tree), "", str(error), error.remedy))
    return faults


def expected(tree: Path, jobs: JobsFile, name: str, environ: Mapping[str, str]) -> list[str]:
    """Return, in sentences, what another computer than the machine cannot check of a release."""
    try:
        found = needed(tree, jobs, name)
    except ReleaseError:  # a fault of its own
        return [*_days(jobs, environ), *_lfs_patterns(tree)]
    notes = list[str]()
    if not all(job.in_container for job in jobs.job):
        notes += [f"{path} {sentence}" for path, sentence in not_read(list(_near(tree)), found)]
    notes += _days(jobs, environ)
    notes += [] if found else _unnamed(tree, jobs)
    notes += _lfs_patterns(tree)
    own = ".".join(map(str, sys.version_info[:3]))
    with suppress(InvalidSpecifier):
        if found is not None and own not in SpecifierSet(found.python):
            notes.append(
                f"{found.file} asks for Python {found.python}, and this one is {own}: a machine without such a Python"
                " rejects the release"
            )
    return notes


def _days(jobs: JobsFile, environ: Mapping[str, str]) -> list[str]:
    """Return what depends on the time zone of the machine."""
    notes = []
    by_days = [job.name for job in jobs.job if job.on and "TZ" not in job.env]
    zone = environ.get("TZ")
    if zone and zone_of(zone) is None:
        notes.append(f'TZ of this computer, "{zone}", is not a time zone, and counts as UTC')
    if by_days:
        here = f"here {zone}" if zone else "UTC on most"
        notes.append(
            f"job {', '.join(by_days[:_SHOWN])}: the days of `on` are those of schedule.timezone where there is a"
            f" schedule.expression, as on the AWS stack, else of the machine's time zone ({here});"
            ' env = { TZ = "Asia/Tokyo" } says whose'
        )
    return notes


def _unnamed(tree: Path, jobs: JobsFile) -> list[str]:
    """Return what Python jobs import where no file says what is installed, each as a sentence."""
    notes = []
    for job in jobs.job:
        entry = entry_of(job.command) if job.command and is_python(program_of(job)) else None
        if entry is None or not entry.script:
            continue
        if missing := sorted(_imported(tree / entry.script) - _at_hand(tree, entry.script)):
            notes.append(
                f"job {job.name}: {entry.script} imports {', '.join(missing[:_SHOWN])}, and no file says what is"
                " installed: write a requirements.txt, or a pyproject.toml and uv lock"
            )
    return notes


def _imported(script: Path) -> set[str]:
    """Return the top-level modules that a script imports at its start."""
    text = (_content(script) or b"").decode(errors="replace")
    lines = [found.group(1, 2) for found in _IMPORT.finditer(text)]
    names = (name for module, several in lines for name in (module or several).split(","))
    return {name.strip().partition(" ")[0].partition(".")[0] for name in names}


def _at_hand(tree: Path, script: str) -> set[str]:
    """Return the modules that there are without an installation: Python's own, and those of the release."""
    folders = (tree, (tree / script).parent)
    own = {path.stem for folder in folders if folder.is_dir() for path in folder.iterdir()}
    return own | sys.stdlib_module_names


def _lfs_patterns(tree: Path) -> list[str]:
    """Return which files a checkout gets from Git LFS, by `.gitattributes`, as a sentence."""
    text = b""
    with suppress(ReleaseError):
        text = _content(tree / ".gitattributes") or b""
    words = [line.split() for line in text.decode(errors="replace").splitlines()]
    patterns = [first for first, *rest in filter(None, words) if "filter=lfs" in rest]
    what = "stored with Git LFS, of which a release gets the pointer and not the content"
    return [f".gitattributes: {', '.join(patterns[:_SHOWN])}: {what}"] if patterns else []


def _content(file: Path) -> bytes | None:
    try:
        with open_regular(file) as stream:
            return stream.read(MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise ReleaseError(f"{file.name} cannot be read: {error.strerror}") from error


def _near(tree: Path) -> Iterator[str]:
    """Yield the files of a release's folder and of its direct subfolders."""
    for folder, folders, files in os.walk(tree):
        at = Path(folder).relative_to(tree)
        folders[:] = [] if at.parts else [each for each in folders if not _SKIPPED.match(each)]
        yield from (str(at / file) for file in files)


def _lfs_pointers(tree: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(tree):
        folders[:] = [each for each in folders if each != ".git"]
        for name in files:
            file = Path(folder, name)
            with suppress(OSError):  # a working tree may change, or have what this user cannot read
                if file.is_symlink() or file.lstat().st_size >= _POINTER_BYTES:
                    continue
                with open_regular(file) as stream:
                    found = stream.read(len(_POINTER)) == _POINTER
                if found:
                    yield str(file.relative_to(tree))
