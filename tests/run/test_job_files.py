"""What a job may leave in its output folder, and what becomes of it: delivered whole, or refused aloud."""

import os
import subprocess

import pytest

from tests.bucket.bucket import Bucket, Run
from tests.bucket.sound import sound
from tests.parts.waiting import wait_until
from tests.run.bench import Bench

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
    assert ran.code == 0, ran.stderr
    manifest = sound(bucket, ran.run_id)
    assert manifest.results == {"a/good": False}
    refused = _refused(manifest)
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
    assert all(CANARY.encode() not in content for content in bucket.files(ran.run_id).values())


@pytest.mark.parametrize("replacement", ["link", "file", "nothing"])
def test_an_output_folder_that_was_replaced_has_no_results(
    bench: Bench, bucket: Bucket, replacement: str
) -> None:
    """The agent reads the folder it made, or none; what was uploaded from the first one is gone again."""
    secret = bench.folder / "secret"
    secret.mkdir()
    (secret / "file").write_text(CANARY)
    program = f"""
(out / "early").write_text("early")
time.sleep(3 if {replacement!r} == "link" else 0)
out.rename(str(out) + ".old")
if {replacement!r} == "link":
    out.symlink_to({str(secret)!r})
elif {replacement!r} == "file":
    out.write_text("no folder")
"""
    bench.release("v1", JOB, _program(program))
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    manifest = sound(bucket, ran.run_id)
    assert manifest.results == {}
    assert _refused(manifest) == ({} if replacement == "nothing" else {".": "a link, or no folder"})


def test_names_that_no_bucket_can_hold_are_refused(bench: Bench, bucket: Bucket) -> None:
    """Each file that cannot be delivered everywhere is listed; its neighbours are delivered."""
    program = """
raw = os.fsencode(out)
for name in (b"caf\\xe9", b"line\\nbreak", b"esc\\x1b[31m", b"back\\\\slash", b"upload#1", b"good", b"n" * 255):
    open(raw + b"/" + name, "wb").close()
(out / ("日" * 80)).touch()
deep = raw
for _ in range(9):
    deep += b"/" + b"d" * 90
    os.mkdir(deep)
    open(deep + b"/file", "wb").close()
os.chdir(raw)
for _ in range(400):
    os.mkdir("x")
    os.chdir("x")
Path("bottom").touch()
"""
    bench.release("v1", JOB, _program(program))
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    manifest = sound(bucket, ran.run_id)
    delivered = manifest.results
    assert {path for path in delivered if "/d" not in path} == {"a/good", f"a/{'日' * 80}"}
    assert max(len(path) for path in delivered if "/d" in path) == 2 + 7 * 91 + len("file")
    refused = _refused(manifest)
    assert refused["caf\\udce9"] == "its name is not UTF-8"
    assert "control characters" in refused["line\nbreak"]
    assert "control characters" in refused["esc\x1b[31m"]
    assert "backslash" in refused["back\\slash"]
    assert "#" in refused["upload#1"]
    assert "name longer than" in refused["n" * 255]
    assert "longer than 700 bytes" in refused["/".join(["d" * 90] * 8)[:700]]
    assert "longer than 700 bytes" in refused["/".join("x" * 351)[:700]]
    assert len(refused) == 8


def test_a_flood_of_refused_files_is_summed_up(bench: Bench, bucket: Bucket) -> None:
    """A manifest lists a hundred of them, and how many more there are."""
    bench.release(
        "v1", JOB, _program("for n in range(500): (out / f'link-{n:03}').symlink_to('/etc/passwd')")
    )
    ran = bench.run()
    refused = sound(bucket, ran.run_id).job("a")["refused"]
    assert (len(refused), refused[-1]["reason"]) == (101, "and 400 more entries")


CHANGES = """
(out / "rewritten").write_text("first")
(out / "appended").write_text("first")
(out / "deleted").write_text("first")
(out / "renamed").write_text("first")
(out / "touched").write_text("same")
(out / "big").write_bytes(b"1" * 3_000_000)
(out / "kept").mkdir()
(out / "kept" / "file").write_text("kept")
time.sleep(4)
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
    bench.release("v1", JOB, _program(CHANGES))
    with bench.running() as process:
        early = bench.folder / "bucket/runs"
        wait_until(lambda: any(early.glob("*/a/deleted")), what="an early upload")
        wait_until(lambda: any(early.glob("*/a/big")), what="an early upload of parts")
        assert process.wait(60) == 0
    run = str(bucket.entries()[0]["run_id"])
    sound(bucket, run)
    files = bucket.files(run)
    assert {path: files[path][:20] for path in files if path.startswith("a/")} == {
        "a/rewritten": b"final",
        "a/appended": b"first and final",
        "a/new name": b"first",
        "a/touched": b"same",
        "a/big": b"2" * 20,
        "a/moved/file": b"kept",
        "a/last": b"last",
    }


def test_files_of_a_failed_attempt_are_not_delivered(bench: Bench, bucket: Bucket) -> None:
    """Only the last attempt's files are results; what the first had uploaded already is removed from the bucket."""
    program = """
if os.environ["MAYFLY_ATTEMPT"] == "1":
    (out / "both").write_text("first")
    (out / "only first").write_text("first")
    time.sleep(3)
    sys.exit(75)
(out / "both").write_text("second")
(out / "only second").write_text("second")
"""
    bench.release("v1", JOB, _program(program))
    with bench.running() as process:
        wait_until(lambda: any((bench.folder / "bucket/runs").glob("*/a/only first")), what="early")
        assert process.wait(60) == 0
    run = str(bucket.entries()[0]["run_id"])
    assert sound(bucket, run).results == {"a/both": False, "a/only second": False}
    assert bucket.files(run)["a/both"] == b"second"


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
    assert len(bucket.entries()) == 2


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
    assert manifest.results == {"a/x": False, "c/x": False}
    assert manifest.job("b")["status"] == "failed"
    assert "jobs/b" in manifest.job("b")["message"]
