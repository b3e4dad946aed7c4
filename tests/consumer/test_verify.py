"""`verify` believes bytes, not statements, in both directions."""

import asyncio
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bucket.address import LocalBucket
from agent.core.manifest import Resource
from consumer.bucket import ReadOnlyBucket
from consumer.verify import Kind, Report, listing_problems, verify_folder, verify_run
from tests.bucket.bucket import Bucket
from tests.bucket.layout import ENTRIES, file_key
from tests.bucket.leaving import FILES, RUN, leave_run, record

PAGE = "quotes/page 1.json"


def found(report: Report) -> list[tuple[str, str]]:
    """The problems of a report, by kind and path."""
    return [(problem.kind.value, problem.path) for problem in report.problems]


async def test_a_run_as_the_agent_left_it_is_fine(bucket: Bucket) -> None:
    """All files, with whatever names they have, are found and read, and the log is counted with them."""
    leave_run(bucket)
    report = await verify_run(bucket.reader(), RUN)
    assert found(report) == []
    assert report.files == len(FILES) + 1


async def test_every_kind_of_difference_is_found_at_once(bucket: Bucket) -> None:
    """A missing, an extra, a grown and a changed file are four problems, and the rest is still counted."""
    leave_run(bucket)
    bucket.remove_file(RUN, PAGE)
    bucket.put_file(RUN, "quotes/stranger", b"?")
    bucket.put_file(RUN, "quotes/empty", b"no more")
    bucket.put_file(RUN, "notes/\U0001f98b.md", b"# Mayfly")
    report = await verify_run(bucket.reader(), RUN)
    assert found(report) == [
        ("hash", "notes/\U0001f98b.md"),
        ("size", "quotes/empty"),
        ("missing", PAGE),
        ("extra", "quotes/stranger"),
    ]
    assert report.files == 3


async def test_a_changed_manifest_is_not_what_the_index_committed(bucket: Bucket) -> None:
    """A manifest that was exchanged after the commit is told by its hash, however sound it is."""
    leave_run(bucket)
    text = bucket.manifest_text(RUN)
    bucket.put_manifest(RUN, text.replace(b"\n ", b"\n\t"))
    report = await verify_run(bucket.reader(), RUN)
    assert found(report) == [("hash", "datapackage.json")]


async def test_a_run_without_an_index_entry_does_not_exist_yet(bucket: Bucket) -> None:
    """Files and manifest without a commit are reported as such, even when they are whole."""
    leave_run(bucket, commit=False)
    assert found(await verify_run(bucket.reader(), RUN)) == [("index", "")]


async def test_a_run_that_never_was_has_neither_entry_nor_manifest(bucket: Bucket) -> None:
    """Asking for an id that nobody used is answered, with both facts."""
    bucket.objects.put(f"{ENTRIES}unrelated", b"")
    report = await verify_run(bucket.reader(), RUN)
    assert found(report) == [("index", ""), ("missing", "datapackage.json")]


@pytest.mark.parametrize("run", ["20269999T999999Z-000000", "00000101T000000Z-ffffff"])
async def test_an_id_without_a_date_is_a_run_that_never_was(folder: Bucket, run: str) -> None:
    """The form of an id does not make it one: impossible dates are not looked up."""
    assert ("index", "") in found(await verify_run(folder.reader(), run))


@pytest.mark.parametrize(
    "path", ["../../../etc/passwd", "/etc/passwd", "quotes/../../other/x", "a\\b", "a//b", "x\n"]
)
async def test_a_path_that_leads_elsewhere_is_reported_and_not_followed(
    folder: Bucket, path: str
) -> None:
    """A manifest with a hostile path costs that resource only."""
    leave_run(folder)

    def add(manifest: dict[str, object]) -> None:
        resources = manifest["resources"]
        assert isinstance(resources, list)
        resources.append({**resources[0], "path": path, "name": "hostile", "mayfly:job": None})

    folder.rewrite(RUN, add)
    report = await verify_run(folder.reader(), RUN)
    assert ("path", path) in found(report)
    assert {kind for kind, _ in found(report)} == {"manifest", "path"}
    assert report.files == len(FILES) + 1


async def test_summary_and_manifest_must_tell_the_same_story(folder: Bucket) -> None:
    """An index entry that praises a run which its own manifest calls failed is a problem."""
    leave_run(folder)
    folder.amend(RUN, status="failed", files=99, bytes=1, jobs=folder.entry(RUN)["jobs"][:1])
    report = await verify_run(folder.reader(), RUN)
    told = [problem.detail.split(":")[0] for problem in report.problems]
    assert told == ["status", "files", "bytes", "jobs"]


