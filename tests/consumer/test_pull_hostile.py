"""A bucket in the hands of somebody else: nothing outside DEST, nothing beyond what is declared, no traceback."""

import json
import stat
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.contract.names import MAX_PATH_BYTES, path_problem
from agent.core.ids import is_run_id
from consumer.pull.plan import MAX_VALUES
from tests.bucket.bucket import Bucket
from tests.bucket.layout import ENTRIES, entry_key
from tests.bucket.leaving import RUN, leave_run
from tests.consumer.pulling import Pulled, content, of_job, placed, pull_into

GOOD = "20261121T064205Z-aaaaaa"
JOBS = {"quotes", "notes"}

EVIL_PATHS = [
    "../evil",
    "quotes/../../evil",
    "quotes/../notes/x",
    "/etc/passwd",
    "quotes//x",
    "quotes/./x",
    "quotes/x\x00y",
    "quotes/x\ny",
    "quotes\\x",
    "quotes/",
    "",
    ".",
    "..",
    "quotes/" + "x" * 300,
    "quotes/" + "/".join("x" * 200 for _ in range(9)),
    "quotes/\udcff",
    "quotes",
    "quotes/page 1.json",
    "quotes/page 1.json/x",
    "QUOTES/page 1.json",
    "quotes/Page 1.JSON",
    "quotes/PAGE 1.json",
    "quotes/\u212a",
    "notes/\U0001f98b.MD",
    ".mayfly/state.json",
    "latest/x",
    "quotes/latest",
    "_run/log.jsonl/x",
    "quotes/con",
    "quotes/x#1",
]


def outside(sandbox: Path, dest: Path) -> dict[str, tuple[int, bytes | str]]:
    """Everything of a sandbox but the folder that is pulled into."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sandbox.rglob("*"):
        if path != dest and dest not in path.parents:
            mode = path.lstat().st_mode
            text: bytes | str = b""
            if stat.S_ISLNK(mode):
                text = str(path.readlink())
            elif stat.S_ISREG(mode):
                text = path.read_bytes()
            found[str(path)] = (mode, text)
    return found


def is_sound(dest: Path) -> None:
    """Assert that a folder at home holds jobs, runs, links of ours, and regular files."""
    for path in dest.rglob("*"):
        parts = path.relative_to(dest).parts
        mode = path.lstat().st_mode
        if parts[0] == ".mayfly":
            assert not stat.S_ISLNK(mode)
            continue
        assert parts[0] in JOBS | {"latest"}
        if len(parts) == 2:
            assert is_run_id(parts[1]) or (parts[1] == "latest" and stat.S_ISLNK(mode))
        if stat.S_ISLNK(mode):
            assert parts[1:] == ("latest",)
            assert is_run_id(str(path.readlink()))
        else:
            assert stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and path.lstat().st_nlink == 1)


def told(pulled: Pulled) -> str:
    """All problems of the runs that were refused."""
    return "\n".join(text for row in pulled.document["refused"] for text in row["problems"])


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder at home."""
    return tmp_path / "home"


def add(manifest: dict[str, Any], path: str, **changes: object) -> None:
    """Add a resource, by default with the content `b"[]"`."""
    manifest["resources"].append(
        {
            "name": f"r{len(manifest['resources'])}",
            "path": path,
            "bytes": 2,
            "hash": f"sha256:{sha256(b'[]').hexdigest()}",
            "mediatype": "text/plain",
            "mayfly:job": "quotes",
            **changes,
        }
    )


