"""A job's package and a run's manifest: Data Packages that other tools read, and that nobody can forge unnoticed."""

import hashlib
import json
import os
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from frictionless import Package as DataPackage
from frictionless import system, validate
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.contract.described import MOST_OWN_BYTES, Said, carry_over
from agent.contract.descriptor import MOST_NAME, Role, Sealed, media_type, resource_name
from agent.contract.entries import Invalid, Object
from agent.contract.layout import DESCRIPTOR, FILES, JobKey, LogKey, ManifestKey
from agent.contract.manifest import Manifest, RunRecord, read_manifest, seal_manifest
from agent.contract.names import bucket_path, written
from agent.contract.package import JobRecord, Package, RefusedFile, read_package, seal_package
from agent.contract.results import JobStatus
from tests.contract.examples import BATCH, RELEASE, RUN, STARTED, an_object, began, closed
from tests.contract.test_layout import PATHS

KEY = JobKey(RUN, "quotes")
FINISHED = STARTED + timedelta(seconds=30)
TABLE = b"id,name\n1,a\n"
RESULTS = {
    b"page 1.json": b'{"a": 1}',
    "\u540d\u524d \u3068 100%+#?.txt".encode(): b"name",
    b"table.csv": TABLE,
    b"deep/er/deeper.bin": b"\0\1\2",
    b"empty": b"",
    b"line\nbreak.md": b"# mayfly",
    b"caf\xe9.csv": TABLE,
    b"x" * 250: b"long",
}
LOG = Sealed("logs/attempt-1.log", 3, hashlib.sha256(b"ran").hexdigest(), Role.LOG)


def result(original: bytes, content: bytes) -> Sealed:
    """Return a result as it is in the bucket."""
    name = os.fsdecode(original)
    stored = bucket_path(name)
    shown = None if stored == name else written(name)
    digest = hashlib.sha256(content).hexdigest()
    return Sealed(FILES + stored, len(content), digest, Role.RESULT, shown)


def job(**changes: Any) -> JobRecord:
    """Return a job that succeeded."""
    values: dict[str, Any] = {
        "run": RUN,
        "name": "quotes",
        "status": JobStatus.SUCCEEDED,
        "started": STARTED,
        "finished": FINISHED,
        "seconds": 27.5,
        "attempts": (
            {"number": 1, "started": STARTED, "finished": FINISHED, "status": "succeeded"},
        ),
        "items": 7,
        "metrics": {"pages": 3.0},
        "refused": (RefusedFile(path="link", reason="it is a link"),),
        "release": "v1.2",
        "commit": "c" * 40,
    }
    return JobRecord(**values | changes)


def sealed(
    record: JobRecord | None = None,
    files: Mapping[bytes, bytes] = RESULTS,
    said: Said | None = None,
) -> bytes:
    """Return a package."""
    results = [result(name, content) for name, content in files.items()]
    return b"".join(seal_package(record or job(), [*results, LOG], said))


def run() -> RunRecord:
    """Return a run that closed."""
    end = closed()
    values = {"status": end.status, "finished": end.finished, "phases": end.phases}
    more = {"release": RELEASE, "cost": end.cost}
    return RunRecord.begun(RUN, BATCH, began()).model_copy(update=values | more)


def manifest_of(packages: list[Object], log: Sequence[Object] = ()) -> bytes:
    """Return the manifest of a run."""
    return b"".join(seal_manifest(run(), packages, log))


