"""`mayfly pull`: what is new comes home, whole, once, and only what is wanted."""

import asyncio
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.contract.names import bucket_path
from agent.core.ids import run_id
from agent.core.results import JobResult, JobStatus
from consumer.pull.place import Destination
from tests.bucket.bucket import Bucket
from tests.bucket.leaving import FILES, RUN, leave_run
from tests.consumer.pulling import content, of_job, placed, pull_into, pulling
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer
from tests.parts.ports import free_port
from tests.parts.seaweed import S3Server

DAYS = [f"202611{day}T064205Z-3f9a1c" for day in (18, 19, 20, 21)]
HALF = (
    JobResult(name="quotes", status=JobStatus.SUCCEEDED),
    JobResult(name="notes", status=JobStatus.FAILED),
)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder at home, which is not there yet."""
    return tmp_path / "at home" / "scraped"


def leave_half(bucket: Bucket, run: str) -> None:
    """Leave a run one of whose two jobs failed after it had written a file."""
    leave_run(bucket, run, jobs=HALF)

    def partial(manifest: dict[str, object]) -> None:
        resources = manifest["resources"]
        assert isinstance(resources, list)
        for row in resources:
            if row.get("mayfly:job") == "notes":
                row["mayfly:partial"] = True

    jobs = [
        {"name": "quotes", "status": "succeeded", "files": 4},
        {"name": "notes", "status": "failed", "files": 1},
    ]
    bucket.rewrite(run, partial)
    bucket.commit(run, bucket.manifest_text(run), jobs=jobs)


def test_a_run_comes_home_by_job_with_every_byte(bucket: Bucket, dest: Path) -> None:
    """Each job of a run is a folder with the job's own paths, and `latest` leads to it."""
    leave_run(bucket)
    pulled = pull_into(dest, bucket)
    assert (pulled.code, placed(dest)) == (0, [(RUN, "notes"), (RUN, "quotes")])
    assert content(dest / "quotes" / RUN) == of_job("quotes")
    assert content(dest / "notes" / "latest") == of_job("notes")
    assert (dest / "notes" / "latest").readlink() == Path(RUN)


def test_a_name_that_the_disk_at_home_cannot_hold_stays_that_of_the_bucket(
    bucket: Bucket, dest: Path
) -> None:
    """Of each file by itself; a pull that goes on where one was killed decides in the same way."""
    names = {
        "back\\slash.csv": "back\\slash.csv",
        "n" * 300: bucket_path("n" * 300),
        "plain": "plain",
    }
    files = {f"quotes/{bucket_path(name)}": name.encode() for name in names}
    leave_run(bucket, files=files, jobs=[JobResult(name="quotes", status=JobStatus.SUCCEEDED)])
    bucket.rewrite(RUN, lambda manifest: _name_originals(manifest, names))
    staged = dest / ".mayfly" / "staging" / RUN / "quotes"
    staged.mkdir(parents=True)
    (staged / "back\\slash.csv").write_bytes(b"back\\slash.csv")
    assert pull_into(dest, bucket).code == 0
    there = {at_home: name.encode() for name, at_home in names.items()}
    assert content(dest / "quotes" / RUN) == there


def _name_originals(manifest: dict[str, Any], names: Iterable[str]) -> None:
    for name in names:
        for resource in manifest["resources"]:
            if bucket_path(name) != name and resource["path"] == f"quotes/{bucket_path(name)}":
                resource["mayfly:path"] = name


def test_a_second_pull_finds_nothing_new(bucket: Bucket, dest: Path) -> None:
    """To pull again changes nothing, also when the state is lost."""
    leave_run(bucket)
    first = pull_into(dest, bucket)
    marks = {path: path.stat().st_mtime_ns for path in dest.rglob("*") if path.name != "lock"}
    assert pull_into(dest, bucket).document["placed"] == []
    assert {path: path.stat().st_mtime_ns for path in marks} == marks
    (dest / ".mayfly" / "state.json").unlink()
    again = pull_into(dest, bucket)
    assert (len(first.document["placed"]), again.document["placed"], again.code) == (2, [], 0)