@pytest.mark.parametrize("path", EVIL_PATHS)
def test_no_path_leads_outside_or_onto_another(
    folder: Bucket, dest: Path, tmp_path: Path, path: str
) -> None:
    """A run with one bad name is refused whole, told, and the next run comes; what is only odd stays inside."""
    leave_run(folder)
    folder.rewrite(RUN, lambda manifest: add(manifest, path))
    if path_problem(path) is None and path_problem(f"x/{path}") is None:
        with suppress(OSError):  # onto another, in the bucket as well
            folder.put_file(RUN, path, b"[]")
    leave_run(folder, GOOD)
    before = outside(tmp_path, dest)
    pulled = pull_into(dest, folder)
    assert outside(tmp_path, dest) == before
    is_sound(dest)
    assert {(GOOD, job) for job in JOBS} <= set(placed(dest))
    odd = {
        "quotes/latest",
        "quotes/con",
        "quotes/\u212a",
        "quotes/Page 1.JSON",
        "quotes/PAGE 1.json",
    }
    assert pulled.code == (0 if path in odd else 3), told(pulled)
    if path not in odd:
        assert (RUN, "quotes") not in placed(dest)
        assert told(pulled)
        assert told(pulled).isprintable() or "\n" in told(pulled)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"bytes": 3}, "it has 2 bytes, and declares 3"),
        ({"bytes": 1}, "more than the 1 bytes"),
        ({"bytes": 0}, "more than the 0 bytes"),
        ({"bytes": 9 * 1024**2}, "does not have the 9437184 bytes"),
        ({"bytes": 10**14}, "more than the 10737418240 allowed"),
        ({"bytes": 10**400}, "its numbers are impossible"),
        ({"bytes": -1}, "its manifest is none"),
        ({"hash": "sha256:" + "0" * 64}, "its content is not"),
        ({"hash": "md5:0"}, "its manifest is none"),
        ({"mayfly:job": "../x"}, "not in the folder of a job"),
        ({"mayfly:job": "notes"}, "not in the folder of a job"),
        ({"mayfly:job": ".mayfly"}, "not in the folder of a job"),
        ({"mayfly:job": ""}, "not in the folder of a job"),
    ],
)
def test_a_resource_that_lies_is_refused(
    folder: Bucket, dest: Path, changes: dict[str, object], problem: str
) -> None:
    """Sizes, hashes and jobs are checked; nothing of the job is in place, or left in staging."""
    leave_run(folder)
    folder.put_file(RUN, "quotes/x", b"[]")
    folder.rewrite(RUN, lambda manifest: add(manifest, "quotes/x", **changes))
    pulled = pull_into(dest, folder)
    assert pulled.code == 3
    assert problem in told(pulled)
    assert (RUN, "quotes") not in placed(dest)
    assert not list((dest / ".mayfly").glob("staging/*"))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"resources": [' + b"[]," * 1000 + b"[]]}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"[" + b"0," * (MAX_VALUES + 1) + b"0]",
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Bucket, dest: Path, text: bytes) -> None:
    """Whatever stands in its place, and is committed, is told in a line."""
    leave_run(folder)
    folder.commit(RUN, text)
    pulled = pull_into(dest, folder)
    assert (pulled.code, placed(dest)) == (3, [])
    assert "manifest" in told(pulled)


ORIGINALS = [
    "../x",
    "/etc/passwd",
    "a/../../b",
    "a//b",
    "a%00b",
    "",
    "..",
    "other",
    "page 1.json/x",
]


@pytest.mark.parametrize("original", ORIGINALS)
def test_an_original_name_that_is_not_the_file_s_is_refused(
    folder: Bucket, dest: Path, original: str
) -> None:
    """Nothing comes home under a name that leads elsewhere, or onto another file, also not by its own name."""
    leave_run(folder)
    folder.rewrite(RUN, lambda manifest: manifest["resources"][0].update({"mayfly:path": original}))
    assert pull_into(dest, folder).rows("refused")
    assert placed(dest) == []


def test_a_million_resources_are_not_read(folder: Bucket, dest: Path) -> None:
    """A manifest beyond all measure costs nothing but its index entry."""
    leave_run(folder)
    row = {"name": "x", "path": "quotes/x", "bytes": 0, "hash": "sha256:" + "0" * 64}
    text = (json.dumps({**row, "mediatype": "a/b"}) + ",").encode() * 1_000_000
    folder.put_manifest(RUN, text)
    named = folder.entry(RUN)["manifest"]
    for size, problem in ((len(text), "its manifest has"), (1000, "larger than the index entry")):
        folder.amend(RUN, manifest={**named, "bytes": size})
        assert problem in told(pull_into(dest, folder, "--again"))
    assert placed(dest) == []


