"""What a job may leave in its output folder, and what becomes of it: delivered whole, or refused aloud."""

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from tests.bucket.bucket import Bucket, Document, Run
from tests.bucket.sound import sound
from tests.parts.command import mayfly
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, finish

JOB = """
    [[job]]
    name = "a"
    command = ["python3", "a.py"]
"""
CANARY = "only-root-may-know"


def _program(text: str) -> dict[str, str]:
    head = "import os, sys, time\nfrom pathlib import Path\nout = Path(os.environ['MAYFLY_OUTPUT_DIR'])\n"
    return {"a.py": head + text}


def _refused(manifest: Run) -> dict[str, str]:
    return {each["path"]: each["reason"] for each in manifest.job("a")["refused"]}


def test_links_and_special_files_are_refused(bench: Bench, bucket: Bucket) -> None:
    """Nothing that leads out of the folder is followed; each is listed with its reason, and the rest is delivered."""
    secret = bench.folder / "secret"
    secret.mkdir()
    (secret / "file").write_text(CANARY)
    program = f"""
import socket
secret = {str(secret)!r}
(out / "good").write_text("good")
(out / "link").symlink_to(secret + "/file")
(out / "dangling").symlink_to("/nowhere")
(out / "folder").symlink_to(secret)
(out / "real").mkdir()
(out / "real" / "up").symlink_to("../../../..")
os.link(secret + "/file", out / "hard")
os.mkfifo(out / "pipe")
os.chdir(out)
socket.socket(socket.AF_UNIX).bind("socket")
if os.geteuid() == 0:
    os.mknod(out / "device", 0o20666, os.makedev(1, 5))
"""
    bench.release("v1", JOB, _program(program))
    ran = bench.run()
    assert ran.code == 3, ran.stderr
    manifest = sound(bucket, ran.run_id)
    assert manifest.results == {"a/good"}
    refused = _refused(manifest)
    summary = manifest.told["a"]
    assert (summary["status"], summary["refused"]) == ("succeeded", len(refused))
    assert summary["message"].startswith(f"{len(refused)} files could not be delivered, such as ")
    if os.geteuid() == 0:
        assert refused.pop("device") == "not a regular file"
    assert refused == {
        "link": "a link",
        "dangling": "a link",
        "folder": "a link",
        "real/up": "a link",
        "hard": "a hard link",
        "pipe": "not a regular file",
        "socket": "not a regular file",
    }
    assert all(CANARY.encode() not in content for content in manifest.everything().values())


@pytest.mark.parametrize("replacement", ["link", "file", "nothing"])
def test_an_output_folder_that_was_replaced_has_no_results(
    bench: Bench, bucket: Bucket, replacement: str
) -> None:
    """The agent reads the folder it made, or none; what was uploaded from the first one is gone again."""
    secret = bench.folder / "secret"
    secret.mkdir()
    (secret / "file").write_text(CANARY)
    gate = bench.folder / "gate"
    program = f"""
(out / "early").write_text("early")
while {replacement!r} == "link" and not Path({str(gate)!r}).exists(): time.sleep(0.05)
out.rename(str(out) + ".old")
if {replacement!r} == "link":
    out.symlink_to({str(secret)!r})
elif {replacement!r} == "file":
    out.write_text("no folder")
"""
    bench.release("v1", JOB, _program(program))
    with bench.running() as process:
        if replacement == "link":
            wait_until(lambda: _early(bench, "early"), what="an early upload")
        gate.touch()
        ran = finish(process)
    manifest = sound(bucket, ran.run_id)
    assert manifest.results == set()
    assert not _early(bench, "early")
    if replacement == "nothing":
        assert (ran.code, _refused(manifest)) == (0, {})
        return
    assert (ran.code, _refused(manifest)) == (8, {".": "a link, or no folder"})
    assert ran.job("a")["status"] == "empty"


ODD_NAMES = """
raw = os.fsencode(out)
def leave(path):
    with open(path, "wb") as stream: stream.write(os.path.basename(path))
names = (b"caf\\xe9", b"line\\nbreak", b"esc\\x1b[31m", b"back\\\\slash")
names += (b"back/slash", b"Episode #1", b"a#b#1", b"good")
for name in names:
    os.makedirs(os.path.dirname(raw + b"/" + name), exist_ok=True)
    leave(raw + b"/" + name)
for name in ("n" * 255, "日" * 85, "日" * 80 + ".html", "100% %41", "bom\\ufffe", "x~" + "0" * 32):
    leave(os.fsencode(out / name))
os.mkdir(raw + b"/folder \\\\ #2")
leave(raw + b"/folder \\\\ #2/file")
deep = raw
for _ in range(9):
    deep += b"/" + b"d" * 90
    os.mkdir(deep)
    leave(deep + b"/file")
(out / "note.txt").write_text("same name, other folder")
"""
ODD_COUNT = 8 + 6 + 1 + 9 + 1