def test_a_package_is_a_data_package(tmp_path: Path) -> None:
    """Frictionless checks each file's size and hash, and trusts no path but those below the descriptor."""
    files = {result(name, content).path: content for name, content in RESULTS.items()}
    for path, content in {**files, LOG.path: b"ran"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    descriptor = tmp_path / DESCRIPTOR
    descriptor.write_bytes(sealed())
    with system.use_context(trusted=False):
        report = validate(str(descriptor))
        assert report.valid, report.flatten(["type", "message"])
        (tmp_path / "files" / "table.csv").write_bytes(b"id,name\n1,b\n")
        assert not validate(str(descriptor)).valid


def test_what_is_sealed_is_the_same_every_time() -> None:
    """A later process puts the same bytes again."""
    assert sealed() == sealed()
    jsonschema.validate(json.loads(sealed()), Package.model_json_schema())
    package = read_package(KEY, sealed())
    assert isinstance(package, Package)
    assert (package.job, package.version) == (job(), "v1.2")
    originals = {one.path: one.original for one in package.resources}
    assert originals["files/page 1.json"] is None
    for name in ("line\nbreak.md", os.fsdecode(b"caf\xe9.csv")):
        assert originals[f"files/{bucket_path(name)}"] == written(name)
    assert json.loads(sealed(job(release=None), {}))["version"] == "none"


def test_a_manifest_names_packages_and_parts_of_the_log() -> None:
    """As a package names its files, so that each level can be checked alone."""
    manifest = manifest_of([an_object(KEY.text, sealed())], [an_object(LogKey(RUN, 0).text)])
    jsonschema.validate(json.loads(manifest), Manifest.model_json_schema())
    read = read_manifest(ManifestKey(RUN), manifest)
    assert isinstance(read, Manifest)
    assert [one.role for one in read.resources] == [Role.PACKAGE, Role.LOG]
    assert read.run == run()


@given(st.lists(PATHS, unique=True, max_size=6))
def test_any_files_make_a_sound_package(paths: list[bytes]) -> None:
    """Names are unique and in the recommended alphabet, whatever a disk holds."""
    package = read_package(KEY, sealed(files=dict.fromkeys(paths, b"x")))
    assert isinstance(package, Package)
    assert len(package.resources) == len(paths) + 1
    alphabet = set("abcdefghijklmnopqrstuvwxyz0123456789._/-")
    assert all(set(one.name) <= alphabet for one in package.resources)


def test_a_deep_path_has_a_name_that_is_read() -> None:
    """A path of nothing but small letters is its own name, as long as names may be."""
    deep = "/".join(["d" * 90] * 9).encode()
    package = read_package(KEY, sealed(files={deep: b"x", deep + b"/e": b"y"}))
    assert isinstance(package, Package)


Change = Callable[[Any], object]


def of_first(**changes: Any) -> Change:
    """Return a change of the first resource."""
    return lambda one: one["resources"][0].update(changes)


def as_second(field: str) -> Change:
    """Return a change that gives the first resource a property of the second."""
    return lambda one: one["resources"][0].update({field: one["resources"][1][field]})


def changed(text: bytes, change: Change) -> bytes:
    """Return a document with a change that no writer of ours would make."""
    document = json.loads(text)
    change(document)
    return json.dumps(document).encode()


OTHER_RUN = "20261122T180009Z-aaaaaa"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (of_first(path="../x"), "dot segment"),
        (of_first(path="/etc/passwd"), "not relative"),
        (of_first(path="other/x"), "no file of a job"),
        (as_second("path"), "listed twice"),
        (as_second("name"), "this name"),
        (of_first(bytes=-1), "resources.0.bytes"),
        (of_first(hash="md5:1"), "resources.0.hash"),
        (lambda one: one.update(resources=[]), "at least 1"),
        (lambda one: one["mayfly:job"].update(run=OTHER_RUN), "another job"),
        (lambda one: one["mayfly:job"].update(name="notes"), "another job"),
        (lambda one: one.pop("mayfly:job"), "mayfly:job"),
        (lambda one: one.update({"$schema": "x"}), "$schema"),
    ],
)
def test_a_forged_package_is_a_value(change: Change, reason: str) -> None:
    """Before any file is looked at."""
    read = read_package(KEY, changed(sealed(), change))
    assert isinstance(read, Invalid)
    assert reason in read.reason