def test_a_manifest_is_believed_only_as_it_was_committed(folder: Bucket, dest: Path) -> None:
    """One that was exchanged later, or is another run's, is refused."""
    leave_run(folder)
    leave_run(folder, GOOD)
    folder.put_manifest(RUN, folder.manifest_text(RUN).replace(b"\n ", b"\n\t"))
    pulled = pull_into(dest, folder)
    assert "not what the index entry committed" in told(pulled)
    folder.commit(RUN, folder.manifest_text(GOOD))
    assert "about another run" in told(pull_into(dest, folder, "--again"))


@pytest.mark.parametrize("name", ["..", ".mayfly", "a/b", "", "a\n", "A", "x" * 64, "-a", "\u0661"])
def test_a_job_without_a_possible_name_is_refused(folder: Bucket, dest: Path, name: str) -> None:
    """A job's name is a folder at home: the run is refused before its manifest is looked at."""
    leave_run(folder)
    first, *others = folder.entry(RUN)["jobs"]
    folder.amend(RUN, jobs=[{**first, "name": name}, *others])
    pulled = pull_into(dest, folder)
    assert "cannot be the name of a job" in told(pulled)
    assert placed(dest) == []


@pytest.mark.parametrize(
    "key",
    [
        "99991231T235959.999Z-20261122T064205Z-bbbbbb.json",
        "20269999T999999.999Z-20261122T064205Z-bbbbbb.json",
        "20261122T064510.000Z-20269999T999999Z-bbbbbb.json",
        "00000000T000000.000Z-20261122T064205Z-bbbbbb.json",
    ],
)
def test_a_forged_stamp_hides_no_run(folder: Bucket, dest: Path, key: str) -> None:
    """A commit of the year 9999, or of no year, does not move the cursor past what is to come."""
    leave_run(folder)
    folder.objects.put(ENTRIES + key, b"{}")
    pulled = pull_into(dest, folder)
    assert (pulled.code, len(placed(dest))) == (3, 2)
    leave_run(folder, "20261122T074205Z-3f9a1c")
    assert len(pull_into(dest, folder).document["placed"]) == 2
    assert pull_into(dest, folder).document["placed"] == []


