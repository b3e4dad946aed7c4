"""`verify` believes bytes, not statements: in the bucket by its entries, in a folder by its package."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.base.errors import UsageError
from agent.contract.ids import Batch
from agent.contract.layout import JobKey, LogKey, ManifestKey, run_prefix
from consumer.verify import Report, verify_run
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter, leave_run
from tests.consumer.forging import Document, amend_entry, commit, rewrite
from tests.consumer.pulling import JOBS, NIGHTS, leave, pull_into
from tests.parts.command import call

NOW = datetime.now(UTC)
FILES = sum(map(len, JOBS.values()))
ALL = FILES + 2 * 2 + 2
"""With a log and a package for each job, the manifest and a part of the run's log."""


def found(report: Report | None) -> list[tuple[str, str]]:
    """The problems of a report, by kind and key below the run."""
    assert report is not None
    prefix = run_prefix(report.name)
    return [(problem.kind.value, problem.path.removeprefix(prefix)) for problem in report.problems]


async def check(bucket: Bucket, run: str, job: str | None = None) -> Report:
    """Check a run that is there."""
    return await verify_run(bucket.reader(), run, NOW, job)


async def test_a_run_as_the_agent_left_it_is_fine(bucket: Bucket) -> None:
    """All that its entries, its manifest and its packages name is found and read."""
    report = await check(bucket, leave(bucket))
    assert (found(report), report.status, report.files) == ([], "succeeded", ALL)
    assert report.unnamed == 0


async def test_every_kind_of_difference_is_found_at_once(bucket: Bucket) -> None:
    """A missing, a grown, a changed file and a changed package are problems, and the rest is still counted."""
    run = leave(bucket)
    quotes = [JobKey(run, "quotes", f"files/{name}").text for name in JOBS["quotes"]]
    bucket.objects.delete(quotes[0])
    bucket.objects.put(quotes[1], b"A,b\n1,2\n")
    bucket.objects.put(quotes[2], b"no more")
    bucket.objects.put(JobKey(run, "quotes", "files/stranger").text, b"?")
    bucket.objects.put(LogKey(run, 0).text, b"?")
    notes = JobKey(run, "notes").text
    bucket.objects.put(notes, bucket.objects.get(notes).replace(b"\n ", b"\n\t"))
    report = await check(bucket, run)
    assert found(report) == [
        ("hash", "jobs/notes/datapackage.json"),
        ("package", "jobs/notes/datapackage.json"),
        ("size", "jobs/quotes/files/empty"),
        ("missing", "jobs/quotes/files/page 1.json"),
        ("hash", "jobs/quotes/files/ページ/2.csv"),
        ("size", "log/0.jsonl"),
    ]
    # Nobody names what only a package that cannot be used has named, and the stranger.
    assert report.unnamed == 3


async def test_one_job_is_checked_by_itself(bucket: Bucket) -> None:
    """What is wrong with another job does not matter."""
    run = leave(bucket)
    bucket.objects.delete(JobKey(run, "notes", "files/\U0001f98b.md").text)
    assert found(await check(bucket, run, "quotes")) == []
    assert found(await check(bucket, run, "notes")) == [
        ("missing", "jobs/notes/files/\U0001f98b.md")
    ]


async def test_a_state_is_named_as_well(bucket: Bucket) -> None:
    """A job's state is under a prefix of its own, and has to be there."""
    writer = RunWriter(bucket.objects, NIGHTS[0])
    writer.append(began=writer.began())
    key = f"state/quotes/{writer.run}.tar.gz"
    state = writer.put(key, b"cookies")
    writer.append(jobs=(writer.job("quotes").model_copy(update={"state": state}),))
    writer.append(closed=writer.closed())
    assert found(await check(bucket, writer.run)) == []
    bucket.objects.put(key, b"Cookies")
    assert found(await check(bucket, writer.run)) == [("hash", key)]
    bucket.objects.delete(key)
    assert found(await check(bucket, writer.run, "quotes")) == [("missing", key)]


