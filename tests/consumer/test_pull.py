"""`mayfly pull`: what is new comes home, whole, once, and only what is wanted."""

import asyncio
import json
import os
import re
import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from frictionless import system, validate

from agent.contract.ids import Batch
from agent.contract.layout import JobKey
from agent.contract.names import bucket_path
from consumer.follow import poll
from consumer.pull.folder import Destination
from consumer.pull.plan import Wish
from consumer.pull.progress import Lines
from consumer.pull.session import pull
from consumer.store import Store
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter
from tests.consumer.pulling import (
    JOBS,
    NIGHTS,
    SMALL,
    TODAY,
    content,
    installed,
    leave,
    of_job,
    pull_into,
    pulling,
    results,
    state_of,
)
from tests.consumer.terminal import at_terminal
from tests.parts.command import call
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer
from tests.parts.ports import free_port

HOUR = timedelta(hours=1)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder at home, which is not there yet."""
    return tmp_path / "at home" / "scraped"


@pytest.fixture
def distant(s3_proxy: FaultProxy, s3_bucket: str) -> Bucket:
    """A bucket behind the proxy."""
    return Bucket.on_s3(s3_proxy.store, s3_bucket, endpoint=s3_proxy.url)


def test_jobs_come_home_with_package_logs_and_evidence(bucket: Bucket, dest: Path) -> None:
    """Each job of a run is a folder exactly as its package names it, which any tool that reads Data Packages can check.

    `latest` leads to it. To pull again changes nothing, also when all memory is lost.
    """
    run = leave(bucket)
    pulled = pull_into(dest, bucket)
    assert (pulled.code, installed(dest)) == (0, [(run, "notes"), (run, "quotes")])
    quotes = content(dest / "quotes" / run)
    assert results(dest / "quotes" / run) == of_job("quotes")
    assert results(dest / "notes" / "latest") == of_job("notes")
    assert (dest / "notes" / "latest").readlink() == Path(run)
    named = json.loads(quotes.pop("datapackage.json"))["resources"]
    assert {one["path"]: one["bytes"] for one in named} == {p: len(d) for p, d in quotes.items()}
    assert quotes["logs/attempt-1.log"] == b"said something\n"
    with system.use_context(trusted=True):
        report = validate(str(dest / "quotes" / "latest" / "datapackage.json"))
    assert report.valid, report.flatten(["type", "note"])
    marks = {path: path.stat().st_mtime_ns for path in dest.glob("[!.]*/**/*")}
    assert pull_into(dest, bucket).document["installed"] == []
    for path in (dest / ".mayfly").iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)
    again = pull_into(dest, bucket)
    assert (again.code, again.document["installed"]) == (0, [])
    assert {path: path.stat().st_mtime_ns for path in dest.glob("[!.]*/**/*")} == marks


def test_an_odd_name_is_that_of_the_package(bucket: Bucket, dest: Path) -> None:
    """What a bucket cannot hold is called otherwise there, and at home; the package has the name that the job gave.

    A job comes home before its run ends, which is no failure; one that found nothing has been there, too.
    """
    names = ["back\\slash.csv", "n" * 300, "Episode #1", "plain"]
    jobs = {"quotes": {name: name.encode() for name in names}, "notes": {}}
    run = leave(bucket, datetime.now(UTC).replace(microsecond=0), jobs, closed=False)
    pulled = pull_into(dest, bucket)
    assert (pulled.code, installed(dest)) == (0, [(run, "notes"), (run, "quotes")])
    assert results(dest / "quotes" / run) == {bucket_path(name): name.encode() for name in names}
    package = json.loads((dest / "quotes" / run / "datapackage.json").read_text())
    own = {one["mayfly:path"] for one in package["resources"] if "mayfly:path" in one}
    assert own == set(names) - {"plain"}
    there = content(dest / "notes" / "latest")
    assert set(there) == {"datapackage.json", "logs/attempt-1.log"}


def test_an_idle_pull_is_one_list(distant: Bucket, s3_proxy: FaultProxy, dest: Path) -> None:
    """When everything is seen, the bucket is asked once."""
    for night in NIGHTS:
        leave(distant, night, SMALL)
    assert pull_into(dest, distant).code == 0
    for options in ((), ("--keep", "9"), ("--since", "2026-01-01"), ("--job", "quotes")):
        before = len(s3_proxy.seen)
        assert pull_into(dest, distant, *options).code == 0
        (only,) = s3_proxy.seen[before:]
        assert "list-type=2" in only.path


def test_what_a_person_removed_comes_back_only_when_asked_for(folder: Bucket, dest: Path) -> None:
    """What was taken in and deleted at home is dealt with, until its run is named."""
    run = leave(folder)
    pull_into(dest, folder)
    shutil.rmtree(dest / "notes" / run)
    assert pull_into(dest, folder).document["installed"] == []
    assert pull_into(dest, folder, "--run", run).rows("installed") == [(run, "notes")]
    assert results(dest / "notes" / run) == of_job("notes")


def test_of_two_successes_of_a_batch_one_comes_home(folder: Bucket, dest: Path) -> None:
    """Two machines for one slot: each job comes home once, from whoever arrived first.

    When that is seen later, nothing at home is exchanged any more.
    """
    slot = Batch.of_slot("main", NIGHTS[0])
    late = leave(folder, NIGHTS[0], SMALL, batch=slot, wait=HOUR)
    pull_into(dest, folder)
    early = leave(folder, NIGHTS[0] + timedelta(minutes=5), JOBS, batch=slot)
    assert pull_into(dest, folder).rows("installed") == [(early, "notes")]
    assert installed(dest, ["quotes"]) == [(late, "quotes")]
    other = dest.with_name("other")
    assert pull_into(other, folder).rows("installed") == [(early, "quotes"), (early, "notes")]
    assert pull_into(other, folder, "--run", late).rows("installed") == [(late, "quotes")]


def test_a_retry_brings_what_the_first_run_did_not(folder: Bucket, dest: Path) -> None:
    """The jobs of a batch come home from several runs; what failed and then succeeded is no failure.

    Also where what the failure left was wanted, and is at home.
    """
    slot = Batch.of_slot("main", NIGHTS[0])
    first = leave(folder, NIGHTS[0], batch=slot, failed=["notes"])
    assert pull_into(dest, folder, "--partial").code == 3
    second = leave(folder, NIGHTS[0] + HOUR, {"notes": JOBS["notes"]}, batch=slot)
    pulled = pull_into(dest, folder)
    assert (pulled.code, pulled.rows("installed")) == (0, [(second, "notes")])
    assert installed(dest) == [(first, "notes"), (first, "quotes"), (second, "notes")]


def test_only_the_wanted_jobs_come_and_the_others_can_come_later(
    folder: Bucket, dest: Path
) -> None:
    """What one choice of jobs has passed over is still new to another."""
    run = leave(folder)
    assert pull_into(dest, folder, "--job", "notes").rows("installed") == [(run, "notes")]
    assert pull_into(dest, folder, "--job", "notes").rows("installed") == []
    assert pull_into(dest, folder).rows("installed") == [(run, "quotes")]


@pytest.mark.parametrize(
    ("options", "says", "looks"),
    [
        ("--job quots", "there are notes, quotes", True),
        ("--run 20261122T064205Z-3f9a1c", "mayfly status", True),
        ("--run latest --watch", "--run latest is for one pull", False),
        ("--watch 0.1", "--watch takes 1 seconds or more", False),
        *(
            (f"--since={text}", f"{text!r} is neither a date", False)
            for text in ("yesterday", "2026-13-01", "-3d", "")
        ),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    folder: Bucket, dest: Path, options: str, says: str, *, looks: bool
) -> None:
    """A typo brings nothing, and is told from a night without results; if possible before a folder is made."""
    leave(folder)
    pulled = pull_into(dest, folder, *options.split())
    assert (pulled.code, installed(dest), dest.exists()) == (2, [], looks)
    assert says in pulled.stderr


def test_the_latest_run_is_pulled_by_that_word(folder: Bucket, dest: Path) -> None:
    """As `show` takes it."""
    _, run = (leave(folder, night, SMALL) for night in NIGHTS[:2])
    assert pull_into(dest, folder, "--run", "latest").rows("installed") == [(run, "quotes")]


def test_a_failed_job_is_told_until_it_succeeds(folder: Bucket, dest: Path) -> None:
    """A pull that brings nothing says which job had nothing, and why; scripts see it by the exit code."""
    leave(folder, NIGHTS[0])
    run = leave(folder, NIGHTS[1], failed=["notes"])
    for again in (False, True):
        pulled = pull_into(dest, folder)
        (told,) = pulled.document["failed"]
        assert (pulled.code, told["run"], told["job"], told["again"]) == (3, run, "notes", again)
        assert told["reason"] == "page_changed: no .quote"
    assert pull_into(dest, folder, "--job", "quotes").code == 0
    assert (run, "notes") not in installed(dest)
    leave(folder, NIGHTS[2])
    assert pull_into(dest, folder).code == 0


def test_partial_jobs_come_only_when_asked_for(folder: Bucket, dest: Path) -> None:
    """What a failed job left, with its evidence, stays away, unless wanted; `latest` never leads to it."""
    good, bad = leave(folder, NIGHTS[0]), leave(folder, NIGHTS[1], failed=["notes"])
    pull_into(dest, folder)
    assert (bad, "notes") not in installed(dest)
    pulled = pull_into(dest, folder, "--partial")
    assert [(row["run"], row["status"]) for row in pulled.document["installed"]] == [
        (bad, "failed")
    ]
    assert (dest / "notes" / bad / "evidence" / "attempt-1" / "shot.png").exists()
    assert (dest / "notes" / "latest").readlink() == Path(good)
    assert (dest / "quotes" / "latest").readlink() == Path(bad)


def test_since_leaves_earlier_runs_until_they_are_wanted(folder: Bucket, dest: Path) -> None:
    """A date or a duration limits what is fetched, and a later pull without it fetches the rest."""
    runs = [leave(folder, night, SMALL) for night in NIGHTS]
    recent = leave(folder, datetime.now(UTC).replace(microsecond=0) - HOUR, SMALL)
    assert pull_into(dest, folder, "--since", "2h").rows("installed") == [(recent, "quotes")]
    since = f"{NIGHTS[3]:%Y-%m-%dT%H:%M:%SZ}"
    pulled = pull_into(dest, folder, "--since", since)
    assert pulled.rows("installed") == [(run, "quotes") for run in runs[3:]]
    assert pull_into(dest, folder).rows("installed") == [(run, "quotes") for run in runs[:3]]


def test_keep_removes_older_runs_and_never_the_latest(folder: Bucket, dest: Path) -> None:
    """The newest N of each job stay, and what is removed does not come back."""
    runs = [leave(folder, night) for night in NIGHTS[:3]]
    runs.append(leave(folder, NIGHTS[3], failed=["notes"]))
    pull_into(dest, folder, "--partial")
    pulled = pull_into(dest, folder, "--partial", "--keep", "1")
    assert installed(dest) == sorted([(runs[2], "notes"), (runs[3], "notes"), (runs[3], "quotes")])
    assert len(pulled.document["removed"]) == 5
    assert pull_into(dest, folder, "--partial").document["installed"] == []


def test_keep_removes_nothing_that_no_pull_installed(folder: Bucket, dest: Path) -> None:
    """Folders that look like runs and are somebody else's stay, and so does what is in the place of a run."""
    theirs = [f"202001{day:02d}T000000Z-aaaaaa" for day in range(1, 5)]
    for run in theirs:
        (dest / "quotes" / run).mkdir(parents=True)
    runs = [leave(folder, night, SMALL) for night in NIGHTS]
    (dest / "quotes" / runs[4]).mkdir()
    (dest / "quotes" / runs[4] / "mine.txt").write_text("mine")
    pulled = pull_into(dest, folder, "--keep", "1")
    assert {run for run, _ in installed(dest)} >= {*theirs, runs[4]}
    assert (dest / "quotes" / runs[4] / "mine.txt").read_text() == "mine"
    assert (pulled.code, "in the way" in pulled.document["delayed"][0]["problem"]) == (3, True)


