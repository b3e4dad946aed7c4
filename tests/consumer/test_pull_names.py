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


def test_only_what_meets_in_the_folder_at_home_is_withheld(
    folder: Bucket, disk: tuple[str, Path]
) -> None:
    """Each job has a pair of names; its files come where both can be, and else are rejected with both names told."""
    kind, dest = disk
    jobs = {job: {name: name.encode() for name in names} for job, names in NAMES.items()}
    run = leave(folder, jobs=jobs)
    pulled = pull_into(dest, folder)
    rejected = {job for _, job in pulled.rows("rejected")}
    assert rejected == MEET[kind]
    assert pulled.code == (3 if rejected else 0)
    for job in NAMES.keys() - rejected:
        assert results(dest / job / run) == jobs[job]
    for row in pulled.document["rejected"]:
        one, other = (f"files/{name}" for name in NAMES[row["job"]])
        assert row["problems"] == [f"{one!r} and {other!r}: DEST cannot hold both"]
    assert not list((dest / ".mayfly" / "trash").glob("*"))
    assert pull_into(dest, folder).document["installed"] == []