def test_an_idle_pull_is_one_list(s3_proxy: FaultProxy, s3_bucket: str, dest: Path) -> None:
    """When everything is seen, the bucket is asked once, and never listed from its beginning."""
    bucket = Bucket.on_s3(s3_proxy.store, s3_bucket, endpoint=s3_proxy.url)
    for run in DAYS:
        leave_run(bucket, run, files={"quotes/a": b"a"})
    assert pull_into(dest, bucket).code == 0
    for options in ((), ("--keep", "9"), ("--since", "2026-01-01")):
        before = len(s3_proxy.seen)
        assert pull_into(dest, bucket, *options).code == 0
        (only,) = s3_proxy.seen[before:]
        assert "list-type=2" in only.path
        assert "start-after=" in only.path


def test_runs_that_commit_late_within_the_overlap_are_found(folder: Bucket, dest: Path) -> None:
    """An entry that appears with a stamp before the newest one is not missed, and none is taken twice."""
    late, early = "20261122T064205Z-3f9a1c", "20261122T063205Z-3f9a1c"
    leave_run(folder, late)
    pull_into(dest, folder)
    leave_run(folder, early)
    pulled = pull_into(dest, folder)
    assert pulled.rows("placed") == [(early, "quotes"), (early, "notes")]
    assert (dest / "quotes" / "latest").readlink() == Path(late)


def test_a_folder_that_a_person_removed_does_not_come_back(folder: Bucket, dest: Path) -> None:
    """What was taken in and deleted at home is dealt with."""
    leave_run(folder)
    pull_into(dest, folder)
    for path in sorted((dest / "notes" / RUN).rglob("*"), reverse=True):
        path.unlink()
    (dest / "notes" / RUN).rmdir()
    assert pull_into(dest, folder).document["placed"] == []


def test_a_second_commit_of_a_run_changes_nothing(folder: Bucket, dest: Path) -> None:
    """A later index entry for a run that was committed long before is not believed."""
    leave_run(folder, DAYS[0])
    leave_run(folder, DAYS[3])
    pull_into(dest, folder, "--keep", "1")
    entry = folder.entry(DAYS[0])
    folder.put_entry(DAYS[0], entry, at=datetime(2026, 11, 21, 6, 44, tzinfo=UTC))
    assert pull_into(dest, folder).document["placed"] == []
    assert placed(dest) == [(DAYS[3], "notes"), (DAYS[3], "quotes")]


def test_only_the_wanted_jobs_come_and_the_others_can_come_later(
    folder: Bucket, dest: Path
) -> None:
    """What one choice of jobs has passed over is still new to another."""
    leave_run(folder)
    assert pull_into(dest, folder, "--job", "notes").rows("placed") == [(RUN, "notes")]
    assert pull_into(dest, folder, "--job", "notes").rows("placed") == []
    assert pull_into(dest, folder).rows("placed") == [(RUN, "quotes")]


def test_partial_jobs_come_only_when_asked_for(folder: Bucket, dest: Path) -> None:
    """What a failed job left stays away, unless wanted; `latest` never leads to it."""
    leave_run(folder, DAYS[0])
    leave_half(folder, DAYS[1])
    assert pull_into(dest, folder).code == 0
    assert (DAYS[1], "notes") not in placed(dest)
    assert (DAYS[1], "quotes") in placed(dest)
    pulled = pull_into(dest, folder, "--partial")
    assert [(row["run"], row["partial"]) for row in pulled.document["placed"]] == [(DAYS[1], True)]
    assert (dest / "notes" / "latest").readlink() == Path(DAYS[0])
    assert (dest / "quotes" / "latest").readlink() == Path(DAYS[1])


def test_since_leaves_earlier_runs_until_they_are_wanted(folder: Bucket, dest: Path) -> None:
    """A date or a duration limits what is fetched, and a later pull without it fetches the rest."""
    recent = run_id(datetime.now(UTC) - timedelta(hours=1), b"abc")
    for run in (*DAYS, recent):
        leave_run(folder, run, files={"quotes/a": b"a"})
    pulled = pull_into(dest, folder, "--since", "2h", "--job", "quotes")
    assert pulled.rows("placed") == [(recent, "quotes")]
    pulled = pull_into(dest, folder, "--since", "2026-11-20T00:00:00Z", "--job", "quotes")
    assert pulled.rows("placed") == [(DAYS[2], "quotes"), (DAYS[3], "quotes")]
    assert len(pull_into(dest, folder, "--job", "quotes").document["placed"]) == 2


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "-3d", ""])
def test_a_since_that_says_nothing_is_a_usage_error(folder: Bucket, dest: Path, text: str) -> None:
    """What is neither a date nor a duration ends with exit code 2, and makes no folder."""
    assert pull_into(dest, folder, "--since", text).code == 2
    assert not dest.exists()