def test_keep_leaves_a_run_to_which_something_was_added(folder: Bucket, dest: Path) -> None:
    """By a person or a hook; it is told once."""
    runs = [leave(folder, night, SMALL) for night in NIGHTS[:3]]
    pull_into(dest, folder)
    mine = dest / "quotes" / runs[0] / "summary" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    pulled = pull_into(dest, folder, "--keep", "1")
    assert mine.read_text() == "mine"
    assert (pulled.code, pulled.rows("removed")) == (0, [(runs[1], "quotes")])
    assert pulled.notes == [f"{runs[0]} quotes: not removed, {mine} was not pulled"]
    assert pull_into(dest, folder, "--keep", "1").notes == []
    mine.unlink()
    assert pull_into(dest, folder, "--keep", "1").rows("removed") == [(runs[0], "quotes")]


def test_a_run_that_a_wrong_clock_dated_to_come_takes_no_place(folder: Bucket, dest: Path) -> None:
    """`latest` leads to the last of the others, and `--keep` counts them without it."""
    wrong = leave(folder, datetime(2096, 1, 1, tzinfo=UTC), SMALL)
    pull_into(dest, folder, "--keep", "1")
    assert (dest / "quotes" / "latest").readlink() == Path(wrong)
    for night in NIGHTS[:2]:
        run = leave(folder, night, SMALL, wait=TODAY - night + HOUR)
        assert pull_into(dest, folder, "--keep", "1").rows("installed") == [(run, "quotes")]
        assert (dest / "quotes" / "latest").readlink() == Path(run)
    assert installed(dest) == [(run, "quotes"), (wrong, "quotes")]


