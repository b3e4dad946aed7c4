"""What a pull has on the disk before anybody sees it, by the system calls of the real command."""

import re
from pathlib import Path

import pytest

from consumer.pull.durable import tells_errors
from consumer.pull.fetch import PART_BYTES
from tests.bucket.bucket import Bucket
from tests.consumer.pulling import NIGHTS, installed, leave, pull_into, pulling, results
from tests.parts.missing import program

SECONDS = 120.0
FILES = {f"{number % 4}/{number}.bin": bytes([number]) * 3000 for number in range(40)}
LARGE = {"0.bin": bytes(PART_BYTES + 1), "1.bin": b"small"}
CALLS = "trace=flock,fsync,syncfs,rename,renameat,renameat2"


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A bucket with one run of forty files."""
    bucket = Bucket.in_folder(tmp_path / "bucket")
    leave(bucket, NIGHTS[0], {"quotes": FILES})
    return bucket


def traced(
    dest: Path, bucket: Bucket, *, broken: str = "", error: str = "EIO", old: bool = False
) -> tuple[int, list[str], str]:
    """Pull once under strace; return the exit code, the calls that were made, in order, and stderr.

    Args:
        dest: Where to.
        bucket: Where from.
        broken: A call that fails, by default as on a broken disk.
        error: What it fails with.
        old: Whether the kernel says that it is one of long ago.
    """
    trace, log = dest.with_suffix(".trace"), dest.with_suffix(".json")
    fault = ["-e", f"inject={broken}:error={error}"] if broken else []
    before = [program("strace"), "-f", "-qq", "-y", "-e", CALLS, *fault, "-o", str(trace)]
    before += [program("setarch"), "--uname-2.6"] if old else []
    with pulling(dest, bucket.environ, log=log, before=before) as process:
        code = process.wait(SECONDS)
    return code, trace.read_text().splitlines(), log.with_suffix(".err").read_text()


def before_visible(calls: list[str]) -> list[str]:
    """Return the calls before the rename that makes the job visible."""
    shown = re.compile(r'rename.*"quotes", .*"[0-9TZ]+-[0-9a-f]{6}"')
    number = next(number for number, call in enumerate(calls) if shown.search(call))
    return calls[:number]


def synced_files(calls: list[str]) -> set[str]:
    """Return the files of the job that were synced one by one."""
    return {found for call in calls for found in re.findall(r"fsync\(\d+<[^>]*/(\d+\.bin)>", call)}


def test_a_job_is_on_the_disk_before_it_is_visible(tmp_path: Path, bucket: Bucket) -> None:
    """One call syncs all files where the file system is known to keep that; elsewhere each file is synced."""
    code, calls, stderr = traced(tmp_path / "home", bucket)
    assert code == 0, stderr
    before = before_visible(calls)
    at_once = any(re.search(r"syncfs\(.*= 0$", call) for call in before)
    assert at_once or len(synced_files(before)) == len(FILES)
    assert not (at_once and synced_files(before))


def test_a_share_without_locks_is_named(tmp_path: Path, bucket: Bucket) -> None:
    """A folder that cannot be locked cannot be used, and whoever asked reads why."""
    code, _, stderr = traced(tmp_path / "home", bucket, broken="flock", error="ENOLCK")
    assert code == 4
    assert f"could not lock {tmp_path / 'home'}: No locks available" in stderr
    assert "Traceback" not in stderr


def test_a_kernel_that_does_not_tell_errors(tmp_path: Path, bucket: Bucket) -> None:
    """Where syncfs would not tell what was lost, each file and each folder is synced before the job is visible."""
    code, calls, stderr = traced(tmp_path / "home", bucket, old=True)
    assert code == 0, stderr
    before = before_visible(calls)
    assert len(synced_files(before)) == len(FILES)
    folders = {found for call in before for found in re.findall(r"fsync.*files/(\d)>", call)}
    assert folders == set("0123")
    assert not any("syncfs(" in call for call in before)


@pytest.mark.parametrize(
    ("files", "old"),
    [(FILES, False), (FILES, True), (LARGE, False)],
    ids=["at-once", "one-by-one", "large"],
)
def test_what_the_disk_did_not_keep_is_fetched_again(
    tmp_path: Path, files: dict[str, bytes], *, old: bool
) -> None:
    """A sync that fails leaves nothing visible and nothing staged, and is told; the next pull completes.

    A large file is synced as soon as it is there.
    """
    bucket, dest = Bucket.in_folder(tmp_path / "other"), tmp_path / "home"
    leave(bucket, jobs={"quotes": files})
    _, calls, _ = traced(tmp_path / "probe", bucket, old=old)
    one_by_one = synced_files(before_visible(calls))
    assert files is not LARGE or "0.bin" in one_by_one
    broken = "fsync" if one_by_one else "syncfs"
    code, _, stderr = traced(dest, bucket, broken=broken, old=old)
    assert code in {3, 4}
    assert "Input/output error" in stderr
    assert installed(dest) == []
    assert list(dest.glob(".mayfly/staging/*/*")) == []
    assert pull_into(dest, bucket).code == 0
    assert results(dest / "quotes" / "latest") == files


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ("6.1.0-18-amd64", True),
        ("5.8.0", True),
        ("5.10-rc1", True),
        ("10.0", True),
        ("5.7.19", False),
        ("4.4.302+", False),
        ("5.x", False),
        ("", False),
        ("\u0665.8", False),
    ],
)
def test_kernels_that_tell_errors(release: str, *, told: bool) -> None:
    """From Linux 5.8 on syncfs tells what could not be written; what is no such number is not believed."""
    assert tells_errors(release) is told
