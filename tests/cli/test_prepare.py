"""`mayfly prepare` leaves everything that a first run needs when git cannot be reached."""

import shutil
import subprocess
from pathlib import Path

import pytest

from agent.browser import DEFAULT_IMAGE
from agent.cli.prepare import images
from agent.config.jobsfile import parse_jobs
from agent.config.settings import Browser
from tests.parts.compose import with_plugin
from tests.run.bench import Bench

JOBS = '[[job]]\nname = "hello"\ncommand = ["sh", "hello.sh"]\n'
HELLO = {"hello.sh": 'echo hello > "$MAYFLY_OUTPUT_DIR/hello.txt"\n'}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A computer that has not run anything yet; its jobs need no browser."""
    return Bench.make(tmp_path)


def prepare(bench: Bench) -> subprocess.CompletedProcess[str]:
    """Run `mayfly prepare` on the bench."""
    return bench.mayfly("prepare", *bench.sets())


def test_the_first_run_needs_no_repository(bench: Bench) -> None:
    """What was prepared is marked as baked in, and runs when the repository is gone."""
    commit = bench.release("v1.0.0", JOBS, HELLO)
    done = prepare(bench)
    assert (done.returncode, done.stdout) == (0, f"v1.0.0 {commit} is ready: hello\n"), done.stderr
    assert (bench.state / "baked").readlink() == Path("releases", commit)
    shutil.rmtree(bench.repo.bare)
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    assert ran.events("release.stale")


def test_a_later_release_does_not_move_what_was_baked_in(bench: Bench) -> None:
    """The last good one is another; `baked` stays what the image brought."""
    commit = bench.release("v1.0.0", JOBS, HELLO)
    assert prepare(bench).returncode == 0
    bench.release("v1.1.0", JOBS, {"hello.sh": 'echo again > "$MAYFLY_OUTPUT_DIR/hello.txt"\n'})
    assert bench.run().code == 0
    assert (bench.state / "baked").readlink() == Path("releases", commit)
    assert bench.good.name != commit


def test_no_release_is_an_error_and_leaves_no_mark(bench: Bench) -> None:
    """An image must not be built with nothing in it by mistake."""
    bench.repo.commit()
    bench.repo.push()
    done = prepare(bench)
    assert done.returncode == 5
    assert "no tag" in done.stderr
    assert not (bench.state / "baked").is_symlink()


def test_a_stack_that_no_job_may_have_is_not_pulled(bench: Bench) -> None:
    """Compose would read files of the machine for it."""
    bench.environ |= with_plugin({})
    stack = "services: {batch: {image: x, env_file: /etc/hostname}}\n"
    jobs = JOBS + '[[job]]\nname = "stack"\ncompose = "compose.yml"\nservice = "batch"\n'
    bench.release("v1.0.0", jobs, HELLO | {"compose.yml": stack})
    done = prepare(bench)
    assert done.returncode == 0, done.stderr
    assert "stack.not_pulled" in done.stderr
    assert "services.batch.env_file: /etc/hostname: is not a file of the release" in done.stderr
    assert "stack.pulled" not in done.stderr


def test_only_the_newest_will_do(bench: Bench) -> None:
    """A release that is not available any more is no reason to bake in an older one unseen."""
    bench.release("v1.0.0", JOBS, HELLO)
    assert prepare(bench).returncode == 0
    shutil.rmtree(bench.repo.bare)
    done = prepare(bench)
    assert done.returncode == 5
    assert "is not available" in done.stderr


def test_every_image_that_a_run_would_use_is_named() -> None:
    """The browser's, when a job wants one and no other browser is here, and those of container jobs."""
    text = '[[job]]\nname = "a"\ncommand = ["a"]\nbrowser = true\n[[job]]\nname = "b"\nimage = "hoge:1.4"\n'
    jobs, faults = parse_jobs(text, "jobs.toml", "1.0")
    assert jobs is not None, faults
    assert list(images(jobs, Browser(), None)) == [DEFAULT_IMAGE, "hoge:1.4"]
    assert list(images(jobs, Browser(), "/usr/bin/chromedriver")) == ["hoge:1.4"]
    assert list(images(jobs, Browser(url="http://grid:4444"), None)) == ["hoge:1.4"]


def test_a_state_directory_that_takes_nothing_has_a_remedy(bench: Bench) -> None:
    """It is no defect of the program."""
    bench.release("v1.0.0", JOBS, HELLO)
    file = bench.folder / "file"
    file.write_text("no folder")
    bench.settings["paths.state"] = str(file / "below")
    done = prepare(bench)
    assert done.returncode == 4
    assert "check the folder's owner, its mode and its disk" in done.stderr
