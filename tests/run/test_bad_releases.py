"""A release that is broken costs a rollback, not a day: its files come from the last good one, in the same run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.bucket.bucket import Bucket, Run
from tests.bucket.sound import sound
from tests.run.bench import Bench, Ran

JOBS = """
[[job]]
name = "quotes"
command = ["python3", "quotes.py"]

[[job]]
name = "notes"
command = ["sh", "notes.sh"]
"""
WITHOUT_NOTES = JOBS.partition('[[job]]\nname = "notes"')[0]
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
EMPTY_LOCK = """version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "p"
version = "1"
source = { virtual = "." }
"""
# It writes what it takes for the self-check's own answer.
LIAR = """
import os
import sys

print(sys.argv[1], "[" * 20_000, flush=True)
os._exit(0)
"""
FAULTS = """
[[job]]
name = "Quotes"
command = ["python3", "quotes.py"]
timeout = "soon"
speed = 3
"""


@dataclass(frozen=True)
class Broken:
    """A release that is broken.

    Attributes:
        files: What it changes.
        jobs: Its jobs file.
        kind: At which step it is refused.
        words: What the reason says.
        again: The jobs that ran once more; empty when it did not run at all.
    """

    files: Mapping[str, str]
    kind: str
    words: str
    jobs: str = JOBS
    again: tuple[str, ...] = ()
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
        again=("quotes",),
    ),
    "hanging-check": Broken(
        {"slow.py": "import time\ntime.sleep(600)\n", "quotes.py": "import slow\n" + LATER},
        "check",
        "did not end within 2 s",
        settings={"release.check_timeout": "2s"},
    ),
    "crash": Broken(
        {"quotes.py": "import os\nos.abort()\n"}, "trial", "killed by signal 6", again=("quotes",)
    ),
    "exit": Broken(
        {"notes.sh": "exit 3\n"}, "trial", "it works on the last good release", again=("notes",)
    ),
    "hang": Broken(
        {"notes.sh": "sleep 600\n"},
        "trial",
        "still running after 2.0s",
        jobs=JOBS.replace('"notes.sh"]', '"notes.sh"]\ntimeout = "2s"'),
        again=("notes",),
    ),
    "command": Broken(
        {}, "content", 'no program "nonesuch"', jobs=JOBS.replace("python3", "nonesuch")
    ),
    "shell-command": Broken({"notes.sh": "nonesuch\n"}, "trial", "not found", again=("notes",)),
    "lock": Broken({"pyproject.toml": PROJECT, "uv.lock": LOCK}, "install", "uv sync"),
    "python": Broken(
        {"pyproject.toml": PROJECT, "uv.lock": EMPTY_LOCK, ".python-version": "3.99\n"},
        "install",
        "3.99",
    ),
    "removed": Broken({}, "check", "no job notes", jobs=WITHOUT_NOTES),
    "faults": Broken({}, "content", "jobs.toml", jobs=FAULTS),
    "browser": Broken(
        {},
        "install",
        "selenium/nonesuch",
        jobs='[browser]\nimage = "selenium/nonesuch:1"\n'
        + JOBS.replace('"quotes.py"]', '"quotes.py"]\nbrowser = true'),
        settings={"browser.sessions": "1"},
    ),
}


def _delivered(bucket: Bucket, ran: Ran) -> Run:
    """Return the manifest of a run in which all of the day's files arrived, made by version 1."""
    assert ran.code == 0, ran.stderr[-3000:]
    manifest = sound(bucket, ran.run_id)
    assert manifest.results == {"quotes/quotes.txt", "notes/notes.txt"}
    return manifest


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_release_costs_no_files(bench: Bench, bucket: Bucket, name: str) -> None:
    """The files arrive in the same run; the manifest says what was refused and why; it is not tried again."""
    broken = BROKEN[name]
    # Wherever this machine has its container engine: the image is nowhere.
    bench.environ["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    if name == "browser":
        bench.with_browser()
    good = bench.release("v1.0", JOBS, GOOD)
    assert bench.run().code == 0
    bad = bench.release("v2.0", broken.jobs, broken.files)
    ran = bench.run(**{key.replace(".", "__"): text for key, text in broken.settings.items()})
    manifest = _delivered(bucket, ran)
    release = manifest.release
    assert (release["ref"], release["commit"]) == ("v1.0", good)
    (refused,) = release["refused"]
    assert (refused["ref"], refused["commit"], refused["kind"]) == ("v2.0", bad, broken.kind)
    assert broken.words in refused["reason"]
    assert release["stale"]["wanted"] == "v2.0"
    rolled_back = release["rolled_back_from"]
    assert bool(rolled_back) == bool(broken.again)
    if rolled_back:
        assert (rolled_back["ref"], tuple(rolled_back["jobs"])) == ("v2.0", broken.again)
        assert release["trial"] == "failed"
        (again,) = broken.again
        assert [attempt["number"] for attempt in manifest.job(again)["attempts"]] == [1, 2]
    if name in {"import", "exit", "lock"}:
        second = bench.run()
        release = _delivered(bucket, second).release
        assert [refused["kind"] for refused in release["refused"]] == ["bad"]
        assert "found bad on" in release["stale"]["reason"]
        assert not second.events("release.installed")


def test_a_repaired_release_is_tried_and_becomes_the_good_one(bench: Bench, bucket: Bucket) -> None:
    """What is bad is one commit under one name: the next version is a new chance."""
    bench.release("v1.0", JOBS, GOOD)
    bench.run()
    bench.release("v2.0", JOBS, {"notes.sh": "exit 3\n"})
    bench.run()
    commit = bench.release("v2.1", JOBS, {"notes.sh": NOTES.format(version="3")})
    for trial in ("passed", None):
        ran = bench.run()
        release = bucket.run(ran.run_id).release
        assert (release["commit"], release["trial"], release["stale"]) == (commit, trial, None)
    assert bucket.run(ran.run_id).files["notes/notes.txt"] == b"3\n"


def test_what_a_good_job_of_a_bad_release_made_is_kept_and_named(
    bench: Bench, bucket: Bucket
) -> None:
    """Only what broke runs once more; the manifest says which commit made the rest."""
    good = bench.release("v1.0", JOBS, GOOD)
    bench.run()
    bad = bench.release(
        "v2.0", JOBS, {"quotes.py": QUOTES.format(version="2"), "notes.sh": "exit 3\n"}
    )
    ran = bench.run()
    manifest = _delivered(bucket, ran)
    assert bucket.run(ran.run_id).files["quotes/quotes.txt"] == b"2"
    assert bucket.run(ran.run_id).files["notes/notes.txt"] == b"1\n"
    commits = {name: row["release"] for name, row in manifest.told.items()}
    assert commits == {"quotes": bad, "notes": good}
    made = [manifest.package(name)["version"] for name in ("quotes", "notes")]
    assert made == ["v2.0", "v1.0"]


@pytest.mark.parametrize("cause", ["site_unreachable", "blocked"])
def test_a_site_that_is_down_rolls_nothing_back(bench: Bench, bucket: Bucket, cause: str) -> None:
    """Neither does it count against a release, however often: it is on trial until the site is there."""
    bench.release("v1.0", JOBS, GOOD)
    bench.run()
    down = f'echo \'{{"cause": "{cause}"}}\' > "$MAYFLY_RESULT_FILE"\nexit 1\n'
    failing = (
        "import os, pathlib\n"
        f'pathlib.Path(os.environ["MAYFLY_RESULT_FILE"]).write_text(\'{{"cause": "{cause}"}}\')\n'
        "raise SystemExit(1)\n"
    )
    commit = bench.release("v2.0", JOBS, {"notes.sh": down, "quotes.py": failing})
    for _ in range(2):
        ran = bench.run()
        assert ran.code == 8
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
    bench.run()
    switch.touch()
    commit = bench.release("v2.0", JOBS, {"quotes.py": LATER})
    ran = bench.run()
    assert ran.code == 3
    manifest = sound(bucket, ran.run_id)
    release = manifest.release
    assert (release["commit"], release["trial"]) == (commit, "passed")
    assert len(manifest.job("notes")["attempts"]) == 2
    assert len(ran.events("release.asks_last_good")) == 1
    again = bench.run()
    assert not again.events("release.asks_last_good")


def test_jobs_that_need_a_broken_one_run_once_more_as_well(bench: Bench, bucket: Bucket) -> None:
    """What was skipped because of the broken job is done after it, on the last good release."""
    jobs = JOBS.replace('"notes.sh"]', '"notes.sh"]\nneeds = ["quotes"]')
    bench.release("v1.0", jobs, GOOD)
    bench.run()
    bench.release("v2.0", jobs, {"quotes.py": "raise SystemExit(3)\n"})
    ran = bench.run()
    manifest = _delivered(bucket, ran)
    assert manifest.release["rolled_back_from"]["jobs"] == ["quotes", "notes"]


def test_a_job_that_is_retired_in_words_may_go(bench: Bench, bucket: Bucket) -> None:
    """`retired` says that it is meant; the release runs with what is left."""
    bench.release("v1.0", JOBS, GOOD)
    bench.run()
    jobs = 'retired = ["notes"]\n' + WITHOUT_NOTES
    commit = bench.release("v2.0", jobs)
    ran = bench.run()
    assert ran.code == 0
    manifest = sound(bucket, ran.run_id)
    assert manifest.release["commit"] == commit
    assert manifest.results == {"quotes/quotes.txt"}


def test_without_a_good_release_a_broken_first_one_is_all_there_is(
    bench: Bench, bucket: Bucket
) -> None:
    """It runs each time for what it is worth; the first that works takes its place."""
    bench.release("v1.0", JOBS, {**GOOD, "notes.sh": "exit 3\n"})
    for _ in range(2):
        ran = bench.run()
        assert ran.code == 3
        assert re.match("v1", bucket.run(ran.run_id).release["ref"])
    commit = bench.release("v2.0", JOBS, {"notes.sh": NOTES.format(version="2")})
    ran = bench.run()
    assert ran.code == 0
    assert bucket.run(ran.run_id).release["commit"] == commit


@pytest.mark.parametrize(
    ("broken", "trial"), [("exit 3\n", "undecided"), ("no-such-program\n", "failed")]
)
def test_a_first_release_of_which_no_job_succeeded_is_not_good(
    bench: Bench, bucket: Bucket, broken: str, trial: str
) -> None:
    """It runs again for want of another; the first release that works is good at once, and needs no rerun."""
    notes = JOBS[JOBS.rindex("[[job]]") :]
    bench.release("v1.0", notes, {"notes.sh": broken})
    for _ in range(2):
        ran = bench.run()
        assert (ran.code, bucket.run(ran.run_id).release["trial"]) == (8, trial)
    bench.release("v2.0", notes, {"notes.sh": NOTES.format(version="2")})
    ran = bench.run()
    assert (ran.code, bucket.run(ran.run_id).release["trial"]) == (0, "passed")


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
    assert bench.run().code == 0
    mark.touch()
    fails = {"quotes.py": "raise SystemExit(3)\n", "notes.sh": "echo no notes today; exit 3\n"}
    bench.release("v2", JOBS, fails)
    ran = bench.run(limits__jobs="1")
    found = bucket.run(ran.run_id)
    assert found.job("quotes")["status"] == "interrupted"
    assert (found.job("notes")["status"], found.job("notes")["cause"]) == ("failed", "error")
    assert b"no notes today" in found.printed("notes")