async def test_sizes_beyond_printing_are_a_problem_not_a_crash(folder: Bucket) -> None:
    """Two files of 4300 digits: their sum has more than Python prints."""
    leave_run(folder)

    manifest = folder.run(RUN).manifest
    for resource in manifest["resources"]:
        resource["bytes"] = 10**4300 - 1
    folder.commit(RUN, json.dumps(manifest).encode(), bytes=0)
    details = [problem.detail for problem in (await verify_run(folder.reader(), RUN)).problems]
    assert "it lists a file of an impossible size" in details


async def test_a_manifest_of_another_run_is_told(folder: Bucket) -> None:
    """A manifest that was copied from another run does not pass for this one's."""
    leave_run(folder)

    def rename(manifest: dict[str, object]) -> None:
        manifest["mayfly:run"] = {**json.loads(record(RUN).model_dump_json()), "run_id": "other"}

    folder.rewrite(RUN, rename)
    assert ("manifest", "datapackage.json") in found(await verify_run(folder.reader(), RUN))


@pytest.mark.parametrize(
    "text",
    [b"", b"not json", b"[]", b'{"resources": []}', b"\xff\xfe", b'{"a":' * 5000, b"null"],
)
async def test_a_manifest_that_is_none_is_a_problem_not_a_crash(
    folder: Bucket, text: bytes
) -> None:
    """Whatever stands where the manifest should be, the answer is a report."""
    leave_run(folder)
    folder.put_manifest(RUN, text)
    kinds = {kind for kind, _ in found(await verify_run(folder.reader(), RUN))}
    assert {"hash", "manifest"} <= kinds


async def test_an_index_entry_that_is_garbage_still_leaves_the_files_to_check(
    folder: Bucket,
) -> None:
    """The commit cannot be believed, and the files are compared with the manifest all the same."""
    leave_run(folder)
    folder.put_entry(RUN, b"{}")
    report = await verify_run(folder.reader(), RUN)
    assert found(report) == [("index", "")]
    assert report.files == len(FILES) + 1


async def test_a_fetched_run_is_verified_in_its_folder(folder: Bucket, tmp_path: Path) -> None:
    """A folder that holds a run needs no bucket; what a person adds to it is extra."""
    leave_run(folder)
    root = folder.root / file_key(RUN, "")
    fetched = ReadOnlyBucket.open(LocalBucket(root), None)
    assert found(await verify_folder(fetched)) == []
    (root / "my notes.txt").write_text("mine")
    assert found(await verify_folder(fetched)) == [("extra", "my notes.txt")]


async def test_memory_does_not_grow_with_the_size_of_files(folder: Bucket) -> None:
    """Hashing sixteen files of 8 MB holds a few mebibytes of them at a time."""
    leave_run(folder, files={f"big/{number}": bytes(8_000_000) for number in range(16)})
    tracemalloc.start()
    try:
        report = await verify_run(folder.reader(), RUN)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found(report) == []
    assert peak < 48 * 1024**2


PATHS = st.sampled_from(["a", "b/c", "../d", "e f", "datapackage.json", "/g"])


@given(
    listed=st.lists(st.tuples(PATHS, st.integers(0, 3)), max_size=6),
    there=st.dictionaries(PATHS, st.integers(0, 3)),
)
def test_every_path_is_accounted_for_exactly(
    listed: list[tuple[str, int]], there: dict[str, int]
) -> None:
    """Each resource is either a problem or is hashed, and each object is listed, the manifest, or extra."""
    resources = tuple(
        Resource(name="n", path=path, bytes=size, hash=f"sha256:{'0' * 64}", mediatype="text/plain")
        for path, size in listed
    )
    problems, to_hash = listing_problems(resources, there)
    extra = {problem.path for problem in problems if problem.kind is Kind.EXTRA}
    assert len(problems) - len(extra) + len(to_hash) == len(resources)
    assert extra == there.keys() - {path for path, _ in listed} - {"datapackage.json"}
    assert all(there[resource.path] == resource.bytes for resource in to_hash)


async def test_a_file_that_goes_away_during_the_check_is_missing(folder: Bucket) -> None:
    """The listing is older than the reading; a file that is gone by then is reported."""
    leave_run(folder, files={f"quotes/{number}": b"x" * 2_000_000 for number in range(40)})
    reader = folder.reader()

    async def remove() -> None:
        for number in reversed(range(40)):
            folder.remove_file(RUN, f"quotes/{number}")
            await asyncio.sleep(0)

    report, _ = await asyncio.gather(verify_run(reader, RUN), remove())
    assert {kind for kind, _ in found(report)} <= {"missing"}
    assert report.files + len(report.problems) == 41
