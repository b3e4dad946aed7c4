"""A release that is broken costs a rollback, not a day: its files come from the last good one, in the same run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.bucket.bucket import Bucket, Run
from tests.bucket.sound import sound
from tests.run.bench import Bench, Ran, job

NOTES_JOB = job("notes", ["sh", "notes.sh"])
WITHOUT_NOTES = job("quotes", ["python3", "quotes.py"])
JOBS = WITHOUT_NOTES + NOTES_JOB
QUOTES = """
import os
import pathlib

if __name__ == "__main__":
    pathlib.Path(os.environ["MAYFLY_OUTPUT_DIR"], "quotes.txt").write_text("{version}")
"""
NOTES = 'echo {version} > "$MAYFLY_OUTPUT_DIR/notes.txt"\n'
GOOD = {
    "quotes.py": QUOTES.format(version="1"),
    "notes.sh": NOTES.format(version="1"),
}
LATER = QUOTES.format(version="2")
LOCK = """version = 1
requires-python = ">=3.11"
[[package]]
name = "broken
"""
PROJECT = (
    '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\n[tool.uv]\npackage = false\n'
)
# It writes what it takes for the self-check's own answer.
LIAR = """
import os
import sys

print(sys.argv[1], "[" * 20_000, flush=True)
os._exit(0)
"""
FAULTS = job("Quotes", ["python3", "quotes.py"], timeout="soon", speed=3)


@dataclass(frozen=True)
class Broken:
    """A release that is broken.

    Attributes:
        files: What it changes.
        kind: At which step it is refused.
        words: What the reason says.
        jobs: Its jobs file.
        again: The job that ran once more; empty when it did not run at all.
        settings: What the run is told besides.
    """

    files: Mapping[str, str]
    kind: str
    words: str
    jobs: str = JOBS
    again: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


BROKEN = {
    "import": Broken({"quotes.py": "import nonesuch\n" + LATER}, "check", "nonesuch"),
    "syntax": Broken({"quotes.py": "def (:\n"}, "check", "SyntaxError"),
    "liar": Broken(
        {"quotes.py": "import liar\n" + LATER, "liar.py": LIAR},
        "check",
        "gave an invalid answer",
    ),
    "late-import": Broken(
        {"quotes.py": "def go():\n    import nonesuch\n\ngo()\n"},
        "trial",
        "ModuleNotFoundError",
        again="quotes",
    ),
    "hanging-check": Broken(
        {"slow.py": "import time\ntime.sleep(600)\n", "quotes.py": "import slow\n" + LATER},
        "check",
        "did not end within 2 s",
        settings={"release.check_timeout": "2s"},
    ),
    "crash": Broken(
        {"quotes.py": "import os\nos.abort()\n"}, "trial", "killed by signal 6", again="quotes"
    ),
    "hang": Broken(
        {"notes.sh": "sleep 600\n"},
        "trial",
        "still running after 2.0s",
        jobs=WITHOUT_NOTES + job("notes", ["sh", "notes.sh"], timeout="2s"),
        again="notes",
    ),
    "command": Broken(
        {}, "content", 'no program "nonesuch"', jobs=JOBS.replace("python3", "nonesuch")
    ),
    "shell-command": Broken({"notes.sh": "nonesuch\n"}, "trial", "not found", again="notes"),
    "lock": Broken({"pyproject.toml": PROJECT, "uv.lock": LOCK}, "install", "uv sync"),
    "removed": Broken({}, "check", "no job notes", jobs=WITHOUT_NOTES),
    "faults": Broken({}, "content", "jobs.toml", jobs=FAULTS),
    "browser": Broken(
        {},
        "install",
        "selenium/nonesuch",
        jobs='[browser]\nimage = "selenium/nonesuch:1"\n'
        + job("quotes", ["python3", "quotes.py"], browser=True)
        + NOTES_JOB,
        settings={"browser.sessions": "1"},
    ),
}


def _delivered(bucket: Bucket, ran: Ran) -> Run:
    """Return a run in which all of the day's files arrived."""
    run = sound(bucket, ran.run_id)
    assert run.results == {"quotes/quotes.txt", "notes/notes.txt"}
    return run


@pytest.fixture
def good(bench: Bench) -> str:
    """The commit of a good release, v1.0, which has run."""
    commit = bench.release("v1.0", JOBS, GOOD)
    bench.run(code=0)
    return commit


