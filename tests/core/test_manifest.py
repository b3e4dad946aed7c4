"""The manifest: a valid Data Package by every reader we know, whatever the files are called."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from frictionless import Package, system, validate
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.names import path_problem
from agent.core.datapackage import (
    Sealed,
    index_entry,
    manifest_problems,
    media_type,
    render,
    resource_name,
    resource_of,
    with_contents,
)
from agent.core.layout import LOG, manifest_key
from agent.core.manifest import (
    PROFILE,
    HostRecord,
    IndexEntry,
    Manifest,
    ManifestRef,
    ReleaseRecord,
    RunRecord,
    StartedMarker,
)
from agent.core.results import JobCause, JobResult, JobStatus, RunStatus

RUN = "20261122T064205Z-3f9a1c"
BEGAN = datetime(2026, 11, 22, 6, 42, 5, tzinfo=UTC)

FILES = {
    "quotes/page 1.json": b'{"a": 1}',
    "quotes/\u540d\u524d \u3068 100%+#?.txt": b"name",
    "quotes/table.csv": b"id,name\n1,a\n",
    "quotes/deep/er/deeper.bin": b"\0\1\2",
    "quotes/empty": b"",
    "notes/\U0001f98b.md": b"# mayfly",
    LOG: b'{"event":"run.started"}\n',
}


def record(**changes: object) -> RunRecord:
    """A run's record."""
    base = RunRecord(
        run_id=RUN,
        status=RunStatus.PARTIAL,
        started=BEGAN,
        finished=BEGAN + timedelta(minutes=3),
        agent="0.1.0",
        host=HostRecord(name="host", system="Linux"),
        release=ReleaseRecord(
            repository="https://example.org/x.git", ref="v1.2", commit="c" * 40, fetched=BEGAN
        ),
        jobs=(
            JobResult(name="quotes", status=JobStatus.SUCCEEDED, items=7),
            JobResult(
                name="notes", status=JobStatus.FAILED, cause=JobCause.BLOCKED, message="4" * 2000
            ),
        ),
    )
    return base.model_copy(update=changes)


def sealed(path: str, content: bytes = b"", *, partial: bool = False) -> Sealed:
    """A file in the bucket."""
    name = "" if path == LOG else path.split("/", maxsplit=1)[0]
    return Sealed(path, len(content), sha256(content).hexdigest(), name, partial)


def rendered(files: list[Sealed], run: RunRecord | None = None) -> dict[str, Any]:
    """The manifest as JSON data."""
    data: dict[str, Any] = json.loads(b"".join(render(run or record(), files)))
    return data


def all_sealed() -> list[Sealed]:
    """`FILES` as they are in the bucket."""
    return [
        sealed(path, content, partial=path.startswith("notes/")) for path, content in FILES.items()
    ]


def test_a_package_with_its_files_is_valid_to_an_independent_reader(tmp_path: Path) -> None:
    """Frictionless reads the descriptor, finds each file, and agrees with sizes and hashes."""
    for path, content in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    descriptor = tmp_path / "datapackage.json"
    descriptor.write_bytes(b"".join(render(record(), all_sealed())))
    report = validate(str(descriptor), type="package")
    assert report.flatten(["type", "message"]) == []
    with system.use_context(trusted=True):
        package = Package(str(descriptor))
        assert [resource.path for resource in package.resources] == list(FILES)


def test_an_independent_reader_finds_a_changed_file(tmp_path: Path) -> None:
    """The hashes are in a form that others check as well."""
    (tmp_path / "quotes").mkdir()
    (tmp_path / "quotes/a.csv").write_bytes(b"id\n2\n")
    descriptor = tmp_path / "datapackage.json"
    descriptor.write_bytes(b"".join(render(record(), [sealed("quotes/a.csv", b"id\n1\n")])))
    report = validate(str(descriptor), type="package")
    assert [row[0] for row in report.flatten(["type"])] == ["hash-count"]


@pytest.mark.parametrize("model", [Manifest, IndexEntry, StartedMarker])
def test_schemas_are_schemas(model: type[Manifest | IndexEntry | StartedMarker]) -> None:
    """Each is valid JSON Schema 2020-12."""
    jsonschema.Draft202012Validator.check_schema(model.model_json_schema())


def test_what_is_written_fits_the_models_and_their_schemas() -> None:
    """A manifest and an index entry are what they promise."""
    run = record()
    files = all_sealed()
    data = rendered(files, run)
    jsonschema.validate(data, Manifest.model_json_schema())
    assert Manifest.model_validate(data).run == run
    ref = ManifestRef(key=manifest_key(RUN), bytes=1, sha256="0" * 64)
    entry = index_entry(run, files, ref)
    jsonschema.validate(json.loads(entry.model_dump_json()), IndexEntry.model_json_schema())


def test_a_manifest_says_what_the_standard_asks_for() -> None:
    """Profile 2.0, an id, a name in the recommended alphabet, hashes with their algorithm."""
    data = rendered(all_sealed())
    assert (data["$schema"], data["id"], data["version"]) == (PROFILE, f"urn:mayfly:{RUN}", "v1.2")
    assert data["name"] == f"mayfly-{RUN.lower()}"
    assert data["resources"][0] == {
        "name": resource_name("quotes/page 1.json"),
        "path": "quotes/page 1.json",
        "bytes": 8,
        "hash": f"sha256:{sha256(FILES['quotes/page 1.json']).hexdigest()}",
        "mediatype": "application/json",
        "mayfly:job": "quotes",
    }
    assert data["resources"][5]["mayfly:partial"] is True
    assert "mayfly:job" not in data["resources"][6]