def test_of_many_faults_only_the_first_is_kept() -> None:
    """Those of a million forged files, in two megabytes, would take one gigabyte at home."""
    with pytest.raises(ValidationError) as caught:
        Package.model_validate(
            json.loads(changed(sealed(), lambda one: one.update(resources=[{}] * 1000)))
        )
    of_files = [one for one in caught.value.errors() if one["loc"][0] == "resources"]
    assert {one["loc"][1:2] for one in of_files} == {(0,), ()}  # and that there are too few


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (of_first(path="jobs/quotes/files/x"), "neither a package"),
        (of_first(path="datapackage.json"), "neither a package"),
        (of_first(path="../x"), "dot segment"),
        (lambda one: one["mayfly:run"].update(run=OTHER_RUN), "another run"),
        (lambda one: one.update(resources=[]), "at least 1"),
    ],
)
def test_a_forged_manifest_is_a_value(change: Change, reason: str) -> None:
    """It names packages and parts of the log of its own run."""
    read = read_manifest(ManifestKey(RUN), changed(manifest_of([an_object(KEY.text)]), change))
    assert isinstance(read, Invalid)
    assert reason in read.reason


def test_what_a_newer_agent_adds_survives() -> None:
    """Unknown fields and words at every level."""
    document = json.loads(sealed())
    document["extra"] = {"a": 1}
    document["resources"][0] |= {"mayfly:colour": "red", "mayfly:role": "thumbnail"}
    document["mayfly:job"] |= {"status": "evaporated"}
    document["mayfly:job"]["attempts"][0]["mood"] = "good"
    read = read_package(KEY, json.dumps(document).encode())
    assert isinstance(read, Package)
    assert read.resources[0].role.known is Role.OTHER
    assert json.loads(read.model_dump_json(by_alias=True, exclude_unset=True)) == document


# What a job says of its own data.

FIELDS = {"fields": [{"name": "id", "type": "integer"}, {"name": "name", "type": "string"}]}
OWN: dict[str, Any] = {
    "title": "Quotes",
    "licenses": [{"name": "CC-BY-4.0"}],
    "contributors": [{"title": "me"}],
    "resources": [
        {
            "name": "the-table",
            "path": "table.csv",
            "schema": FIELDS,
            "bytes": len(TABLE),
            "hash": f"sha256:{hashlib.sha256(TABLE).hexdigest()}",
        }
    ],
}


def said(**changes: Any) -> Said:
    """Return what is carried over."""
    files = [result(name, content) for name, content in RESULTS.items()]
    own = json.dumps(OWN | changes).encode()
    return carry_over(own, {file.path: file for file in files})


def test_what_a_job_says_of_its_data_is_carried_over() -> None:
    """Title, licences, and the schema of a table."""
    assert said().notes == ()
    document = json.loads(sealed(said=said()))
    assert (document["title"], document["licenses"]) == ("Quotes", OWN["licenses"])
    table = next(one for one in document["resources"] if one["path"] == "files/table.csv")
    assert (table["name"], table["schema"]) == ("the-table", FIELDS)
    assert table["mayfly:role"] == "result"


@pytest.mark.parametrize(
    ("resource", "note"),
    [
        ({"bytes": 1}, "has 12 bytes, not 1"),
        ({"hash": "sha256:" + "0" * 64}, "another sha256"),
        ({"path": "gone.csv"}, "no single file"),
        ({"path": "../../x"}, "no single file"),
        ({"path": ["table.csv", "empty"]}, "no single file"),
        ("table.csv", "no single file"),
        ({"schema": "https://example.org/x"}, "'schema' is not used"),
        ({"schema": {"fields": 3}}, "'schema' is not used"),
        ({"schema": {"fields": [{"name": "id", "type": 3}]}}, "'schema' is not used"),
        ({"dialect": {"delimiter": 3}}, "'dialect' is not used"),
        ({"dialect": {"path": "../x"}}, "'dialect' is not used"),
        ({"mediatype": "x" * 300}, "'mediatype' is not used"),
        ({"sources": [{"title": 3}]}, "'sources' is not used"),
        ({"mayfly:role": "log"}, "'mayfly:role' is not used"),
        ({"data": [1]}, "'data' is not used"),
        ({"name": "No Name"}, "'name' is not used"),
        ({"name": resource_name("files/empty")}, "is another's"),
    ],
)
def test_what_contradicts_is_dropped_with_a_note(resource: Any, note: str) -> None:
    """What was sent is what holds, and the package stays one."""
    if isinstance(resource, dict):
        resource = {"path": "table.csv"} | resource
    carried = said(resources=[resource])
    assert any(note in one for one in carried.notes), carried.notes
    package = sealed(said=carried)
    DataPackage.from_descriptor(json.loads(package))
    read = read_package(KEY, package)
    assert isinstance(read, Package)
    assert carried.notes[0] in read.job.notes