def test_keep_fetches_no_more_than_stays(folder: Bucket, dest: Path) -> None:
    """Of a year in the bucket; also when memory is lost, and then no hook is called for it."""
    runs = [leave(folder, night, SMALL) for night in NIGHTS]
    stay = [(run, "quotes") for run in runs[-2:]]
    assert pull_into(dest.with_name("other"), folder, "--keep", "2").rows("installed") == stay
    pull_into(dest, folder, "--keep", "2", "--exec", "true")
    state_of(dest).unlink()
    pulled = pull_into(dest, folder, "--keep", "2", "--exec", "true")
    assert [pulled.document[kind] for kind in ("installed", "hooks", "removed")] == [[], [], []]
    assert installed(dest) == stay


def test_a_run_that_commits_late_is_told_to_the_hook_before_it_goes(
    folder: Bucket, dest: Path
) -> None:
    """A run older than what is kept, but new, is fetched: its hook must not miss it."""
    leave(folder, NIGHTS[-1], SMALL)
    options = ("--keep", "1", "--exec", "true")
    pull_into(dest, folder, *options)
    late = leave(folder, NIGHTS[0], SMALL, wait=timedelta(days=9))
    pulled = pull_into(dest, folder, *options)
    assert pulled.rows("hooks") == pulled.rows("removed") == [(late, "quotes")]


