"""A job of an earlier run once more: its release, its state, and nothing written to the bucket."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.base.errors import UsageError
from agent.batch.fold import Result, Run, State
from agent.browser.chromedriver import browser_flags
from agent.browser.interface import WATCH
from agent.cli.rerun import release_of
from agent.contract.entries import Ended, Planned
from agent.contract.facts import Release, RolledBack
from agent.contract.ids import Batch
from agent.contract.results import JobStatus
from tests.bucket.entries import RELEASE
from tests.run.bench import Bench, job

RUN = "20261122T180000Z-3f9a1c"
WHEN = datetime(2026, 11, 22, 18, tzinfo=UTC)

COUNTS = job("counts", ["sh", "count.sh"], state="success") + job(
    "other", "echo x > $MAYFLY_OUTPUT_DIR/file"
)
COUNT = """
echo "{said} $(cat $MAYFLY_STATE_DIR/number 2>/dev/null)" > $MAYFLY_OUTPUT_DIR/said
echo x >> $MAYFLY_STATE_DIR/number
"""


def publish(bench: Bench, tag: str) -> str:
    """Publish a release whose job says its tag, and what it kept; return its commit."""
    return bench.release(tag, COUNTS, {"count.sh": COUNT.format(said=tag)})


def rerun(bench: Bench, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Rerun a job on this computer."""
    sets = bench.sets(notify__healthchecks="http://127.0.0.1:9/ping")
    return bench.mayfly("rerun", "--store", bench.store, *sets, *arguments)


def said(place: Path) -> str:
    """Return what the job of a rerun wrote."""
    (file,) = (place / "bucket").glob("runs/*/jobs/counts/files/said")
    return " ".join(file.read_text().split())


@pytest.fixture
def nights(bench: Bench) -> list[str]:
    """Three runs, of two releases; the job keeps a line more each time."""
    publish(bench, "v1")
    runs = [bench.run().run_id, bench.run().run_id]
    publish(bench, "v2")
    return [*runs, bench.run().run_id]


def test_it_has_the_release_and_the_state_of_then(bench: Bench, nights: list[str]) -> None:
    """Of the first run none, of the last all of it: what came after a run is as if it had never been."""
    before = bench.bucket.objects.stamps()
    place = bench.folder / "again"
    done = rerun(bench, nights[1], "counts", "--dir", str(place))
    assert done.returncode == 0, done.stderr
    assert said(place) == "v1 x"
    assert f"counts of {nights[1]}: v1 (" in done.stderr
    assert str(place / "bucket" / "runs") in done.stdout
    assert not list((place / "bucket").glob("runs/*/jobs/other"))
    assert "127.0.0.1:9/ping" not in done.stderr
    # Once more in the same folder: what the first rerun left is not what the run had.
    again = rerun(bench, nights[1], "counts", "--dir", str(place), "--json")
    assert json.loads(again.stdout)["jobs"][0]["status"] == "succeeded"
    assert said(place) == "v1 x"
    for name, run, text in ((nights[0], nights[0], "v1"), ("latest", nights[2], "v2 x x")):
        done = rerun(bench, name, "counts")
        assert done.returncode == 0, done.stderr
        assert said(bench.folder / f"rerun-{run}-counts") == text
    assert bench.bucket.objects.stamps() == before


def test_what_there_is_not(bench: Bench, nights: list[str], tmp_path: Path) -> None:
    """A run or a job that is not known, and a folder that holds something else, with what can be done."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    for arguments, says in (
        (["20200101T000000Z-000000", "counts"], "no run '20200101T000000Z-000000' is known"),
        (["yesterday", "counts"], "`latest` is the last one"),
        ([nights[0], "nothing"], "its jobs: counts, other"),
        ([nights[0], "counts", "--dir", str(tmp_path / "full")], "holds files"),
    ):
        done = rerun(bench, *arguments)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
    # Without a repository nothing runs, and no files are promised.
    done = rerun(bench, nights[0], "counts", "--set", "release.repository=")
    assert done.returncode == 5, done.stderr
    assert "release.repository" in done.stdout
    assert "files: " not in done.stdout


def test_after_a_rollback_it_is_the_release_that_made_the_result() -> None:
    """Of a job that ran again on the last good release, that one; of the others, the one that failed its trial."""
    back = RolledBack(ref="v2", commit="b" * 40, reason="its trial", jobs=("counts",))
    planned = RELEASE.model_copy(update={"rolled_back_from": back})
    folded = State(Batch.of_run("main", RUN), {RUN: folded_run(planned, made_by=None)})
    assert release_of(folded, RUN, "counts") is planned
    folded = State(Batch.of_run("main", RUN), {RUN: folded_run(planned, made_by="b" * 40)})
    assert release_of(folded, RUN, "counts").ref == "v2"
    nothing = State(Batch.of_run("main", RUN), {RUN: Run(RUN, (WHEN, ""), WHEN)})
    with pytest.raises(UsageError, match="had no release"):
        release_of(nothing, RUN, "counts")


def folded_run(release: Release, made_by: str | None) -> Run:
    """Return a run that planned a job of a release, which some release made."""
    ended = Ended(name="counts", status=JobStatus.SKIPPED, release=made_by)
    plan = Planned(release=release, count=1, jobs=("counts",))
    return Run(RUN, (WHEN, ""), WHEN, planned=plan, results={"counts": Result(RUN, WHEN, ended)})


def test_watching_asks_for_a_window() -> None:
    """The agent's own chromedriver starts browsers that can be seen."""
    assert "--headless=new" in browser_flags(root=False, shared_memory=2**30)
    seen = browser_flags(root=False, shared_memory=2**30, watched=True)
    assert not any("headless" in flag for flag in seen)
    assert WATCH == "MAYFLY_WATCH"
