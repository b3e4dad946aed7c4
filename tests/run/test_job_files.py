"""What a job may leave in its output folder, and what becomes of it: delivered whole, or refused aloud."""

import os
import shutil
from functools import partial
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from tests.bucket.bucket import Bucket, Document, Run
from tests.bucket.sound import sound
from tests.parts.held import let_go_of
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, finish, job

CANARY = "only-root-may-know"
HEAD = (
    "import os, sys, time\nfrom pathlib import Path\nout = Path(os.environ['MAYFLY_OUTPUT_DIR'])\n"
)


def _publish(bench: Bench, **programs: str) -> None:
    """Publish a release with a job of each name, whose program goes on with the text."""
    jobs = "".join(job(name, ["python3", f"{name}.py"]) for name in programs)
    bench.release("v1", jobs, {f"{name}.py": HEAD + text for name, text in programs.items()})


def _refused(run: Run, name: str) -> dict[str, str]:
    return {each["path"]: each["reason"] for each in run.job(name)["refused"]}


@pytest.fixture
def secret(bench: Bench) -> Path:
    """A folder outside of all output, with a file that no job may hand over."""
    folder = bench.folder / "secret"
    folder.mkdir()
    (folder / "file").write_text(CANARY)
    return folder


LINKS = """
import socket
secret = SECRET
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
LONG_PATH = """
(out / "good").touch()
os.chdir(out)
for _ in range(50):
    os.mkdir("x" * 90)
    os.chdir("x" * 90)
Path("bottom").touch()
"""
HUGE = """
(out / "good").touch()
with open(out / "huge", "wb") as stream: stream.truncate(49 * 1024**3)
"""
CLOSED = """
(out / "good").touch()
(out / "mine").touch(0o000)
(out / "closed").mkdir()
(out / "closed" / "file").touch()
(out / "closed").chmod(0o000)
"""


def test_what_cannot_be_delivered_is_listed_and_the_rest_arrives(
    bench: Bench, bucket: Bucket, secret: Path
) -> None:
    """Links out of the folder, special files, paths that nothing opens, files that are too large or unreadable."""
    links = LINKS.replace("SECRET", repr(str(secret)))
    _publish(bench, links=links, deep=LONG_PATH, huge=HUGE, closed=CLOSED)
    run = sound(bucket, bench.run(code=3, limits__file="50GiB").run_id)
    assert set(run.statuses.values()) == {"succeeded"}
    root = os.geteuid() == 0
    good = {"links/good", "deep/good", "huge/good", "closed/good"}
    assert run.results == good | ({"closed/mine", "closed/closed/file"} if root else set())
    refused, summary = _refused(run, "links"), run.told["links"]
    assert summary["refused"] == len(refused)
    assert summary["message"].startswith(f"{len(refused)} files could not be delivered, such as ")
    if root:
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
    assert [*_refused(run, "deep").values()] == ["its path is longer than 4095 bytes"]
    too_large = "larger than 51.5 GB, the most that a bucket takes"
    assert _refused(run, "huge") == {"huge": too_large}
    reason = "cannot be read: Permission denied"
    assert _refused(run, "closed") == ({} if root else {"mine": reason, "closed": reason})
    assert all(CANARY.encode() not in content for content in run.everything().values())
    assert list((bench.state / "spool").iterdir()) == []


EVIDENCE = """
(out / ".evidence").mkdir()
(out / ".evidence" / "attempt-1.log").write_text("of the job")
print("printed")
sys.exit(1)
"""


def test_of_jobs_that_hand_over_nothing_it_is_said_why(bench: Bench, bucket: Bucket) -> None:
    """Where all was refused, an exit code is no success; long lists are summed up; evidence may have any name."""
    link = "(out / 'link').symlink_to('/etc/passwd')"
    flood = "for n in range(500): (out / f'link-{n:03}').symlink_to('/etc/passwd')"
    _publish(bench, link=link, flood=flood, fails=EVIDENCE)
    run = sound(bucket, bench.run(code=8).run_id)
    told = run.job("link")
    assert (told["status"], told["cause"], told["refused_files"]) == ("empty", "expectation", 1)
    assert told["message"] == "1 file could not be delivered, such as link (a link)"
    refused = run.job("flood")["refused"]
    assert (len(refused), refused[-1]["reason"]) == (101, "and 400 more entries")
    assert run.printed("fails") == b"printed\n"
    assert run.evidence("fails") == {"attempt-1.log": b"of the job"}


def test_an_output_folder_that_was_replaced_has_no_results(
    bench: Bench, bucket: Bucket, secret: Path
) -> None:
    """The agent reads the folder it made, or none; what was uploaded from the first one is gone again."""
    gate = bench.folder / "gate"
    begins = '(out / "early").write_text("early")\n'
    away = 'out.rename(str(out) + ".old")\n'
    waits = f"while not Path({str(gate)!r}).exists(): time.sleep(0.05)\n"
    _publish(
        bench,
        link=f"{begins}{waits}{away}out.symlink_to({str(secret)!r})",
        file=f'{begins}{away}out.write_text("no folder")',
        nothing=begins + away,
    )
    with bench.running() as process:
        wait_until(lambda: _early(bench, "link", "early"), what="an early upload")
        gate.touch()
        ran = finish(process, code=3)
    run = sound(bucket, ran.run_id)
    assert run.results == set()
    assert not any(_early(bench, name, "early") for name in ("link", "file", "nothing"))
    assert run.statuses == {"link": "empty", "file": "empty", "nothing": "succeeded"}
    replaced = {".": "a link, or no folder"}
    refused = {name: _refused(run, name) for name in run.statuses}
    assert refused == {"link": replaced, "file": replaced, "nothing": {}}


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


def _original(resource: Document) -> bytes:
    """Return the name that a job gave a file, as its package has it."""
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


@pytest.mark.parametrize("kind", ["bucket", "bucket_on_s3"])
def test_every_name_that_a_linux_disk_allows_arrives(
    bench: Bench, request: pytest.FixtureRequest, kind: str
) -> None:
    """In a folder, and on a server that takes a backslash for a folder and whose listings are XML; also at home."""
    bucket: Bucket = request.getfixturevalue(kind)
    _publish(bench, a=ODD_NAMES)
    run = sound(bucket, bench.run(code=0).run_id)
    names = {_original(each) for each in run.resources.values()}
    assert {b"caf\xe9", b"line\nbreak", b"back\\slash", b"Episode #1", b"n" * 255} <= names
    assert len(names) == ODD_COUNT
    assert _refused(run, "a") == {}
    _mayfly(bench, "verify", run.id)
    home = bench.folder / "home"
    _mayfly(bench, "pull", str(home))
    there = _below(home / "a" / run.id / "files")
    assert there.keys() == {path.removeprefix("a/").encode() for path in run.results}
    own = {
        _original(each): there[each["path"].removeprefix("files/").encode()]
        for each in run.resources.values()
    }
    assert own.keys() == names
    assert all(
        name.rpartition(b"/")[2] == data for name, data in own.items() if name != b"note.txt"
    )
    if kind == "bucket":
        copy = bench.folder / "copy"
        shutil.copytree(bucket.root / "runs" / run.id, copy)
        _mayfly(bench, "verify", str(copy / "jobs" / "a"))


def _mayfly(bench: Bench, *arguments: str) -> None:
    """Do something at home, with the bucket of the bench."""
    done = bench.at_home(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def _early(bench: Bench, name: str, path: str) -> bool:
    """Tell whether a file of a job is in the bucket, whatever the run has said of it."""
    return any((bench.folder / "bucket/runs").glob(f"*/jobs/{name}/files/{path}"))


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


AGAIN = """
if os.environ["MAYFLY_ATTEMPT"] == "1":
    (out / "both").write_text("first")
    (out / "only first").write_text("first")
    while not Path(GATE).exists(): time.sleep(0.05)
    sys.exit(75)
