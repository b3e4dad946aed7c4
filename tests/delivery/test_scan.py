"""A job's output is read as if the job were hostile: nothing is followed, and nothing is waited for."""

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.results import JobStatus
from agent.delivery.scan import Scan, Signature, open_file, scan, walk
from agent.delivery.sent import result_file
from tests.delivery.world import SECONDS, World, no_descriptors


def names_in(root: Path) -> list[str]:
    """Return the results that a walk finds."""
    return [found.name for some in walk(root, Scan()) for found in some]


def test_what_is_no_result_is_refused_or_left_out(tmp_path: Path) -> None:
    """Links of both kinds, pipes; what is hidden or being written, by any part of its path, is not even named."""
    secret = tmp_path / "secret"
    secret.write_text("outside")
    root = tmp_path / "output"
    results = ["a.part/b", "deep/fine", "fine", "part"]
    others = [".hidden", ".evidence/page.html", "deep/.hidden/a", "x.part", "deep/x.tmp"]
    for name in (*results, *others):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1")
    (root / "link").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    (root / "dangling").symlink_to(root / "nothing")
    os.link(secret, root / "hard")
    os.mkfifo(root / "pipe")
    result = scan(root)
    assert names_in(root) == results
    assert {one.path: one.reason for one in result.listed()} == {
        "link": "a link",
        "folder": "a link",
        "dangling": "a link",
        "hard": "a hard link",
        "pipe": "not a regular file",
    }
    assert (result.files, result.bytes) == (4, 4)


def test_names_that_are_no_text_are_shown_as_bytes(tmp_path: Path) -> None:
    """And arrive under a name that can be a key."""
    (tmp_path / os.fsdecode(b"caf\xe9")).symlink_to("/")
    (tmp_path / os.fsdecode(b"\xff.csv")).touch()
    result = Scan()
    ((found,),) = walk(tmp_path, result)
    assert result.listed()[0].path == "caf%E9"
    file = result_file("a", tmp_path, found)
    assert file.original == "%FF.csv"
    assert file.path.startswith("files/_~")


@pytest.mark.parametrize("swap", ["file", "folder", "pipe", "gone"])
def test_what_is_swapped_after_the_scan_is_not_followed(tmp_path: Path, swap: str) -> None:
    """The opening looks for itself."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x").write_text("outside")
    root = tmp_path / "output"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "x").write_text("1")
    assert names_in(root) == ["folder/x"]
    (root / "folder" / "x").unlink()
    if swap == "file":
        (root / "folder" / "x").symlink_to(secret / "x")
    elif swap == "pipe":
        os.mkfifo(root / "folder" / "x")
    elif swap == "folder":
        (root / "folder").rmdir()
        (root / "folder").symlink_to(secret)
    with pytest.raises(OSError), open_file(root, "folder/x"):
        pytest.fail("it was opened")


def test_a_signature_changes_with_the_content(tmp_path: Path) -> None:
    """Also when size and mtime are set back."""
    path = tmp_path / "x"
    path.write_text("1")
    before = path.stat()
    path.write_text("2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Signature.of(path.stat()) != Signature.of(before)


NAMES = st.text(alphabet=ascii_lowercase[:2] + ".-0 é", min_size=1, max_size=3).filter(
    lambda name: not name.startswith(".")
)


@given(paths=st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12))
def test_a_walk_has_every_file_once_in_the_order_of_the_paths(
    paths: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """So that a package has one order, whatever the file system's is."""
    root = tmp_path_factory.mktemp("output")
    made = set()
    for path in paths:
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch(exist_ok=False)
        except OSError:
            continue  # a folder has this name, or a file that of its folder
        made.add(path)
    result = Scan()
    found = [one.name for some in walk(root, result) for one in some]
    assert found == sorted(made, key=os.fsencode)
    assert result.files == len(made)


async def test_links_in_the_place_of_what_a_job_leaves(world: World) -> None:
    """None is followed: what is refused is told, and the rest arrives."""
    for job in "refused", "empty", "folder", "evidence":
        world.attempt(job, {"x": b"1", ".evidence/page": b"2"})
        world.run.saved_state(job).write_bytes(b"state")
        space = world.run.workspace(job, 1)
        if job in ("refused", "empty"):
            (space.output / "link").symlink_to("/etc/passwd")
        else:
            space.captured.unlink()
            space.captured.symlink_to("/etc/passwd")
        if job in ("empty", "folder"):
            (space.output / "x").unlink()
    shutil.rmtree(world.run.workspace("folder", 1).evidence)
    world.run.workspace("folder", 1).evidence.symlink_to("/etc")
    (world.run.workspace("evidence", 1).evidence / "link").symlink_to("/etc/passwd")
    jobs = await world.deliver(
        world.finished("refused", message="done"),
        world.finished("empty"),
        world.finished("folder", JobStatus.FAILED, message="oh"),
        world.finished("evidence", JobStatus.FAILED),
    )
    refused = jobs["refused"]
    assert (refused.incomplete, refused.refused, refused.files) == (True, 1, 1)
    assert refused.message == "1 file could not be delivered, such as link (a link); done"
    # A success of which everything was refused is none, and leaves no state.
    assert (jobs["empty"].status, jobs["empty"].state) == ("empty", None)
    folder, evidence = await world.package("folder"), await world.package("evidence")
    assert [one.path for one in folder.resources] == ["logs/job.log"]
    assert [one.path for one in evidence.resources] == ["files/x", "evidence/attempt-1/page"]
    (note,) = evidence.job.notes
    assert note.startswith("of its logs and evidence, 2 files could not be delivered")


async def test_files_that_change_all_the_time(local: World) -> None:
    """Whatever was sent of them while they changed: the package names what the bucket has, of what was there last."""
    stop = threading.Event()

    def rewrite(output: Path) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for name in ("a", "b", "c"):
                (output / name).write_bytes(f"{number}".encode() * 1000)
            if number % 3 == 0:
                (output / "a").unlink()

    async with local.under_way("a") as delivery:
        output = local.attempt("a", {})
        writer = asyncio.create_task(asyncio.to_thread(rewrite, output))
        async with delivery.watch("a", output):
            await asyncio.sleep(3.0)  # some scans
        await delivery.ended(local.finished("a"))
        await asyncio.sleep(0.2)  # it goes on while its files are sent
        stop.set()
        await writer
        assert await delivery.flush(SECONDS) == []
    assert set(await local.committed()) == {"a"}


def test_want_of_descriptors_is_no_fault_of_a_folder(tmp_path: Path) -> None:
    """A delivery tries again; only a verdict, which cannot wait, takes it for a refusal."""
    (tmp_path / "x").write_text("1")
    with no_descriptors():
        with pytest.raises(OSError, match="Too many open files"):
            list(walk(tmp_path, Scan()))
        result = scan(tmp_path)
    assert [one.path for one in result.listed()] == ["."]
    assert names_in(tmp_path) == ["x"]


@contextmanager
def nobody() -> Iterator[None]:
    """Have no rights but those of everybody while the block runs."""
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_of_which_nothing_can_be_learnt_is_refused() -> None:
    """Its folder may be read and not entered: its name is known, and no more."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "folder").mkdir()
        (root / "folder" / "x").write_text("1")
        root.chmod(0o755)
        (root / "folder").chmod(0o444)
        with nobody():
            (refused,) = scan(root).listed()
        (root / "folder").chmod(0o755)
    assert (refused.path, refused.reason) == ("folder/x", "cannot be read: Permission denied")