@pytest.mark.parametrize(
    ("path", "other"),
    [
        (
            "files/天天秋歳.csv",
            "files/玄陽暑昃.csv",
        ),  # the first 32 bits of their digests are the same
        ("files/a b", resource_name("files/a b")),
        ("files/" + "x" * 1000, "files/" + "x" * 1001),
    ],
)
def test_two_files_never_have_one_name(path: str, other: str) -> None:
    """Home refuses a package in which two have."""
    names = [resource_name(path), resource_name(other)]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= MOST_NAME


def test_what_is_not_of_the_standard_is_not_carried_over() -> None:
    """A tool that reads the package must not stumble over it; our own properties are dropped without a note."""
    for name, value in (("licenses", "MIT"), ("title", 3), ("mayfly:job", {}), ("custom", 1)):
        assert any(f"'{name}' is not used" in one for one in said(**{name: value}).notes), name
    assert said(id="x", name="x", created="yesterday", version="9").notes == ()


def test_notes_take_no_memory_beyond_the_first() -> None:
    """A hostile description has a reason for one in every other byte."""
    own = json.dumps({"resources": [0] * 200_000}).encode()
    tracemalloc.start()
    try:
        notes = carry_over(own, {}).notes
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(notes) == 20
    assert peak < 10 * 1024**2


def test_a_file_is_called_as_the_job_calls_it() -> None:
    """Wherever it is stored; named twice, it counts once."""
    name = "line\nbreak.md"
    carried = said(resources=[{"path": name, "title": "a"}, {"path": name, "title": "b"}])
    assert carried.resources == {f"files/{bucket_path(name)}": {"title": "a"}}
    assert len(carried.notes) == 1


@pytest.mark.parametrize(
    "own",
    [
        b"",
        b"[]",
        b'"x"',
        b"\xff",
        b"[" * 100_000,
        b'{"title": "\\ud800"}',
        b'{"a": NaN}',
        b'{"resources": [{"path": "table.csv", "schema": {"fields": [{"name": "a", "x": 1e400}]}}]}',
        b" " * (MOST_OWN_BYTES + 1),
    ],
)
def test_a_damaged_description_is_a_note(own: bytes) -> None:
    """The job's success is not touched by it."""
    carried = carry_over(own, {})
    assert (carried.package, carried.resources, len(carried.notes)) == ({}, {}, 1)
    assert "is not used" in carried.notes[0]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "string", "a/b"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["name", "title", "path", "fields", "type", "delimiter", "header"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
OF_ALL = ("title", "homepage", "keywords", "licenses", "sources", "contributors", "resources")
OF_A_FILE = ("path", "name", "title", "format", "mediatype", "sources", "schema", "dialect")


@given(
    st.dictionaries(st.sampled_from(OF_ALL), ANYTHING, max_size=4),
    st.dictionaries(st.sampled_from(OF_A_FILE), ANYTHING, max_size=4),
)
def test_no_description_breaks_a_package(own: dict[str, Any], file: dict[str, Any]) -> None:
    """Whatever a job wrote: we can read its package, and so can frictionless."""
    described = {"resources": [{"path": "table.csv"} | file]} | own
    package = sealed(said=said(**described))
    assert isinstance(read_package(KEY, package), Package)
    DataPackage.from_descriptor(json.loads(package))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.json", "application/json"),
        ("a.jsonl", "application/x-ndjson"),
        ("a.csv.gz", "application/gzip"),
        ("a.parquet", "application/vnd.apache.parquet"),
        ("a", "application/octet-stream"),
        ("a.tar.bz2", "application/octet-stream"),
    ],
)
def test_media_types_are_the_same_everywhere(path: str, kind: str) -> None:
    """By the name, from a table that no machine changes."""
    assert media_type(path) == kind


def test_a_hundred_thousand_files_are_written_piece_by_piece() -> None:
    """Nobody holds the whole."""
    files = (Sealed(f"files/{n}", 1, "0" * 64, Role.RESULT) for n in range(100_000))
    assert max(map(len, seal_package(job(), files))) < 10_000