(out / "both").write_text("second")
(out / "only second").write_text("second")
"""


def test_what_changes_after_an_early_upload_arrives_as_it_was_at_the_end(
    bench: Bench, bucket: Bucket
) -> None:
    """Settled files leave while their job runs; in the end only the final ones of the last attempt are there."""
    gate = bench.folder / "gate"
    programs = {"changes": CHANGES, "again": AGAIN}
    own = {name: text.replace("GATE", repr(str(gate))) for name, text in programs.items()}
    _publish(bench, **own)
    with bench.running() as process:
        for name, path in (("changes", "deleted"), ("changes", "big"), ("again", "only first")):
            wait_until(partial(_early, bench, name, path), what=f"an early upload of {path}")
        gate.touch()
        ran = finish(process, code=0)
    run = sound(bucket, ran.run_id)
    assert {path: content[:20] for path, content in run.files_of("changes").items()} == {
        "rewritten": b"final",
        "appended": b"first and final",
        "new name": b"first",
        "touched": b"same",
        "big": b"2" * 20,
        "moved/file": b"kept",
        "last": b"last",
    }
    assert run.files_of("again") == {"both": b"second", "only second": b"second"}


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
    others = ("link", "folder", "pipe", "good")
    jobs = "".join(job(name, ["python3", "a.py", name]) for name in (*RESULT_FILES, *others))
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
    bench.release("v1", jobs, {"a.py": HEAD + program})
    run = sound(bucket, bench.run(code=0, limits__jobs="4").run_id)
    for name in (*RESULT_FILES, *others[:-1]):
        (note,) = run.job(name)["notes"]
        assert note.split(":")[0] == "its result file could not be read", name
        assert len(note) < 300
    told = {key: run.job("good")[key] for key in ("items", "message", "metrics", "notes")}
    assert told == {"items": 3, "message": "as usual", "metrics": {"pages": 2.5}, "notes": []}


HELD = """
import subprocess
(out / "held").touch()
subprocess.run(["chattr", "+i", out / "held"], check=True)
"""
"""The kernel lets nobody remove it: stands in for all that cannot be removed, such as another user's files."""


@pytest.mark.long
def test_a_job_s_folder_that_cannot_be_removed_costs_no_run(bench: Bench, bucket: Bucket) -> None:
    """What is left of a committed run in the spool is a warning, now and in the next run."""
    _publish(bench, a=HELD)
    with let_go_of(bench.state):
        first, second = bench.run(code=0), bench.run(code=0)
        assert len(first.events("spool.not_removed")) == 1
        assert len(second.events("spool.not_removed")) == 2
    assert len(bucket.runs) == 2


def test_what_goes_wrong_around_one_job_costs_no_other(bench: Bench, bucket: Bucket) -> None:
    """A workspace that cannot be made, here by a neighbour's doing, fails that job with its reason."""
    writes = "echo x > $MAYFLY_OUTPUT_DIR/x"
    tampers = f"{writes}; echo > $MAYFLY_OUTPUT_DIR/../../../b"
    bench.release("v1", job("a", tampers) + job("b", "true") + job("c", writes))
    run = sound(bucket, bench.run(code=3, limits__jobs="1").run_id)
    assert run.results == {"a/x", "c/x"}
    assert run.job("b")["status"] == "failed"
    assert "jobs/b" in run.job("b")["message"]
