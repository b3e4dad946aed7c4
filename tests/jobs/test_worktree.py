"""Copies of a release's files: what a job does in one reaches neither the release nor the next job."""

import os
import stat
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from agent.base.folders import below
from agent.base.stop import StoppedError
from agent.jobs.verdict import Strays
from agent.jobs.worktree import MOST_LATE, WorkingDirectory, WorkingTrees, open_up
from tests.parts.command import completed
from tests.parts.deep_folders import nested
from tests.parts.missing import program

Lend = Callable[..., AbstractAsyncContextManager[WorkingDirectory]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files of a release, sealed as the agent seals them."""
    tree = tmp_path / "tree"
    (tree / "scrapers").mkdir(parents=True)
    (tree / "a.py").write_text("original")
    (tree / "scrapers" / "run.sh").write_text("echo")
    (tree / "scrapers" / "run.sh").chmod(0o555)
    (tree / "link").symlink_to("a.py")
    (tree / "a.py").chmod(0o444)
    for folder in (tree / "scrapers", tree):
        folder.chmod(0o555)
    return tree


def content(tree: Path) -> dict[str, tuple[int, str]]:
    """All files with their modes."""
    return {
        str(path.relative_to(tree)): (stat.S_IMODE(path.lstat().st_mode), path.read_text())
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def lend(tree: Path, tmp_path: Path) -> Lend:
    """Lends copies of the release; the run goes on."""
    return partial(WorkingTrees(tmp_path / "trees").lend, tree, stopped=lambda: False)


async def test_a_copy_that_was_left_alone_is_lent_again(tree: Path, lend: Lend) -> None:
    """It is the release, with its modes and links, somewhere else; new files are told, and gone when it comes back.

    What is hidden, half written, or Python's own does not count.
    """
    async with lend() as first:
        here = first.path
        assert content(here) == content(tree)
        assert (here / "link").readlink() == Path("a.py")
        for folder in (here, here / "scrapers"):
            folder.chmod(0o755)
        (here / "out.csv").touch()
        (here / "data" / "deep").mkdir(parents=True)
        (here / "data" / "deep" / "x\udce9").touch()
        (here / ".cache").touch()
        (here / "scrapers" / "__pycache__").mkdir()
        (here / "scrapers" / "__pycache__" / "a.pyc").touch()
        for folder in (here / "scrapers", here):
            folder.chmod(0o555)
    assert first.strays == Strays(2, "out.csv")
    async with lend() as second:
        assert second.path == here
        assert content(here) == content(tree)
        async with lend() as beside:
            assert beside.path != here
    assert second.strays == Strays()


@pytest.mark.parametrize("how", ["rewritten", "in place", "removed", "replaced", "mode"])
async def test_a_copy_that_was_changed_is_not_lent_again(tree: Path, lend: Lend, how: str) -> None:
    """Also when size and time are as before; the release is what it was in any case."""
    before, times = content(tree), (tree / "a.py").stat()
    async with lend() as working:
        working.path.chmod(0o755)
        file = working.path / "a.py"
        file.chmod(0o644)
        if how == "rewritten":
            file.write_text("other")
        elif how == "in place":
            with file.open("r+") as stream:
                stream.write("ORIGINAL")
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        elif how == "removed":
            file.unlink()
        elif how == "replaced":
            file.unlink()
            file.symlink_to("/etc/passwd")
        file.chmod(0o444) if how in {"rewritten", "in place"} else None
        working.path.chmod(0o555)
    # A mode, or a time that was set back, is nothing that somebody may miss; the copy is not lent again either way.
    assert working.strays.count == (how in {"rewritten", "replaced"})
    assert not working.path.exists()
    assert content(tree) == before
    async with lend() as again:
        assert content(again.path) == before


async def test_a_job_that_nests_folders_without_end_costs_its_copy_and_not_its_result(
    lend: Lend,
) -> None:
    """Deeper than Python can call itself, and than a path can be long."""
    async with AsyncExitStack() as left:
        async with lend() as working:
            left.enter_context(nested(working.path, 3000))
        assert not working.path.exists()
    assert working.strays.first == "f"


def test_folders_are_opened_up_however_deep(tmp_path: Path) -> None:
    """A job's state comes back as deep as a path can be long, and its container has any user."""
    with nested(tmp_path, 1500):
        open_up(tmp_path)
        modes = {stat.S_IMODE(entry.stat().st_mode) for entry in below(tmp_path)}
    assert modes == {0o777, 0o666}


async def test_copying_is_given_up_when_the_run_is_told_to_stop(lend: Lend, tmp_path: Path) -> None:
    """Between two files, and nothing of it stays."""
    answers = iter([False, True])
    with pytest.raises(StoppedError):
        async with lend(stopped=lambda: next(answers, True)):
            pass
    assert list((tmp_path / "trees").iterdir()) == []


MANY = 100_000


def fill(folder: Path) -> None:
    """Leave many empty files."""
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for number in range(MANY):
        os.mknod(f"{number}.csv", dir_fd=here)
    os.close(here)


@pytest.mark.long
async def test_a_job_that_leaves_files_without_end_costs_no_memory(lend: Lend) -> None:
    """They are counted and removed, and the copy with them."""
    async with lend() as working:
        fill(working.path / "many")
        tracemalloc.start()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
    assert working.strays.count == MANY
    assert not working.path.exists()


@pytest.mark.long
async def test_a_run_that_is_told_to_stop_does_not_look_through_files_without_end(
    lend: Lend, tmp_path: Path
) -> None:
    """Some results are moved, and the rest of the copy goes with the run."""
    (results := tmp_path / "results").mkdir()
    told: list[bool] = []
    async with lend(results=results, stopped=lambda: bool(told)) as working:
        working.output = "many"
        fill(working.path / "many")
        told.append(True)
    moved = len(os.listdir(results))  # noqa: PTH208 -- their names are enough
    assert 0 < moved <= MOST_LATE
    assert len(os.listdir(working.path / "many")) == MANY - moved  # noqa: PTH208


async def test_results_of_a_run_that_is_told_to_stop_are_moved(lend: Lend, tmp_path: Path) -> None:
    """They are handed over as partial; nothing is cleared away while the machine is waited for."""
    (results := tmp_path / "results").mkdir()
    told: list[bool] = []
    async with lend(results=results, stopped=lambda: bool(told)) as working:
        working.output = "."
        (working.path / "out.csv").write_text("1")
        (working.path / ".cache").touch()
        told.append(True)
    assert (results / "out.csv").read_text() == "1"
    assert (working.path / ".cache").exists()


async def test_results_beside_the_code_are_moved_and_the_rest_is_told(
    tree: Path, lend: Lend, tmp_path: Path
) -> None:
    """Of the folder that is named, or the file; what is elsewhere is told with the path at which a stack has it."""
    (results := tmp_path / "results").mkdir()
    async with lend(results=results) as working:
        working.output, working.mounted = "scrapers", {"/app": "scrapers", "/log": "log"}
        here = working.path
        (here / "scrapers" / "out").mkdir()
        (here / "scrapers" / "out" / "a.csv").write_text("1")
        (here / "scrapers" / "run.sh").open("a").write(" more")
        (here / "scrapers" / "node_modules").mkdir()
        (here / "scrapers" / "node_modules" / "x.js").touch()
        (here / "a.py").write_text("of another service, and nowhere in the job")
        (here / "log").mkdir()
        (here / "log" / "app.txt").touch()
    found = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    assert found == {"out/a.csv", "run.sh"}
    assert working.strays == Strays(1, "log/app.txt", "/log")
    async with lend(results=results) as working:
        working.output = "scrapers/run.sh"
        (working.path / "scrapers" / "run.sh").write_text("a file that is mounted by itself")
    assert (results / "run.sh").read_text() == "a file that is mounted by itself"
    assert content(tree)["a.py"] == (0o444, "original")


async def test_no_link_of_a_release_leads_the_making_of_its_output(
    tree: Path, lend: Lend, tmp_path: Path
) -> None:
    """The folder is made by root, and the release may be anybody's; one that is there, or a file, stays as it is."""
    (victim := tmp_path / "victim").mkdir()
    tree.chmod(0o755)
    (tree / "out").symlink_to(victim)
    (results := tmp_path / "results").mkdir()
    async with lend(results=results) as working:
        for output in ("out/new", "out", "a.py", ".", "data/deep", "data"):
            working.collect(output)
            assert working.output == output
        assert (working.path / "data" / "deep").is_dir()
    assert list(victim.iterdir()) == []


async def test_no_link_leads_a_result_out_of_its_copy(lend: Lend, tmp_path: Path) -> None:
    """A folder that became a link is not passed through; the link itself is moved, and refused like any other."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").touch()
    (results := tmp_path / "results").mkdir()
    async with lend(results=results) as working:
        working.output = "."
        (working.path / "out").symlink_to(tmp_path / "secret")
    assert [path.name for path in results.iterdir()] == ["out"]
    assert (results / "out").is_symlink()
    assert (tmp_path / "secret" / "key").exists()


async def test_no_link_leads_a_result_out_of_the_job_s_output(lend: Lend, tmp_path: Path) -> None:
    """A job that may write there as well links a folder to a neighbour's: its result is told as a stray."""
    (victim := tmp_path / "victim").mkdir()
    (victim / "a.csv").write_text("theirs")
    (results := tmp_path / "results").mkdir()
    (results / "sub").symlink_to(victim)
    (results / "deep").mkdir()
    (results / "deep" / "sub").symlink_to(tmp_path)
    async with lend(results=results) as working:
        working.output = "."
        for path in ("sub/a.csv", "sub/new/b.csv", "deep/sub/victim/a.csv", "deep/new/c.csv"):
            (working.path / path).parent.mkdir(parents=True, exist_ok=True)
            (working.path / path).write_text("mine")
    assert (victim / "a.csv").read_text() == "theirs"
    assert [entry.name for entry in victim.iterdir()] == ["a.csv"]
    assert (results / "deep" / "new" / "c.csv").read_text() == "mine"
    assert working.strays.count == 3


def test_a_result_that_cannot_be_copied_whole_is_not_delivered_in_part(tmp_path: Path) -> None:
    """A container's root owns its folder, so that it is copied, and the disk takes only the beginning of it."""
    (tmp_path / "tree" / "data").mkdir(parents=True)
    code = f"""
import asyncio, os, resource
from pathlib import Path
from agent.jobs.worktree import WorkingTrees

async def main():
    here = Path({str(tmp_path)!r})
    trees, results = WorkingTrees(here / "trees"), here / "results"
    results.mkdir()
    async with trees.lend(here / "tree", stopped=lambda: False, results=results) as working:
        working.output = "data"
        (working.path / "data" / "large").write_bytes(bytes(3_000_000))
        (working.path / "data").chmod(0o755)
        os.chown(working.path / "data", 65534, 65534)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    print([path.name for path in results.iterdir()], working.strays.count)

asyncio.run(main())
"""
    # Root without the right to write everywhere, as an agent is that is not root.
    tied = [program("setpriv"), "--bounding-set=-dac_override,-fowner"]
    done = completed([*tied, sys.executable, "-c", code])
    assert done.stdout.strip() == "[] 1", done.stderr