def test_a_rejected_job_is_told_again_and_not_fetched_again(folder: Bucket, dest: Path) -> None:
    """A job whose file is wrong stays away, its neighbour comes, and every pull says so until it is right."""
    run, fine = leave(folder, NIGHTS[0]), leave(folder, NIGHTS[1])
    key = JobKey(run, "notes", "files/\U0001f98b.md").text
    folder.objects.put(key, b"# MAYFLY")
    first = pull_into(dest, folder)
    assert (first.code, first.rows("rejected")) == (3, [(run, "notes")])
    assert installed(dest) == sorted([(run, "quotes"), (fine, "notes"), (fine, "quotes")])
    folder.objects.put(key, b"# Mayfly")
    second = pull_into(dest, folder)
    assert (second.code, second.document["rejected"][0]["again"]) == (3, True)
    third = pull_into(dest, folder, "--again")
    assert (third.code, third.rows("installed")) == (0, [(run, "notes")])
    assert pull_into(dest, folder).code == 0


def test_a_job_above_the_limit_waits_for_a_higher_one(folder: Bucket, dest: Path) -> None:
    """What declares more than is allowed is rejected unread, and comes when more is allowed."""
    run = leave(folder)
    pulled = pull_into(dest, folder, "--max-bytes", "1MB")
    assert (pulled.code, installed(dest)) == (3, [(run, "notes")])
    assert "more than the 1000000 allowed" in pulled.problems
    pulled = pull_into(dest, folder)
    assert (pulled.code, len(installed(dest))) == (0, 2)


def test_a_run_that_expired_is_told_once(bucket: Bucket, dest: Path) -> None:
    """What a lifecycle rule has removed is no fault of anybody."""
    run = leave(bucket, NIGHTS[0], SMALL)
    for key in bucket.objects.keys(f"runs/{run}/"):
        bucket.objects.delete(key)
    first, second = pull_into(dest, bucket), pull_into(dest, bucket)
    assert (first.code, second.code, second.notes) == (0, 0, [])
    assert first.notes == [f"{run} quotes: expired, its files are no longer in the bucket"]