def _found_bad(bench: Bench, bucket: Bucket) -> None:
    """Assert that the next run does not try again what was refused."""
    ran = bench.run(code=0)
    release = _delivered(bucket, ran).release
    assert [refused["kind"] for refused in release["refused"]] == ["bad"]
    assert "found bad on" in release["stale"]["reason"]
    assert not ran.events("release.installed")


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_release_costs_no_files(bench: Bench, bucket: Bucket, good: str, name: str) -> None:
    """The files arrive in the same run; the manifest says what was refused and why; it is not tried again."""
    broken = BROKEN[name]
    # Wherever this machine has its container engine: the image is nowhere.
    bench.environ["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    if name == "browser":
        bench.with_browser()
    bad = bench.release("v2.0", broken.jobs, broken.files)
    settings = {key.replace(".", "__"): text for key, text in broken.settings.items()}
    run = _delivered(bucket, bench.run(code=0, **settings))
    release = run.release
    assert (release["ref"], release["commit"]) == ("v1.0", good)
    (refused,) = release["refused"]
    assert (refused["ref"], refused["commit"], refused["kind"]) == ("v2.0", bad, broken.kind)
    assert broken.words in refused["reason"]
    assert release["stale"]["wanted"] == "v2.0"
    rolled_back = release["rolled_back_from"]
    assert bool(rolled_back) == bool(broken.again)
    if rolled_back:
        assert (rolled_back["ref"], rolled_back["jobs"]) == ("v2.0", [broken.again])
        assert release["trial"] == "failed"
        assert [attempt["number"] for attempt in run.job(broken.again)["attempts"]] == [1, 2]
    if name in {"import", "lock"}:
        _found_bad(bench, bucket)


def test_what_runs_once_more_has_the_secrets_that_the_new_release_forgot(
    bench: Bench, bucket: Bucket
) -> None:
    """The last good release says which they are: with them its job works, and the new one is to blame."""
    bench.secrets("TOKEN=hunter2-hunter2\n")
    wants = 'test "$TOKEN" && echo 1 > "$MAYFLY_OUTPUT_DIR/x"\n'
    command, other = ["sh", "prices.sh"], job("other", ["sh", "other.sh"])
    files = {"prices.sh": wants, "other.sh": 'echo 1 > "$MAYFLY_OUTPUT_DIR/x"\n'}
    good = bench.release("v1.0", job("prices", command, secrets=["TOKEN"]) + other, files)
    bench.run(code=0)
    bench.release("v2.0", job("prices", command) + other, files)
    run = sound(bucket, bench.run(code=0).run_id)
    assert run.release["rolled_back_from"]["jobs"] == ["prices"]
    assert run.told["prices"]["release"] == good


def test_only_what_broke_runs_once_more_and_a_repaired_release_becomes_the_good_one(
    bench: Bench, bucket: Bucket, good: str
) -> None:
    """The manifest says which commit made what; what is bad is one commit under one name: the next is a new chance."""
    bad = bench.release("v2.0", JOBS, {"quotes.py": LATER, "notes.sh": "exit 3\n"})
    run = _delivered(bucket, bench.run(code=0))
    (refused,) = run.release["refused"]
    assert (refused["commit"], refused["kind"]) == (bad, "trial")
    assert "it works on the last good release" in refused["reason"]
    assert run.release["rolled_back_from"]["jobs"] == ["notes"]
    assert run.files == {"quotes/quotes.txt": b"2", "notes/notes.txt": b"1\n"}
    commits = {name: row["release"] for name, row in run.told.items()}
    assert commits == {"quotes": bad, "notes": good}
    made = [run.package(name)["version"] for name in ("quotes", "notes")]
    assert made == ["v2.0", "v1.0"]
    _found_bad(bench, bucket)
    commit = bench.release("v2.1", JOBS, {"notes.sh": NOTES.format(version="3")})
    for trial in ("passed", None):
        run = bucket.run(bench.run().run_id)
        release = run.release
        assert (release["commit"], release["trial"], release["stale"]) == (commit, trial, None)
    assert run.files["notes/notes.txt"] == b"3\n"


@pytest.mark.usefixtures("good")
def test_a_site_that_is_down_rolls_nothing_back(bench: Bench, bucket: Bucket) -> None:
    """Neither does it count against a release, however often: it is on trial until the site is there."""
    down = 'echo \'{"cause": "site_unreachable"}\' > "$MAYFLY_RESULT_FILE"\nexit 1\n'
    blocked = (
        "import os, pathlib\n"
        'pathlib.Path(os.environ["MAYFLY_RESULT_FILE"]).write_text(\'{"cause": "blocked"}\')\n'
        "raise SystemExit(1)\n"
    )
    commit = bench.release("v2.0", JOBS, {"notes.sh": down, "quotes.py": blocked})
    for _ in range(2):
        ran = bench.run(code=8)
        release = bucket.run(ran.run_id).release
        assert (release["commit"], release["trial"]) == (commit, "undecided")
        assert (release["rolled_back_from"], release["refused"]) == (None, [])
        assert not ran.events("release.asks_last_good")


def test_what_fails_on_the_last_good_release_too_is_not_the_new_ones_fault(
    bench: Bench, bucket: Bucket
) -> None:
    """The last good release is asked once; it fails as well, so the new one, which did something well, is good."""
    switch = bench.folder / "down"
    notes = f"if [ -e {switch} ]; then exit 3; fi\n{NOTES.format(version='1')}"
    bench.release("v1.0", JOBS, {**GOOD, "notes.sh": notes})
    bench.run(code=0)
    switch.touch()
    commit = bench.release("v2.0", JOBS, {"quotes.py": LATER})
    ran = bench.run(code=3)
    run = sound(bucket, ran.run_id)
    assert (run.release["commit"], run.release["trial"]) == (commit, "passed")
    assert len(run.job("notes")["attempts"]) == 2
    assert len(ran.events("release.asks_last_good")) == 1
    assert not bench.run().events("release.asks_last_good")


def test_jobs_that_need_a_broken_one_run_once_more_as_well(bench: Bench, bucket: Bucket) -> None:
    """What was skipped because of the broken job is done after it, on the last good release."""
    jobs = WITHOUT_NOTES + job("notes", ["sh", "notes.sh"], needs=["quotes"])
    bench.release("v1.0", jobs, GOOD)
    bench.run(code=0)
    bench.release("v2.0", jobs, {"quotes.py": "raise SystemExit(3)\n"})
    run = _delivered(bucket, bench.run(code=0))
    assert run.release["rolled_back_from"]["jobs"] == ["quotes", "notes"]


@pytest.mark.usefixtures("good")
def test_a_job_that_is_retired_in_words_may_go(bench: Bench, bucket: Bucket) -> None:
    """`retired` says that it is meant; the release runs with what is left."""
    commit = bench.release("v2.0", 'retired = ["notes"]\n' + WITHOUT_NOTES)
    run = sound(bucket, bench.run(code=0).run_id)
    assert run.release["commit"] == commit
    assert run.results == {"quotes/quotes.txt"}


@pytest.mark.parametrize(
    ("jobs", "broken", "code", "trial"),
    [
        (JOBS, "exit 3\n", 3, None),
        (NOTES_JOB, "exit 3\n", 8, "undecided"),
        (NOTES_JOB, "no-such-program\n", 8, "failed"),
    ],
    ids=["a job fails", "no job succeeds", "no job can"],
)
def test_without_a_good_release_a_broken_first_one_is_all_there_is(
    bench: Bench, bucket: Bucket, jobs: str, broken: str, *, code: int, trial: str | None
) -> None:
    """It runs each time for what it is worth; the first that works is good at once, and needs no rerun."""
    bench.release("v1.0", jobs, {**GOOD, "notes.sh": broken})
    for _ in range(2):
        release = bucket.run(bench.run(code=code).run_id).release
        assert (release["ref"], trial in (None, release["trial"])) == ("v1.0", True)
    commit = bench.release("v2.0", jobs, {"notes.sh": NOTES.format(version="2")})
    release = bucket.run(bench.run(code=0).run_id).release
    assert (release["commit"], release["trial"]) == (commit, "passed")


STOPPING = """
import os, pathlib, signal, time

if pathlib.Path({mark!r}).exists():
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
"""


def test_a_stop_during_the_rerun_leaves_what_the_others_had_failed_with(
    bench: Bench, bucket: Bucket
) -> None:
    """A job whose rerun never began failed on the new release: that is committed, with what it printed."""
    mark = bench.folder / "mark"
    bench.settings["limits.isolation"] = "process"  # in which the agent is a job's parent
    bench.release("v1", JOBS, {**GOOD, "quotes.py": STOPPING.format(mark=str(mark))})
    bench.run(code=0)
    mark.touch()
    fails = {"quotes.py": "raise SystemExit(3)\n", "notes.sh": "echo no notes today; exit 3\n"}
    bench.release("v2", JOBS, fails)
    run = bucket.run(bench.run(limits__jobs="1").run_id)
    assert run.job("quotes")["status"] == "interrupted"
    assert (run.job("notes")["status"], run.job("notes")["cause"]) == ("failed", "error")
    assert b"no notes today" in run.printed("notes")


def test_a_stop_during_the_rerun_leaves_the_release_on_trial(bench: Bench, bucket: Bucket) -> None:
    """One of its jobs succeeded, but whether it broke the other one was not told."""
    mark = bench.folder / "mark"
    bench.settings["limits.isolation"] = "process"  # in which the agent is a job's parent
    bench.release("v1", JOBS, {**GOOD, "quotes.py": STOPPING.format(mark=str(mark))})
    bench.run(code=0)
    mark.touch()
    commit = bench.release("v2", JOBS, {"quotes.py": "raise SystemExit(3)\n"})
    run = bucket.run(bench.run().run_id)
    assert run.job("notes")["status"] == "succeeded"
    assert (run.release["commit"], run.release["trial"]) == (commit, "undecided")
    mark.unlink()
    release = bucket.run(bench.run(code=0).run_id).release
    assert (release["ref"], release["trial"]) == ("v1", "failed"), "the next run asks again"