def test_keep_removes_older_runs_and_never_the_latest(folder: Bucket, dest: Path) -> None:
    """The newest N of each job stay, and what is removed does not come back."""
    for run in DAYS[:3]:
        leave_run(folder, run)
    leave_half(folder, DAYS[3])
    pull_into(dest, folder, "--partial")
    pulled = pull_into(dest, folder, "--partial", "--keep", "1")
    assert placed(dest) == [(DAYS[2], "notes"), (DAYS[3], "notes"), (DAYS[3], "quotes")]
    assert len(pulled.document["removed"]) == 5
    assert pull_into(dest, folder, "--partial", "--keep", "1").document["placed"] == []


def test_a_run_that_a_wrong_clock_dated_to_come_takes_no_place(folder: Bucket, dest: Path) -> None:
    """`latest` leads to the last of the others, and `--keep` counts them without it."""
    wrong = "20360101T000000Z-abcdef"
    leave_run(folder, wrong)
    pull_into(dest, folder, "--keep", "1")
    assert (dest / "quotes" / "latest").readlink() == Path(wrong)
    for run in DAYS[:2]:
        leave_run(folder, run)
        pulled = pull_into(dest, folder, "--keep", "1")
        assert pulled.rows("placed") == [(run, "quotes"), (run, "notes")]
        assert (dest / "quotes" / "latest").readlink() == Path(run)
    assert placed(dest, ("quotes",)) == [(DAYS[1], "quotes"), (wrong, "quotes")]


def test_a_run_of_a_clock_that_is_behind_comes_home(folder: Bucket, dest: Path) -> None:
    """A folder refuses no writer's clock, as S3 does: a run may be committed years behind the last."""
    leave_run(folder, DAYS[3])
    pull_into(dest, folder)
    late = ["20210101T000000Z-abcdef", DAYS[2]]
    for run in late:
        leave_run(folder, run)
    pulled = pull_into(dest, folder)
    assert sorted({run for run, _ in pulled.rows("placed")}) == late
    shutil.rmtree(dest / "quotes" / DAYS[2])
    assert pull_into(dest, folder).document["placed"] == []


def test_keep_does_not_bring_back_what_it_removed(folder: Bucket, dest: Path) -> None:
    """When all is looked at anew, what would be removed at once is not fetched, and no hook called for it."""
    for run in DAYS:
        leave_run(folder, run, files={"quotes/a": b"a"})
    pull_into(dest, folder, "--keep", "2", "--exec", "true")
    (dest / ".mayfly" / "state.json").unlink()
    pulled = pull_into(dest, folder, "--keep", "2", "--exec", "true")
    assert [pulled.document[kind] for kind in ("placed", "hooks", "removed")] == [[], [], []]
    assert placed(dest, ("quotes",)) == [(DAYS[2], "quotes"), (DAYS[3], "quotes")]


def test_a_run_that_commits_late_is_told_to_the_hook_before_it_goes(
    folder: Bucket, dest: Path, tmp_path: Path
) -> None:
    """A run older than what is kept, but new, is fetched: its hook must not miss it."""
    leave_run(folder, "20261122T064205Z-3f9a1c", files={"quotes/a": b"a"})
    options = ("--keep", "1", "--job", "quotes", "--exec", f'echo x >> "{tmp_path}/calls"')
    pull_into(dest, folder, *options)
    late = "20261122T063205Z-3f9a1c"
    leave_run(folder, late, files={"quotes/a": b"a"})
    pulled = pull_into(dest, folder, *options)
    assert pulled.rows("hooks") == pulled.rows("removed") == [(late, "quotes")]


def test_a_job_without_files_is_an_empty_folder(folder: Bucket, dest: Path) -> None:
    """A job that succeeded and found nothing has been there, too."""
    leave_run(folder, files={"quotes/a": b"a"})
    assert pull_into(dest, folder).code == 0
    assert content(dest / "notes" / "latest") == {}


