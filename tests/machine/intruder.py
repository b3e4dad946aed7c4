"""A hostile job that works in a copy of its release: tries to change the release, and to read another job's copy."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

COPY = Path.cwd()
COPIES = COPY.parent
STATE = COPY.parents[3]
(RELEASE,) = (STATE / "releases").glob("*/tree")
LOOK_SECONDS = 15


def neighbours() -> str:
    """Look for the copies of others for as long as one surely has one."""
    end = time.monotonic() + LOOK_SECONDS
    while time.monotonic() < end:
        others = [path for path in COPIES.iterdir() if path != COPY]
        if others:
            return str(others)
        time.sleep(0.2)
    raise PermissionError("nothing of others")


def by_number() -> str:
    """Read what another job wrote in its copy, whose name can be guessed."""
    found = [path for path in (COPIES / str(number) for number in range(9)) if path != COPY]
    return (
        "".join((path / "out" / "private.csv").read_text() for path in found if path.exists())
        or _none()
    )


def by_process() -> str:
    """Reach another job's working directory through its process."""
    links = [path for path in Path("/proc").glob("[0-9]*/cwd") if os.access(path, os.R_OK)]
    return (
        "".join(str(path) for path in links if path.resolve() not in {COPY, Path("/")}) or _none()
    )


def _none() -> str:
    raise PermissionError("nothing of others")


MUST_FAIL: dict[str, Callable[[], object]] = {
    "another job's copy, listed": neighbours,
    "another job's copy, by its number": by_number,
    "another job's copy, through its process": by_process,
    "a new file in the release": (RELEASE / "new").touch,
    "a change of the release": lambda: (RELEASE / "known.csv").write_text("changed"),
    "modes of the release": lambda: (RELEASE / "known.csv").chmod(0o666),
    "a name of the release": lambda: (RELEASE / "known.csv").rename(RELEASE / "other.csv"),
    "a hard link to the release": lambda: os.link(RELEASE / "known.csv", COPY / "link"),
    "the folder of the copies": (COPIES / "new").mkdir,
}
MUST_WORK: dict[str, Callable[[], object]] = {
    "the release, read": (RELEASE / "known.csv").read_text,
    "a change of its copy": lambda: (COPY / "known.csv").write_text("changed"),
    "modes of its copy": lambda: (COPY / "known.csv").chmod(0o600),
    "a file of its copy removed": (COPY / "jobs.toml").unlink,
}


def tried(what: Callable[[], object]) -> str:
    """Return why something did not work; empty when it did."""
    try:
        what()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return ""


refused = {name: tried(what) for name, what in MUST_FAIL.items()}
worked = {name: tried(what) for name, what in MUST_WORK.items()}
Path("report.json").write_text(json.dumps({"refused": refused, "worked": worked}))
