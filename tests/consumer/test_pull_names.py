"""Names that some file systems take for one: the folder at home is asked, and only what meets there is withheld."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.consumer.pulling import leave, pull_into, results
from tests.parts.folding_disk import FoldingDisk

NAMES = {
    "case": ("Page.html", "page.html"),
    "sharp-s": ("stra\u00dfe.txt", "strasse.txt"),
    "accents": ("\u00e9.txt", "e\u0301.txt"),
    "folder": ("A", "a/b"),
}
MEET = {
    "sensitive": set[str](),
    "lower": {"case", "folder"},
    "casefold": set(NAMES),
}


@pytest.fixture(params=sorted(MEET))
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """What a file system takes for one, and a folder on it."""
    with ExitStack() as stack:
        path = tmp_path / "home"
        if request.param != "sensitive":
            path = stack.enter_context(FoldingDisk(path, request.param, tmp_path / "disk.log")).path
        yield request.param, path / "scraped"


@pytest.mark.parametrize("staged", [None, 0, 1])
def test_only_what_meets_in_the_folder_at_home_is_withheld(
    folder: Bucket, disk: tuple[str, Path], staged: int | None
) -> None:
    """Each job has a pair of names; its files come where both can be, and else are rejected.

    Also when an earlier pull was killed, which had staged one of them.
    """
    kind, dest = disk
    jobs = {job: {name: name.encode() for name in names} for job, names in NAMES.items()}
    run = leave(folder, jobs=jobs)
    for job, names in NAMES.items() if staged is not None else ():
        path = dest / ".mayfly" / "staging" / run / job / "files" / names[staged or 0]
        path.parent.mkdir(parents=True)
        path.write_bytes(jobs[job][names[staged or 0]])
    pulled = pull_into(dest, folder)
    rejected = {job for _, job in pulled.rows("rejected")}
    assert rejected == MEET[kind]
    assert pulled.code == (3 if rejected else 0)
    for job in NAMES.keys() - rejected:
        assert results(dest / job / run) == jobs[job]
    for row in pulled.document["rejected"]:
        (told,) = row["problems"]
        path, problem = told.split(": ")
        assert path in {repr(f"files/{name}") for name in NAMES[row["job"]]}
        assert problem == "DEST has its name for another file of the job"
    assert not list((dest / ".mayfly" / "staging").glob("*"))
    assert pull_into(dest, folder).document["installed"] == []