def test_a_refused_run_is_told_again_and_not_fetched_again(folder: Bucket, dest: Path) -> None:
    """A job whose file is wrong stays away, its neighbour comes, and every pull says so until it is right."""
    leave_run(folder, DAYS[0])
    folder.put_file(DAYS[0], "notes/\U0001f98b.md", b"# MAYFLY")
    leave_run(folder, DAYS[1])
    first = pull_into(dest, folder)
    assert (first.code, first.rows("refused")) == (3, [(DAYS[0], "notes")])
    assert (DAYS[0], "notes") not in placed(dest)
    assert len(placed(dest)) == 3
    folder.put_file(DAYS[0], "notes/\U0001f98b.md", FILES["notes/\U0001f98b.md"])
    second = pull_into(dest, folder)
    assert (second.code, second.document["refused"][0]["again"]) == (3, True)
    third = pull_into(dest, folder, "--again")
    assert (third.code, third.rows("placed")) == (0, [(DAYS[0], "notes")])
    assert pull_into(dest, folder).code == 0


def test_a_run_above_the_limit_waits_for_a_higher_one(folder: Bucket, dest: Path) -> None:
    """What declares more than is allowed is refused unread, and comes when more is allowed."""
    leave_run(folder)
    pulled = pull_into(dest, folder, "--max-bytes", "1MB")
    assert (pulled.code, placed(dest)) == (3, [])
    assert "more than the 1000000 allowed" in pulled.document["refused"][0]["problems"][0]
    pulled = pull_into(dest, folder)
    assert (pulled.code, len(placed(dest))) == (0, 2)


def test_a_missing_object_is_a_refusal_and_not_a_failure(bucket: Bucket, dest: Path) -> None:
    """A manifest that names what is not there does not stop the runs after it."""
    leave_run(bucket, DAYS[0])
    bucket.remove_file(DAYS[0], "quotes/page 1.json")
    leave_run(bucket, DAYS[1], files={"quotes/a": b"a"})
    pulled = pull_into(dest, bucket)
    assert (pulled.code, pulled.rows("refused")) == (3, [(DAYS[0], "quotes")])
    assert (DAYS[1], "quotes") in placed(dest)


def test_an_object_that_the_store_refuses_waits_and_stops_nobody(
    s3_proxy: FaultProxy, s3_bucket: str, dest: Path
) -> None:
    """A run that cannot be fetched now is fetched later; others do not wait for it."""
    bucket = Bucket.on_s3(s3_proxy.store, s3_bucket, endpoint=s3_proxy.url)
    for run in DAYS[:2]:
        leave_run(bucket, run, files={"quotes/a": b"a"})
    s3_proxy.inject(Answer(403, "AccessDenied"), path=f"{DAYS[0]}/quotes")
    pulled = pull_into(dest, bucket)
    assert (pulled.code, [row["run"] for row in pulled.document["delayed"]]) == (6, [DAYS[0]])
    assert (DAYS[1], "quotes") in placed(dest)
    s3_proxy.heal()
    pulled = pull_into(dest, bucket)
    assert (pulled.code, (DAYS[0], "quotes") in placed(dest)) == (0, True)
    assert (dest / "quotes" / "latest").readlink() == Path(DAYS[1])


def test_large_files_come_in_parts(bucket: Bucket, dest: Path) -> None:
    """A file larger than one request is whole at home; one that lies about its size is not."""
    data = bytes(range(256)) * (40 * 4096 + 1)  # 40 MiB and a little
    leave_run(bucket, DAYS[0], files={"quotes/large.bin": data})
    leave_run(bucket, DAYS[1], files={"quotes/large.bin": data})
    bucket.put_file(DAYS[1], "quotes/large.bin", data[:-1])
    pulled = pull_into(dest, bucket)
    assert (dest / "quotes" / DAYS[0] / "large.bin").read_bytes() == data
    assert pulled.rows("refused") == [(DAYS[1], "quotes")]


def test_exit_codes_for_what_is_not_there(folder: Bucket, tmp_path: Path) -> None:
    """An unreachable store is 6, a folder that cannot be one is 4, a job's name that is none is 2."""
    nowhere = Bucket.in_folder(tmp_path / "x")
    assert pull_into(tmp_path / "d", nowhere).code == 6
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("x")
    assert pull_into(tmp_path / "file" / "d", folder).code == 4
    assert pull_into(tmp_path / "d", folder, "--job", "../x").code == 2
    assert pull_into(tmp_path / "d", folder, "--watch", "0.1").code == 2