def test_a_run_without_a_release_still_has_a_manifest() -> None:
    """With the log alone."""
    data = rendered([sealed(LOG, b"x")], record(release=None, jobs=()))
    assert data["version"] == "none"
    assert manifest_problems(Manifest.model_validate(data)) == []


def test_what_a_newer_agent_adds_survives() -> None:
    """Unknown fields at every level are still there after reading and writing."""
    data = rendered(all_sealed())
    data["extra"] = {"a": 1}
    data["resources"][0]["mayfly:colour"] = "red"
    data["mayfly:run"]["host"]["planet"] = "earth"
    data["mayfly:run"]["jobs"][0]["mood"] = "good"
    again = json.loads(Manifest.model_validate(data).model_dump_json(by_alias=True))
    assert again["extra"] == {"a": 1}
    assert again["resources"][0]["mayfly:colour"] == "red"
    assert again["mayfly:run"]["host"]["planet"] == "earth"
    assert again["mayfly:run"]["jobs"][0]["mood"] == "good"


def test_the_index_entry_has_what_a_dashboard_needs() -> None:
    """Only jobs' files are counted, messages are short, and it fits a small object."""
    ref = ManifestRef(key=manifest_key(RUN), bytes=1, sha256="0" * 64)
    entry = index_entry(record(), all_sealed(), ref)
    assert (entry.files, entry.bytes) == (6, sum(map(len, FILES.values())) - len(FILES[LOG]))
    assert [job.name for job in entry.jobs] == ["quotes", "notes"]
    assert (entry.jobs[0].items, len(entry.jobs[1].message)) == (7, 300)
    assert (entry.release, entry.stale) == ("v1.2", False)


def test_contents_are_counted_as_they_are_in_the_bucket() -> None:
    """Files and bytes of each job come from what was sent."""
    quotes, notes = with_contents(record(), all_sealed()).jobs
    assert (quotes.files, quotes.bytes) == (5, 27)
    assert (notes.files, notes.bytes) == (1, 8)


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        ([LOG, "../x"], "dot segment"),
        ([LOG, "/etc/passwd"], "not relative"),
        ([LOG, "a", "a"], "listed twice"),
        (["a"], "the run log is not listed"),
    ],
)
def test_a_manifest_can_be_wrong_by_itself(paths: list[str], problem: str) -> None:
    """Before any file is looked at."""
    manifest = Manifest.model_validate(rendered([sealed(path) for path in paths]))
    assert any(problem in found for found in manifest_problems(manifest))


def test_two_resources_with_one_name_are_a_problem() -> None:
    """Names are unique in a Data Package."""
    data = rendered([sealed(LOG), sealed("a"), sealed("b")])
    data["resources"][2]["name"] = data["resources"][1]["name"]
    problems = manifest_problems(Manifest.model_validate(data))
    assert problems == ["'a': two resources have this name"]


PATHS = st.text(min_size=1, max_size=30).filter(lambda path: path_problem(path) is None)


@given(st.lists(PATHS, unique=True, max_size=6))
def test_any_honest_paths_make_a_sound_manifest(paths: list[str]) -> None:
    """Names are unique and in the recommended alphabet, and what is written is read back as it was."""
    files = [sealed(LOG), *(sealed(f"j/{path}") for path in paths)]
    manifest = Manifest.model_validate(rendered(files))
    assert manifest_problems(manifest) == []
    assert [one.path for one in manifest.resources] == [file.path for file in files]
    names = {one.name for one in manifest.resources}
    assert len(names) == len(files)
    alphabet = set("abcdefghijklmnopqrstuvwxyz0123456789._/-")
    assert all(set(name) <= alphabet for name in names)


@given(st.text(max_size=50))
def test_a_name_is_a_stable_function_of_its_path(path: str) -> None:
    """For any text."""
    assert resource_name(path) == resource_name(path)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.json", "application/json"),
        ("a.jsonl", "application/x-ndjson"),
        ("a.csv", "text/csv"),
        ("a.md", "text/markdown"),
        ("a.html", "text/html"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.parquet", "application/vnd.apache.parquet"),
        ("a.tar.gz", "application/gzip"),
        ("a.json.xz", "application/x-xz"),
        ("a.json.bz2", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        ("http://x/a.json", "application/json"),
    ],
)
def test_media_types_depend_on_the_name_alone(path: str, kind: str) -> None:
    """The same on every machine."""
    assert media_type(path) == kind


def test_a_resource_of_the_run_itself_belongs_to_no_job() -> None:
    """The log is nobody's result."""
    assert "mayfly:job" not in resource_of(sealed(LOG))


def test_a_hundred_thousand_files_are_rendered_in_small_pieces() -> None:
    """No piece grows with the number of files."""
    files = (Sealed(f"j/{number}", 1, "0" * 64, "j") for number in range(100_000))
    pieces = render(record(), files)
    largest = max(map(len, pieces))
    assert largest < 20_000


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_no_number_that_json_lacks_is_read(value: str) -> None:
    """A manifest that could not be written again is not accepted."""
    text = record().model_dump_json()
    jobs = text.replace('"metrics":{}', f'"metrics":{{"a":{value}}}', 1)
    assert jobs != text
    with pytest.raises(ValueError, match="finite"):
        RunRecord.model_validate_json(jobs)