def _originals(manifest: Run) -> set[bytes]:
    """The names that a job gave its files, as the manifest has them."""
    return {_original(each) for each in manifest.resources.values()}


def _original(resource: Document) -> bytes:
    if "mayfly:path" in resource:
        return unquote_to_bytes(resource["mayfly:path"])
    return str(resource["path"]).removeprefix("files/").encode()


def _below(root: Path) -> dict[bytes, bytes]:
    top = os.fsencode(root)
    return {
        os.path.relpath(path, top): Path(os.fsdecode(path)).read_bytes()
        for folder, _, names in os.walk(top)
        for path in (folder + b"/" + name for name in names)
    }


def test_every_name_that_a_linux_disk_allows_arrives(bench: Bench, bucket: Bucket) -> None:
    """Through a bucket in a folder: the package has the names, in the bucket and at home."""
    bench.release("v1", JOB, _program(ODD_NAMES))
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    _check_odd_names(bench, sound(bucket, ran.run_id), ran.run_id)
    copy = bench.folder / "copy"
    shutil.copytree(bucket.root / "runs" / ran.run_id, copy)
    _mayfly(bench, "verify", str(copy / "jobs" / "a"))


def test_every_name_arrives_through_s3_as_well(bench: Bench, bucket_on_s3: Bucket) -> None:
    """A server that takes a backslash for a folder, and whose listings are XML, sees neither."""
    bench.release("v1", JOB, _program(ODD_NAMES))
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    _check_odd_names(bench, sound(bucket_on_s3, ran.run_id), ran.run_id)


def _check_odd_names(bench: Bench, manifest: Run, run: str) -> None:
    names = _originals(manifest)
    assert {b"caf\xe9", b"line\nbreak", b"back\\slash", b"Episode #1", b"n" * 255} <= names
    assert len(names) == ODD_COUNT
    assert _refused(manifest) == {}
    _mayfly(bench, "verify", run)
    home = bench.folder / "home"
    _mayfly(bench, "pull", str(home))
    there = _below(home / "a" / run / "files")
    assert there.keys() == {path.removeprefix("a/").encode() for path in manifest.results}
    own = {
        _original(each): there[each["path"].removeprefix("files/").encode()]
        for each in manifest.resources.values()
    }
    assert own.keys() == names
    assert all(
        name.rpartition(b"/")[2] == data for name, data in own.items() if name != b"note.txt"
    )


