"""`verify` believes bytes, not statements: in the bucket by its entries, in a folder by its package."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.contract.ids import Batch
from agent.contract.layout import JobKey, LogKey, ManifestKey, run_prefix
from consumer.verify import Report, verify_run
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter, leave_run
from tests.consumer.forging import Document, amend_entry, rewrite
from tests.consumer.pulling import JOBS, NIGHTS, leave, pull_into
from tests.parts.command import call
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer

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


async def test_every_kind_of_difference_is_found_at_once(bucket: Bucket) -> None:
    """A run is fine as the agent left it; what is missing, grown or changed is a problem, and the rest is counted."""
    run = leave(bucket)
    report = await check(bucket, run)
    assert (found(report), report.status, report.files) == ([], "succeeded", ALL)
    assert report.unnamed == 0
    quotes = [JobKey(run, "quotes", f"files/{name}").text for name in JOBS["quotes"]]
    bucket.objects.delete(quotes[0])
    bucket.objects.put(quotes[1], b"A,b\n1,2\n")
    bucket.objects.put(quotes[2], b"no more")
    bucket.objects.put(JobKey(run, "quotes", "files/stranger").text, b"?")
    bucket.objects.put(LogKey(run, 0).text, b"?")
    notes = JobKey(run, "notes").text
    bucket.objects.put(notes, bucket.objects.get(notes).replace(b"\n ", b"\n\t"))
    report = await check(bucket, run)
    of_notes = [
        ("hash", "jobs/notes/datapackage.json"),
        ("package", "jobs/notes/datapackage.json"),
    ]
    assert found(report) == [
        *of_notes,
        ("size", "jobs/quotes/files/empty"),
        ("missing", "jobs/quotes/files/page 1.json"),
        ("hash", "jobs/quotes/files/ページ/2.csv"),
        ("size", "log/0.jsonl"),
    ]
    # Nobody names what only a package that cannot be used has named, and the stranger.
    assert report.unnamed == 3
    assert found(await check(bucket, run, "notes")) == of_notes, "what is wrong with another job"
    for key in bucket.objects.keys(run_prefix(run)):
        bucket.objects.delete(key)
    report = await check(bucket, run)
    assert (report.status, found(report)) == ("expired", [("run", "")])


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


async def test_a_run_that_stood_back_has_nothing_to_check(folder: Bucket) -> None:
    """It named nothing but itself."""
    writer = RunWriter(folder.objects, NIGHTS[0], Batch.of_slot("main", NIGHTS[0]))
    writer.append(began=writer.began())
    writer.append(stood_back={"reason": "it has the batch", "run": writer.run})
    report = await check(folder, writer.run)
    assert (report.status, found(report)) == ("stood_back", [])


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
    for never in ("20269999T999999Z-000000", "00000101T000000Z-ffffff", "nothing like that"):
        wrong = call("verify", never, environ=folder.environ)
        assert (wrong.exit_code, never in wrong.stderr) == (2, True)


def test_what_was_pulled_is_verified_in_its_folder(folder: Bucket, tmp_path: Path) -> None:
    """A package, or all below DEST, without a bucket; what is added to it is extra, what is changed or gone is told."""
    home = tmp_path / "home"
    for night in NIGHTS[:2]:
        run = leave(folder, night)
    pull_into(home, folder)
    package = home / "quotes" / "latest"
    fine = {str(home): "4 packages"} | dict.fromkeys(
        (str(package), str(package / "datapackage.json"), package.resolve().as_uri()),
        "fine; 6 files",
    )
    for name, says in fine.items():
        result = call("verify", name)
        assert (result.exit_code, says in result.stdout) == (0, True), name
    (victim,) = (home / "notes" / "latest" / "files").iterdir()
    victim.write_bytes(b"# MAYFLY")
    wrong = call("verify", str(home))
    assert (wrong.exit_code, f"notes/{run}/files/" in wrong.stdout) == (3, True)
    (package / "files" / "my notes.txt").write_text("mine")
    (package / "files" / "empty").write_text("!")
    (package / "files" / "page 1.json").write_text('{"price": 2}\n')
    (package / "logs" / "attempt-1.log").unlink()
    wrong = call("verify", str(package))
    assert wrong.exit_code == 3
    rows = [line.split(maxsplit=1)[0] for line in wrong.stdout.splitlines()[:-1]]
    assert sorted(rows) == ["extra", "hash", "missing", "size"]


def test_what_cannot_be_read_leaves_the_rest_to_check(folder: Bucket, tmp_path: Path) -> None:
    """A link to itself in one run and a changed file in another are two problems."""
    home = tmp_path / "home"
    runs = [leave(folder, night) for night in NIGHTS[:2]]
    pull_into(home, folder)
    loop = home / "quotes" / runs[0] / "files" / "page 1.json"
    loop.unlink()
    loop.symlink_to(loop.name)
    (victim,) = (home / "notes" / runs[1] / "files").iterdir()
    victim.write_bytes(b"# MAYFLY")
    wrong = call("verify", str(home))
    assert wrong.exit_code == 3, wrong.stderr
    lines = wrong.stdout.splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines[:-1]] == ["hash", "unreadable"]
    assert "2 problems" in lines[-1]


def test_an_object_that_the_bucket_refuses_is_a_problem_of_its_own(
    s3_proxy: FaultProxy, s3_bucket: str
) -> None:
    """Of a file as of a package."""
    bucket = Bucket.on_s3(s3_proxy.store, s3_bucket, endpoint=s3_proxy.url)
    run = leave(bucket)
    empty = JobKey(run, "quotes", "files/empty").text
    s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path=empty)
    wrong = call("verify", run, environ=bucket.environ)
    assert (wrong.exit_code, wrong.stdout.split()[:2]) == (3, ["unreadable", empty]), wrong.stderr
    s3_proxy.heal()
    package = JobKey(run, "notes").text
    s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path=package)
    wrong = call("verify", run, environ=bucket.environ)
    assert (wrong.exit_code, wrong.stdout.split()[:2]) == (3, ["unreadable", package]), wrong.stderr


def test_a_file_that_is_called_like_a_run_is_no_package(folder: Bucket, tmp_path: Path) -> None:
    """What was pulled beside it is verified all the same."""
    leave(folder)
    dest = tmp_path / "at home"
    assert pull_into(dest, folder).code == 0
    (dest / "quotes" / "20261122T064205Z-3f9a1c").write_text("mine")
    done = call("verify", str(dest), environ={})
    assert (done.exit_code, "2 packages" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    "text", [None, b"{}", b"[", b'{"mayfly:job": {"run": "../..", "name": ".."}}']
)
def test_a_folder_without_a_package_is_a_problem(tmp_path: Path, text: bytes | None) -> None:
    """Whatever is there instead."""
    if text is not None:
        (tmp_path / "datapackage.json").write_bytes(text)
    result = call("verify", str(tmp_path))
    assert (result.exit_code, "datapackage.json" in result.stdout) == (3, True)