def test_links_that_somebody_left_at_home_are_not_followed(
    folder: Bucket, dest: Path, tmp_path: Path
) -> None:
    """A link in the place of a job, of a staging or of a lock is in the way, and is told."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    leave_run(folder)
    dest.mkdir()
    (dest / ".mayfly").symlink_to(elsewhere)
    assert pull_into(dest, folder).code == 4
    (dest / ".mayfly").unlink()
    (dest / ".mayfly" / "staging").mkdir(parents=True)
    (dest / ".mayfly" / "staging" / RUN).symlink_to(elsewhere)
    (dest / "quotes").symlink_to(elsewhere)
    pulled = pull_into(dest, folder)
    assert pulled.code == 3
    assert "in the way" in pulled.document["delayed"][0]["problem"]
    (dest / "quotes").unlink()
    assert pull_into(dest, folder).code == 0
    assert list(elsewhere.iterdir()) == []
    assert content(dest / "quotes" / RUN) == of_job("quotes")


def test_what_lies_in_staging_is_not_believed(folder: Bucket, dest: Path, tmp_path: Path) -> None:
    """Links, strangers and wrong bytes in a staging folder are thrown away."""
    leave_run(folder)
    (tmp_path / "secret").write_text("secret")
    staged = dest / ".mayfly" / "staging" / RUN
    (staged / "quotes").mkdir(parents=True)
    (staged / "quotes" / "page 1.json").symlink_to(tmp_path / "secret")
    (staged / "notes").mkdir()
    (staged / "notes" / "\U0001f98b.md").write_bytes(b"# MAYFLY")
    assert pull_into(dest, folder).code == 0
    assert content(dest / "quotes" / RUN) == of_job("quotes")
    assert content(dest / "notes" / RUN) == of_job("notes")
    assert (tmp_path / "secret").read_text() == "secret"
    is_sound(dest)


def test_a_folder_or_a_file_named_latest_is_not_overwritten(folder: Bucket, dest: Path) -> None:
    """What is no link of ours stays, is told, and the run is there all the same."""
    leave_run(folder)
    (dest / "notes" / "latest").mkdir(parents=True)
    pulled = pull_into(dest, folder)
    assert pulled.code == 3
    assert content(dest / "notes" / RUN) == of_job("notes")
    assert (dest / "quotes" / "latest").is_symlink()


SOME_PATHS = st.one_of(
    st.sampled_from(EVIL_PATHS),
    st.text(max_size=20).map(lambda text: f"quotes/{text}"),
    st.text(st.sampled_from("./aA\u00e9e\u0301\x00"), max_size=12).map(lambda t: f"quotes/{t}"),
    st.text(max_size=MAX_PATH_BYTES // 20),
)
SIZES = st.one_of(st.integers(-2, 5), st.sampled_from([2**31, 2**63, 10**30, True, "2", None, 2.5]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
RESOURCES = st.fixed_dictionaries(
    {"path": SOME_PATHS},
    optional={
        "bytes": SIZES,
        "name": st.sampled_from(["r0", "..", "x"]),
        "hash": st.sampled_from(["sha256:" + "0" * 64, "x", ""]),
        "mayfly:job": st.sampled_from(["quotes", "notes", "..", ".mayfly", "latest", None, ""]),
        "mayfly:partial": st.booleans(),
    },
)
FIELDS = st.sampled_from(["$schema", "id", "created", "resources", "mayfly:run", "\x1b"])


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    resources=st.lists(RESOURCES, max_size=4),
    changes=st.dictionaries(FIELDS, JSON, max_size=1) | st.just({}),
    partial=st.booleans(),
)
@pytest.mark.long
def test_two_hundred_forged_manifests(
    resources: list[dict[str, Any]], changes: dict[str, Any], *, partial: bool
) -> None:
    """Whatever a committed manifest says: home stays as it was, or has whole and verified jobs; and it is told."""
    with tempfile.TemporaryDirectory() as name:
        sandbox = Path(name)
        dest, folder = sandbox / "home", Bucket.in_folder(sandbox / "bucket")
        leave_run(folder, files={"quotes/page 1.json": b"[]", "notes/\U0001f98b.md": b"n"})

        def forge(manifest: dict[str, Any]) -> None:
            for resource in resources:
                add(manifest, **resource)
            manifest.update(changes)

        folder.rewrite(RUN, forge)
        for resource in resources:
            if path_problem(resource["path"]) is None:
                with suppress(OSError):
                    folder.put_file(RUN, resource["path"], b"[]")
        leave_run(folder, GOOD, files={"quotes/a": b"a"})
        before = outside(sandbox, dest)
        pulled = pull_into(dest, folder, *(["--partial"] if partial else []))
        assert outside(sandbox, dest) == before
        assert pulled.code in (0, 3)
        assert pulled.code == (3 if pulled.document["refused"] else 0)
        is_sound(dest)
        assert (GOOD, "quotes") in placed(dest)
        listed = {
            (row.get("mayfly:job"), row.get("path")): row.get("hash")
            for row in as_rows(json.loads(folder.manifest_text(RUN)))
        }
        for run, job in placed(dest):
            if run == RUN:
                for path, data in content(dest / job / run).items():
                    assert listed[job, f"{job}/{path}"] == f"sha256:{sha256(data).hexdigest()}"


def as_rows(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The resources of a manifest that has some."""
    rows = manifest.get("resources")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["files", "bytes", "jobs", "manifest", "status"]), JSON))
def test_forged_index_entries(changes: dict[str, Any]) -> None:
    """An index entry with arbitrary values is told or harmless, and stops no other run."""
    with tempfile.TemporaryDirectory() as name:
        dest, folder = Path(name) / "home", Bucket.in_folder(Path(name) / "bucket")
        leave_run(folder, files={"quotes/a": b"a"})
        folder.amend(RUN, **changes)
        other = leave_run(folder, GOOD, files={"quotes/a": b"a"})
        assert other == entry_key(GOOD, datetime(2026, 11, 21, 6, 45, 10, tzinfo=UTC))
        pulled = pull_into(dest, folder)
        assert pulled.code in (0, 3)
        assert (GOOD, "quotes") in placed(dest)
        is_sound(dest)