@pytest.mark.parametrize(
    ("until", "limit", "status", "detail"),
    [
        ("jobs", timedelta(days=20), "running", "it did not close; 2 of 2 jobs are done"),
        ("planned", timedelta(hours=2), "lost", "it did not close; 0 of 2 jobs are done"),
        ("began", timedelta(hours=2), "lost", "it did not close; 0 jobs are done"),
    ],
)
async def test_a_run_that_did_not_close_says_so(
    folder: Bucket, until: str, limit: timedelta, status: str, detail: str
) -> None:
    """What it committed is checked all the same."""
    writer = leave_run(folder.objects, NIGHTS[0], ("a", "b"), until=until)
    if limit.days:
        later = (NOW + limit).isoformat()
        amend_entry(
            folder, writer.run, lambda entry: entry["began"].update(deadline=later), "began"
        )
    report = await check(folder, writer.run)
    assert (report.status, found(report)) == (status, [("run", "")])
    assert report.problems[0].detail == detail
    assert (report.files > 0) is (until != "began")


async def test_a_run_that_expired_says_so(bucket: Bucket) -> None:
    """A lifecycle rule has removed its files, and nothing else is wrong."""
    run = leave(bucket)
    for key in bucket.objects.keys(run_prefix(run)):
        bucket.objects.delete(key)
    report = await check(bucket, run)
    assert (report.status, found(report)) == ("expired", [("run", "")])


async def test_a_run_that_stood_back_has_nothing_to_check(folder: Bucket) -> None:
    """It named nothing but itself."""
    writer = RunWriter(folder.objects, NIGHTS[0], Batch.of_slot("main", NIGHTS[0]))
    writer.append(began=writer.began())
    writer.append(stood_back={"reason": "it has the batch", "run": writer.run})
    report = await check(folder, writer.run)
    assert (report.status, found(report)) == ("stood_back", [])


@pytest.mark.parametrize("run", ["20269999T999999Z-000000", "00000101T000000Z-ffffff"])
async def test_a_run_that_never_was(folder: Bucket, run: str) -> None:
    """Impossible ids are not looked up, and possible ones are looked for in vain."""
    leave(folder)
    with pytest.raises(UsageError, match="no run"):
        await check(folder, "20261122T064205Z-3f9a1c")
    result = call("verify", run, environ=folder.environ)
    assert (result.exit_code, run in result.stderr) == (2, True)


async def test_entry_and_package_must_tell_the_same_story(folder: Bucket) -> None:
    """An entry that praises a job which its own package calls failed is a problem."""
    run = leave(folder)
    rewrite(folder, run, lambda package: package["mayfly:job"].update(status="failed"))

    def praise(entry: Document) -> None:
        for job in entry["jobs"]:
            if job["name"] == "quotes":
                job.update(files=99, bytes=1)

    amend_entry(folder, run, praise, "jobs")
    report = await check(folder, run, "quotes")
    told = [problem.detail.split(":")[0] for problem in report.problems]
    assert told == ["status", "files", "bytes"]


async def test_manifest_and_entries_must_tell_the_same_story(folder: Bucket) -> None:
    """A package that was committed again after the run closed is not the one of its manifest."""
    run = leave(folder)
    rewrite(folder, run, lambda package: package.update(title="x"))
    key = JobKey(run, "quotes").text.removeprefix(run_prefix(run))
    assert found(await check(folder, run)) == [("package", key)]


async def test_an_entry_that_is_garbage_leaves_the_others_to_check(folder: Bucket) -> None:
    """It is a problem; what the others name is compared all the same."""
    run = leave(folder)
    key = amend_entry(folder, run, lambda entry: entry.clear(), "closed")
    report = await check(folder, run)
    assert ("entry", key) in found(report)
    assert report.files == ALL - 2  # nobody names the manifest now, and what it names