def _mayfly(bench: Bench, *arguments: str) -> None:
    """Do something at home, with the bucket of the bench."""
    environ = {**bench.environment(), **bench.bucket.environ}
    done = mayfly(*arguments, environ=environ, at=bench.folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_path_that_no_program_can_open_is_refused(bench: Bench, bucket: Bucket) -> None:
    """What is deeper than the kernel opens at once is listed, and makes the run partial."""
    program = """
(out / "good").touch()
os.chdir(out)
for _ in range(50):
    os.mkdir("x" * 90)
    os.chdir("x" * 90)
Path("bottom").touch()
"""
    bench.release("v1", JOB, _program(program))
    ran = bench.run()
    assert ran.code == 3, ran.stderr
    (reason,) = _refused(sound(bucket, ran.run_id)).values()
    assert reason == "its path is longer than 4095 bytes"


def test_a_file_that_no_bucket_can_hold_is_refused(bench: Bench, bucket: Bucket) -> None:
    """A file that S3 has too few parts for is told, and does not keep the run in the spool for ever."""
    program = """
(out / "good").touch()
with open(out / "huge", "wb") as stream: stream.truncate(49 * 1024**3)
"""
    bench.release("v1", JOB, _program(program))
    ran = bench.run(limits__file="50GiB")
    assert ran.code == 3, ran.stderr
    manifest = sound(bucket, ran.run_id)
    assert manifest.results == {"a/good"}
    assert _refused(manifest) == {"huge": "larger than 51.5 GB, the most that a bucket takes"}


def test_a_job_of_which_everything_was_refused_is_empty(bench: Bench, bucket: Bucket) -> None:
    """It succeeded by its exit code alone: nothing of it comes home."""
    bench.release("v1", JOB, _program("(out / 'link').symlink_to('/etc/passwd')"))
    ran = bench.run()
    assert ran.code == 8, ran.stderr
    job = sound(bucket, ran.run_id).job("a")
    assert (job["status"], job["cause"], job["refused_files"]) == ("empty", "expectation", 1)
    assert job["message"] == "1 file could not be delivered, such as link (a link)"


def test_what_a_job_prints_and_what_it_puts_aside_never_meet(bench: Bench, bucket: Bucket) -> None:
    """Its evidence may have any name, also that of the agent's record of its output."""
    program = """
(out / ".evidence").mkdir()
(out / ".evidence" / "attempt-1.log").write_text("of the job")
print("printed")
sys.exit(1)
"""
    bench.release("v1", JOB, _program(program))
    ran = bench.run()
    assert ran.code == 8, ran.stderr
    sound(bucket, ran.run_id)
    run = bucket.run(ran.run_id)
    assert run.printed("a") == b"printed\n"
    assert run.evidence("a") == {"attempt-1.log": b"of the job"}


def test_a_flood_of_refused_files_is_summed_up(bench: Bench, bucket: Bucket) -> None:
    """A manifest lists a hundred of them, and how many more there are."""
    bench.release(
        "v1", JOB, _program("for n in range(500): (out / f'link-{n:03}').symlink_to('/etc/passwd')")
    )
    ran = bench.run()
    refused = sound(bucket, ran.run_id).job("a")["refused"]
    assert (len(refused), refused[-1]["reason"]) == (101, "and 400 more entries")


def _early(bench: Bench, name: str) -> bool:
    """Tell whether a file of the job is in the bucket, whatever the run has said of it."""
    return any((bench.folder / "bucket/runs").glob(f"*/jobs/a/files/{name}"))


CHANGES = """
(out / "rewritten").write_text("first")
(out / "appended").write_text("first")
(out / "deleted").write_text("first")
(out / "renamed").write_text("first")
(out / "touched").write_text("same")
(out / "big").write_bytes(b"1" * 3_000_000)
(out / "kept").mkdir()
(out / "kept" / "file").write_text("kept")
while not Path(GATE).exists(): time.sleep(0.05)
(out / "rewritten").write_text("final")
(out / "appended").open("a").write(" and final")
(out / "deleted").unlink()
(out / "renamed").rename(out / "new name")
os.utime(out / "touched")
(out / "big").write_bytes(b"2" * 3_000_000)
(out / "kept").rename(out / "moved")
(out / "last").write_text("last")
"""


def test_what_changes_after_an_early_upload_arrives_as_it_was_at_the_end(
    bench: Bench, bucket: Bucket
) -> None:
    """While a job runs its settled files are on their way already; in the end only the final ones are there."""
    gate = bench.folder / "gate"
    bench.release("v1", JOB, _program(CHANGES.replace("GATE", repr(str(gate)))))
    with bench.running() as process:
        wait_until(lambda: _early(bench, "deleted"), what="an early upload")
        wait_until(lambda: _early(bench, "big"), what="an early upload of parts")
        gate.touch()
        assert process.wait(60) == 0
    run = bucket.newest.id
    sound(bucket, run)
    files = bucket.run(run).files_of("a")
    assert {path: content[:20] for path, content in files.items()} == {
        "rewritten": b"final",
        "appended": b"first and final",
        "new name": b"first",
        "touched": b"same",
        "big": b"2" * 20,
        "moved/file": b"kept",
        "last": b"last",
    }


def test_files_of_a_failed_attempt_are_not_delivered(bench: Bench, bucket: Bucket) -> None:
    """Only the last attempt's files are results; what the first had uploaded already is removed from the bucket."""
    gate = bench.folder / "gate"
    program = f"""
if os.environ["MAYFLY_ATTEMPT"] == "1":
    (out / "both").write_text("first")
    (out / "only first").write_text("first")
    while not Path({str(gate)!r}).exists(): time.sleep(0.05)
    sys.exit(75)
(out / "both").write_text("second")
(out / "only second").write_text("second")
"""
    bench.release("v1", JOB, _program(program))
    with bench.running() as process:
        wait_until(lambda: _early(bench, "only first"), what="an early upload")
        gate.touch()
        assert process.wait(60) == 0
    run = bucket.newest.id
    assert sound(bucket, run).results == {"a/both", "a/only second"}
    assert bucket.run(run).files["a/both"] == b"second"


RESULT_FILES = {
    "wrong": '"{ not json"',
    "list": '"[1, 2]"',
    "huge": "'{\"message\": \"' + 'x' * 70_000 + '\"}'",
    "nested": "'[' * 50_000",
    "infinite": "'{\"items\": 1e999}'",
    "negative": "'{\"items\": -1}'",
    "cause": '\'{"cause": "bad luck"}\'',
    "surrogate": '\'{"message": "\\\\ud800 broken"}\'',
    "metrics": '\'{"metrics": {"bad name": 1}}\'',
    "binary": "'\\xff\\xfe'",
}


def test_a_result_file_that_cannot_be_read_is_noted_and_nothing_else(
    bench: Bench, bucket: Bucket
) -> None:
    """The job's exit code decides; a note says why what it said of itself is missing."""
    jobs = "".join(
        f'[[job]]\nname = "{name}"\ncommand = ["python3", "a.py", "{name}"]\n'
        for name in (*RESULT_FILES, "link", "folder", "pipe", "good")
    )
    texts = ", ".join(f"{name!r}: {text}" for name, text in RESULT_FILES.items())
    program = f"""
texts = {{{texts}}}
file, name = Path(os.environ["MAYFLY_RESULT_FILE"]), sys.argv[1]
(out / "x").touch()
if name == "link": file.symlink_to("/etc/passwd")
elif name == "folder": file.mkdir()
elif name == "pipe": os.mkfifo(file)
elif name == "good": file.write_text('{{"items": 3, "message": "as usual", "metrics": {{"pages": 2.5}}, "new": 1}}')
else: file.write_bytes(texts[name].encode("latin-1"))
"""
    bench.release("v1", jobs, _program(program))
    ran = bench.run(limits__jobs="4")
    assert ran.code == 0, ran.stderr
    manifest = sound(bucket, ran.run_id)
    for name in (*RESULT_FILES, "link", "folder", "pipe"):
        notes = manifest.job(name)["notes"]
        assert [note.split(":")[0] for note in notes] == ["its result file could not be read"], name
        assert len(notes[0]) < 300
    good = manifest.job("good")
    assert (good["items"], good["message"], good["metrics"], good["notes"]) == (
        3,
        "as usual",
        {"pages": 2.5},
        [],
    )


def test_files_that_cannot_be_read_are_listed(bench: Bench, bucket: Bucket) -> None:
    """A file or folder that the agent may not read is no silent loss (the superuser may read all)."""
    program = """
(out / "good").touch()
(out / "mine").touch(0o000)
(out / "closed").mkdir()
(out / "closed" / "file").touch()
(out / "closed").chmod(0o000)
"""
    bench.release("v1", JOB, _program(program))
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    manifest = sound(bucket, ran.run_id)
    reason = "cannot be read: Permission denied"
    if os.geteuid() == 0:
        assert set(manifest.results) == {"a/good", "a/mine", "a/closed/file"}
    else:
        assert _refused(manifest) == {"mine": reason, "closed": reason}
        assert set(manifest.results) == {"a/good"}
    assert bench.spool == []
    assert list((bench.state / "spool").glob(".gone-*")) == []


DEEP = """
os.chdir(out)
for _ in range(1500):
    os.mkdir("x")
    os.chdir("x")
"""
"""Deeper than Python's recursion reaches: stands in for all that cannot be removed, such as another user's files."""


@pytest.mark.long
def test_a_job_s_folder_that_cannot_be_removed_costs_no_run(bench: Bench, bucket: Bucket) -> None:
    """What is left of a committed run in the spool is a warning, now and in the next run."""
    bench.release("v1", JOB, _program(DEEP))
    try:
        first, second = bench.run(), bench.run()
        assert (first.code, second.code) == (0, 0), first.stderr
        assert len(first.events("spool.not_removed")) == 1
        assert len(second.events("spool.not_removed")) == 2
    finally:
        subprocess.run(["rm", "-rf", str(bench.state / "spool")], check=True)
    assert len(bucket.runs) == 2


TAMPERS = """
    [[job]]
    name = "a"
    command = ["sh", "-c", "echo x > $MAYFLY_OUTPUT_DIR/x; echo > $MAYFLY_OUTPUT_DIR/../../../b"]

    [[job]]
    name = "b"
    command = ["true"]

    [[job]]
    name = "c"
    command = ["sh", "-c", "echo x > $MAYFLY_OUTPUT_DIR/x"]
"""


def test_what_goes_wrong_around_one_job_costs_no_other(bench: Bench, bucket: Bucket) -> None:
    """A workspace that cannot be made, here by a neighbour's doing, fails that job with its reason."""
    bench.release("v1", TAMPERS)
    ran = bench.run(limits__jobs="1")
    assert ran.code == 3, ran.stderr
    manifest = sound(bucket, ran.run_id)
    assert manifest.results == {"a/x", "c/x"}
    assert manifest.job("b")["status"] == "failed"
    assert "jobs/b" in manifest.job("b")["message"]