def test_what_was_rejected_of_a_run_that_expired_is_told_no_more(
    folder: Bucket, dest: Path
) -> None:
    """There is nothing left that could be tried again with success."""
    run = leave(folder, NIGHTS[0], SMALL)
    folder.objects.put(f"runs/{run}/jobs/quotes/files/a", b"?")
    assert pull_into(dest, folder).rows("rejected") == [(run, "quotes")]
    for key in folder.objects.keys(f"runs/{run}/"):
        folder.objects.delete(key)
    assert pull_into(dest, folder).rows("rejected") == [(run, "quotes")]
    assert pull_into(dest, folder, "--again").code == 0
    assert pull_into(dest, folder).code == 0


def test_an_object_that_the_store_refuses_waits_and_stops_nobody(
    distant: Bucket, s3_proxy: FaultProxy, dest: Path
) -> None:
    """A job that cannot be fetched now is fetched later; others do not wait for it."""
    runs = [leave(distant, night, SMALL) for night in NIGHTS[:2]]
    s3_proxy.inject(Answer(403, "AccessDenied"), path=f"{runs[0]}/jobs/quotes")
    pulled = pull_into(dest, distant)
    assert (pulled.code, pulled.rows("delayed")) == (6, [(runs[0], "quotes")])
    assert installed(dest) == [(runs[1], "quotes")]
    s3_proxy.heal()
    pulled = pull_into(dest, distant)
    assert (pulled.code, (runs[0], "quotes") in installed(dest)) == (0, True)
    assert (dest / "quotes" / "latest").readlink() == Path(runs[1])


def test_a_batch_that_cannot_be_read_is_named_and_not_called_failed(
    distant: Bucket, s3_proxy: FaultProxy, dest: Path
) -> None:
    """Also without --json: with the reason and what to do, and without a guess of what became of its jobs."""
    leave(distant, NIGHTS[0], SMALL)
    pull_into(dest, distant)
    run = leave(distant, NIGHTS[2], SMALL)
    s3_proxy.inject(Answer(403, "AccessDenied"), path=f"/batches/main/{run}/")
    told = call("pull", str(dest), environ=distant.environ)
    assert (told.exit_code, told.stdout) == (6, "nothing new, 1 problem\n")
    assert f"{run}: not now, " in told.stderr
    assert "refused" in told.stderr
    assert "nothing, " not in told.stderr


def test_files_that_are_not_as_declared_reject_their_jobs_alone(bucket: Bucket, dest: Path) -> None:
    """In one part, in many, or gone; a file that is larger than one request is whole at home all the same."""
    part, parts = bytes(range(256)) * 16 * 1024, bytes(range(256)) * (40 * 4096 + 1)
    names = {"whole": parts, "long": part, "short": parts, "gone": b"a"}
    run = leave(bucket, jobs={job: {"large.bin": data} for job, data in names.items()})
    keys = {job: JobKey(run, job, "files/large.bin").text for job in names}
    bucket.objects.put(keys["long"], part + b"!")
    bucket.objects.put(keys["short"], parts[:-1])
    bucket.objects.delete(keys["gone"])
    pulled = pull_into(dest, bucket)
    assert results(dest / "whole" / run) == {"large.bin": parts}
    assert (pulled.code, installed(dest, list(names))) == (3, [(run, "whole")])
    assert {row["job"]: row["problems"] for row in pulled.document["rejected"]} == {
        "long": [f"'files/large.bin': it has more than the {len(part)} bytes it declares"],
        "short": [f"'files/large.bin': it does not have the {len(parts)} bytes it declares"],
        "gone": ["'files/large.bin': it is not in the bucket"],
    }


def test_a_state_is_no_result(bucket: Bucket, dest: Path) -> None:
    """What an interrupted job left for its next run stays in the bucket, also with --partial."""
    writer = RunWriter(bucket.objects, NIGHTS[0])
    writer.append(began=writer.began())
    state = writer.put(f"state/quotes/{writer.run}.checkpoint.tar.gz", b"cookies")
    ended = writer.job("quotes", "interrupted").model_copy(update={"state": state})
    writer.append(jobs=(ended,))
    pull_into(dest, bucket, "--partial")
    assert installed(dest) == [(writer.run, "quotes")]
    assert b"cookies" not in content(dest / "quotes" / writer.run).values()