@pytest.mark.parametrize(
    "text", [b"", b"not json", b"[]", b'{"resources": []}', b"\xff\xfe", b"null"]
)
async def test_a_package_that_is_none_is_a_problem_not_a_crash(folder: Bucket, text: bytes) -> None:
    """Whatever stands where the package should be, the answer is a report."""
    run = leave(folder)
    commit(folder, run, text)
    assert {kind for kind, _ in found(await check(folder, run, "quotes"))} == {"package"}


async def test_memory_does_not_grow_with_the_size_of_files(folder: Bucket) -> None:
    """Hashing sixteen files of 8 MB holds a few mebibytes of them at a time."""
    run = leave(folder, jobs={"big": {str(number): bytes(8_000_000) for number in range(16)}})
    tracemalloc.start()
    try:
        report = await check(folder, run)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found(report) == []
    assert peak < 80 * 1024**2


def test_the_exit_code_says_whether_all_is_there(folder: Bucket) -> None:
    """By run, and by job; a person reads why."""
    assert call("verify", "latest", environ=folder.environ).exit_code == 2
    leave(folder, NIGHTS[0])
    run = leave(folder)
    for name in (run, "latest"):
        fine = call("verify", name, environ=folder.environ)
        assert (fine.exit_code, fine.stdout.startswith(f"{run} (succeeded): fine")) == (0, True)
    folder.objects.delete(ManifestKey(run).text)
    wrong = call("verify", run, environ=folder.environ)
    assert (wrong.exit_code, wrong.stdout.split()[:2]) == (3, ["missing", ManifestKey(run).text])
    assert call("verify", run, "quotes", environ=folder.environ).exit_code == 0
    assert call("verify", run, "qotes", environ=folder.environ).exit_code == 2
    assert call("verify", "nothing like that", environ=folder.environ).exit_code == 2


@pytest.fixture
def home(folder: Bucket, tmp_path: Path) -> Path:
    """A folder into which two runs were pulled."""
    leave(folder, NIGHTS[0])
    leave(folder, NIGHTS[1])
    pull_into(tmp_path / "home", folder)
    return tmp_path / "home"


def test_a_pulled_package_is_verified_in_its_folder(home: Path) -> None:
    """It needs no bucket; what a person adds to it is extra, what is changed or gone is told."""
    package = home / "quotes" / "latest"
    for name in (str(package), str(package / "datapackage.json"), package.resolve().as_uri()):
        fine = call("verify", name)
        assert (fine.exit_code, "fine; 6 files" in fine.stdout) == (0, True)
    (package / "files" / "my notes.txt").write_text("mine")
    (package / "files" / "empty").write_text("!")
    (package / "files" / "page 1.json").write_text('{"price": 2}\n')
    (package / "logs" / "attempt-1.log").unlink()
    wrong = call("verify", str(package))
    assert wrong.exit_code == 3
    rows = [line.split(maxsplit=1)[0] for line in wrong.stdout.splitlines()[:-1]]
    assert sorted(rows) == ["extra", "hash", "missing", "size"]


def test_all_that_was_pulled_is_verified_at_once(home: Path) -> None:
    """Every package below DEST, each problem with the folder in which it is."""
    fine = call("verify", str(home))
    assert (fine.exit_code, "4 packages" in fine.stdout) == (0, True)
    (victim,) = (home / "notes" / "latest" / "files").iterdir()
    victim.write_bytes(b"# MAYFLY")
    run = (home / "notes" / "latest").readlink()
    wrong = call("verify", str(home))
    assert (wrong.exit_code, f"notes/{run}/files/" in wrong.stdout) == (3, True)


@pytest.mark.parametrize(
    "text", [None, b"{}", b"[", b'{"mayfly:job": {"run": "../..", "name": ".."}}']
)
def test_a_folder_without_a_package_is_a_problem(tmp_path: Path, text: bytes | None) -> None:
    """Whatever is there instead."""
    if text is not None:
        (tmp_path / "datapackage.json").write_bytes(text)
    result = call("verify", str(tmp_path))
    assert (result.exit_code, "datapackage.json" in result.stdout) == (3, True)