def test_a_store_that_does_not_answer_is_6(s3_bucket: str, tmp_path: Path) -> None:
    """Nobody listens: said within the client's own limits, with nothing changed."""
    options = (
        "--store",
        f"s3://{s3_bucket}",
        "--set",
        f"store.endpoint=http://127.0.0.1:{free_port()}",
    )
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    bucket = Bucket.in_folder(tmp_path / "unused")
    bucket.objects.credentials |= environ
    pulled = pull_into(tmp_path / "d", bucket, *options)
    assert (pulled.code, bool(pulled.document["unreachable"])) == (6, True)


def test_a_folder_with_runs_that_no_pull_put_there_is_refused(
    folder: Bucket, tmp_path: Path
) -> None:
    """A bucket looks like a job named `runs`, and `--keep` would remove runs from it."""
    for run in DAYS[:3]:
        leave_run(folder, run)
    bucket = tmp_path / "bucket with spaces"
    before = content(bucket)
    pulled = pull_into(bucket, folder, "--keep", "1")
    assert content(bucket) == before
    assert pulled.code == 4
    assert "no pull has used" in pulled.stderr


def test_an_unreadable_state_is_put_aside(folder: Bucket, dest: Path) -> None:
    """A damaged state costs one whole listing, and is told; nothing is fetched twice."""
    leave_run(folder)
    pull_into(dest, folder)
    state = dest / ".mayfly" / "state.json"
    state.write_text('{"owed": [{"run": "../..", "job": ".mayfly"}]}')
    pulled = pull_into(dest, folder)
    assert (pulled.code, pulled.document["placed"]) == (3, [])
    assert state.with_name("state.json.unreadable").exists()
    assert pull_into(dest, folder).code == 0


async def test_a_folder_in_use_is_refused_after_a_bounded_wait(folder: Bucket, dest: Path) -> None:
    """A pull waits for another, says who it is, and gives up."""
    with Destination.open(dest) as place:
        async with place.locked(1, print):
            pulled = await asyncio.to_thread(in_process, dest, folder)
    assert pulled[0] == 2
    assert pulled[1].count(f"process {os.getpid()}") == 2  # that it waits, and that it gives up


def in_process(dest: Path, bucket: Bucket) -> tuple[int, str]:
    """Pull as a process of its own: a command in a thread could not handle signals."""
    log = dest.parent / "pull.json"
    with pulling(dest, bucket.environ, "--lock-timeout", "0.3s", log=log) as process:
        return process.wait(30), log.with_suffix(".err").read_text()


def test_the_state_is_small_and_says_what_it_is(
    s3_server: S3Server, s3_bucket: str, dest: Path
) -> None:
    """After many runs only the overlap is remembered, where the store checks clocks."""
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    for number in range(40):
        leave_run(bucket, f"202610{number // 2 + 1:02d}T0{number % 2}4205Z-3f9a1c", files={})
    pull_into(dest, bucket)
    state = json.loads((dest / ".mayfly" / "state.json").read_text())
    (selection,) = state["selections"].values()
    assert len(selection["seen"]) == 1
    assert selection["waiting"] == state["refused"] == state["owed"] == []


def test_at_a_terminal_lines_and_the_bar_do_not_meet(
    folder: Bucket, dest: Path, tmp_path: Path
) -> None:
    """The bar gives way to each line and to what a hook writes, and is gone in the end."""
    leave_run(folder)
    master, slave = pty.openpty()
    environ = {**os.environ, **folder.environ, "TERM": "xterm", "MAYFLY_CONFIG": os.devnull}
    command = [sys.executable, "-m", "agent", "pull", str(dest), "--exec", "echo from the hook"]
    with subprocess.Popen(command, env=environ, stdout=slave, stderr=slave) as process:
        os.close(slave)
        text = b""
        with suppress(OSError):  # EIO: the terminal's other end is closed
            while piece := os.read(master, 65536):
                text += piece
        assert process.wait(20) == 0
    os.close(master)
    assert b"\x1b[?25l" in text  # there was a bar
    assert text.rfind(b"\x1b[?25h") > text.rfind(b"\x1b[?25l")  # and the cursor is back
    shown = [re.sub(r"^.*\x1b\[2K", "", line) for line in text.decode().splitlines()]
    assert shown.count("from the hook") == 2
    assert sum(line.startswith(f"{RUN} quotes: 4 files") for line in shown) == 1
    assert shown[-1] == "1 run, 5 files, 2.3 MB"