def test_exit_codes_for_what_is_not_there(folder: Bucket, tmp_path: Path) -> None:
    """A folder that cannot be one is 4; a bucket that is not there, or does not answer, is 6."""
    (tmp_path / "file").write_text("x")
    assert pull_into(tmp_path / "file" / "d", folder).code == 4
    nowhere = Bucket.in_folder(tmp_path / "x")
    assert pull_into(tmp_path / "d", nowhere).code == 6
    nowhere.objects.credentials |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    silent = f"store.endpoint=http://127.0.0.1:{free_port()}"
    pulled = pull_into(tmp_path / "d", nowhere, "--store", "s3://silent", "--set", silent)
    assert (pulled.code, bool(pulled.document["unreachable"])) == (6, True)


def test_an_entry_that_cannot_be_used_is_told(folder: Bucket, dest: Path) -> None:
    """A damaged entry hides a job: each pull says so, and the others come."""
    run = leave(folder)
    damaged = next(key for key in folder.objects.keys("batches/") if key.endswith(".2.json"))
    folder.objects.put(damaged, b"{")
    for _ in range(2):
        pulled = pull_into(dest, folder)
        assert pulled.code == 3
        assert any(damaged in note for note in pulled.notes)
    assert installed(dest) == [(run, "notes")]


def test_an_unreadable_state_is_put_aside(folder: Bucket, dest: Path) -> None:
    """A damaged memory is told, and costs nothing: what is in place is found in place."""
    leave(folder)
    pull_into(dest, folder)
    state_of(dest).write_bytes(b"not a database, but long enough to be taken for one" * 100)
    pulled = pull_into(dest, folder)
    assert (pulled.code, pulled.document["installed"]) == (3, [])
    assert state_of(dest).with_name("pull.db.unreadable").exists()
    assert pull_into(dest, folder).code == 0


async def test_a_folder_in_use_is_refused_after_a_bounded_wait(folder: Bucket, dest: Path) -> None:
    """A pull waits for another, says who it is, and gives up."""
    log = dest.parent / "pull.json"
    with Destination.open(dest) as place:
        async with place.locked(1, print):
            # A command in a thread could not handle signals.
            with pulling(dest, folder.environ, "--lock-timeout", "0.3s", log=log) as process:
                assert await asyncio.to_thread(process.wait, 60) == 2
    said = log.with_suffix(".err").read_text()
    assert said.count(f"process {os.getpid()}") == 2  # that it waits, and that it gives up


def test_at_a_terminal_lines_and_the_bar_do_not_meet(folder: Bucket, dest: Path) -> None:
    """The bar gives way to each line and to what a hook writes, and is gone in the end."""
    run = leave(folder)
    code, text = at_terminal(
        "pull", str(dest), "--exec", "echo from the hook", environ=folder.environ
    )
    assert code == 0
    assert b"\x1b[?25l" in text  # there was a bar
    assert text.rfind(b"\x1b[?25h") > text.rfind(b"\x1b[?25l")  # and the cursor is back
    shown = [re.sub(r"^.*\x1b\[2K", "", line) for line in text.decode().splitlines()]
    assert shown.count("from the hook") == 2
    assert sum(line.startswith(f"{run} quotes: 4 files") for line in shown) == 1
    assert shown[-1] == "2 jobs, 5 files, 2.3 MB"


async def test_others_have_a_turn_while_a_run_is_removed(folder: Bucket, dest: Path) -> None:
    """A service answers meanwhile: what `--keep` removes may be many thousand files."""
    leave(folder, NIGHTS[0], {"quotes": {f"{number:04d}": b"a" for number in range(2000)}})
    run = leave(folder, NIGHTS[1], SMALL)
    trash, seen = dest / ".mayfly" / "trash", False

    async def look() -> None:
        nonlocal seen
        while True:
            seen = seen or (trash.exists() and any(trash.iterdir()))
            await asyncio.sleep(0)

    with Destination.open(dest) as place, closing(Store.open(None, "b", NIGHTS[0])) as store:
        bucket = folder.reader()
        await poll(bucket, store, datetime.now(UTC))
        await pull(bucket, store, place, Wish(), Lines(lambda *_: None))
        looking = asyncio.create_task(look())
        await pull(bucket, store, place, Wish(keep=1), Lines(lambda *_: None))
        looking.cancel()
    assert (installed(dest), seen) == ([(run, "quotes")], True)
