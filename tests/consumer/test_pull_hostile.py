"""A bucket in the hands of somebody else: nothing outside DEST, nothing beyond what is declared, no traceback."""

import json
import os
import stat
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.contract.ids import is_run_id
from agent.contract.layout import JobKey
from agent.contract.names import MAX_PATH_BYTES, path_problem
from consumer.entries import MOST_VALUES
from consumer.pull.folder import new_file, open_below
from tests.bucket.bucket import Bucket
from tests.consumer.forging import amend_entry, commit, package_of, rewrite
from tests.consumer.pulling import (
    NIGHTS,
    content,
    installed,
    leave,
    of_job,
    pull_into,
    results,
)

JOBS = {"quotes", "notes"}

EVIL_PATHS = [
    "../evil",
    "files/../../evil",
    "files/../logs/x",
    "/etc/passwd",
    "files//x",
    "files/./x",
    "files/x\x00y",
    "files/x\ny",
    "files\\x",
    "files/",
    "",
    ".",
    "..",
    "files/" + "x" * 300,
    "files/" + "/".join("x" * 200 for _ in range(9)),
    "files/\udcff",
    "files",
    "files/page 1.json",
    "files/page 1.json/x",
    "FILES/page 1.json",
    "files/Page 1.JSON",
    "files/PAGE 1.json",
    "files/\u212a",
    ".mayfly/pull.db",
    "latest/x",
    "files/latest",
    "datapackage.json",
    "logs/attempt-1.log/x",
    "files/con",
    "files/x#1",
    "evidence",
    "state/x",
]
ODD = {"files/latest", "files/con", "files/\u212a", "files/Page 1.JSON", "files/PAGE 1.json"}
"""Paths that are only odd: on this disk they are files like any other."""


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
        assert parts[0] in JOBS
        if len(parts) == 2:
            assert is_run_id(parts[1]) or (parts[1] == "latest" and stat.S_ISLNK(mode))
        if stat.S_ISLNK(mode):
            assert parts[1:] == ("latest",)
            assert is_run_id(str(path.readlink()))
        else:
            assert stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and path.lstat().st_nlink == 1)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder at home."""
    return tmp_path / "home"


def add(package: dict[str, Any], path: str, **changes: object) -> None:
    """Add a resource, by default with the content `b"[]"`."""
    package["resources"].append(
        {
            "name": f"r{len(package['resources'])}",
            "path": path,
            "bytes": 2,
            "hash": f"sha256:{sha256(b'[]').hexdigest()}",
            "mediatype": "text/plain",
            "mayfly:role": "result",
            **changes,
        }
    )


@pytest.mark.parametrize("path", EVIL_PATHS)
def test_no_path_leads_outside_or_onto_another(
    folder: Bucket, dest: Path, tmp_path: Path, path: str
) -> None:
    """A job with one bad name is rejected whole, told, and others come; what is only odd stays inside."""
    run, good = leave(folder), leave(folder, NIGHTS[0])
    rewrite(folder, run, lambda package: add(package, path))
    if path_problem(path) is None:
        with suppress(OSError):  # onto another, in the bucket as well
            folder.objects.put(JobKey(run, "quotes", path).text, b"[]")
    before = outside(tmp_path, dest)
    pulled = pull_into(dest, folder)
    assert outside(tmp_path, dest) == before
    is_sound(dest)
    assert {(good, "quotes"), (good, "notes"), (run, "notes")} <= set(installed(dest))
    assert pulled.code == (0 if path in ODD else 3), pulled.problems
    if path not in ODD:
        assert pulled.rows("rejected") == [(run, "quotes")]
        assert (run, "quotes") not in installed(dest)
        assert pulled.problems.isprintable()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"bytes": 3}, "it has 2 bytes, and declares 3"),
        ({"bytes": 1}, "more than the 1 bytes"),
        ({"bytes": 0}, "more than the 0 bytes"),
        ({"bytes": 11 * 1024**2}, "does not have the 11534336 bytes"),
        ({"bytes": 10**14}, "more than the 10737418240 allowed"),
        ({"bytes": 10**400}, "cannot be used"),
        ({"bytes": -1}, "cannot be used"),
        ({"hash": "sha256:" + "0" * 64}, "its content is not"),
        ({"hash": "md5:0"}, "cannot be used"),
        ({"name": "page-1.json-0d6a1a8f", "path": "files/page 1.json"}, "listed twice"),
    ],
)
def test_a_resource_that_lies_is_rejected(
    folder: Bucket, dest: Path, changes: dict[str, Any], problem: str
) -> None:
    """Sizes and hashes are checked; nothing of the job is in place, or left in staging."""
    run = leave(folder)
    folder.objects.put(JobKey(run, "quotes", "files/x").text, b"[]")
    rewrite(folder, run, lambda package: add(package, **{"path": "files/x", **changes}))
    pulled = pull_into(dest, folder)
    assert pulled.code == 3
    assert problem in pulled.problems
    assert installed(dest) == [(run, "notes")]
    assert not list((dest / ".mayfly").glob("staging/*"))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[" + b"0," * (MOST_VALUES + 1) + b"0]",
    ],
)
def test_a_package_that_is_none_is_rejected(folder: Bucket, dest: Path, text: bytes) -> None:
    """Whatever stands in its place, and is committed, is told in a line."""
    run = leave(folder)
    commit(folder, run, text)
    pulled = pull_into(dest, folder)
    assert (pulled.code, installed(dest)) == (3, [(run, "notes")])
    assert "its package cannot be used" in pulled.problems


@pytest.mark.parametrize(
    "original",
    ["../x", "/etc/passwd", "a/../../b", "a//b", "a%00b", "", "..", "other", "page 1.json/x"],
)
def test_an_original_name_that_is_not_the_file_s_is_rejected(
    folder: Bucket, dest: Path, original: str
) -> None:
    """Who reads the package finds no name in it that leads elsewhere."""
    run = leave(folder)
    rewrite(folder, run, lambda package: package["resources"][0].update({"mayfly:path": original}))
    assert pull_into(dest, folder).rows("rejected") == [(run, "quotes")]
    assert installed(dest) == [(run, "notes")]


def test_what_lies_deep_comes_home(folder: Bucket, dest: Path) -> None:
    """A job may leave files below hundreds of folders; both small ones and large ones are on their way at once."""
    deep = "a/" * 298
    files = {
        f"{deep}{number}": bytes([number]) * size for number, size in enumerate([9, 2**21] * 4)
    }
    run = leave(folder, jobs={"quotes": files})
    assert pull_into(dest, folder).code == 0
    assert results(dest / "quotes" / run) == files


def open_files() -> int:
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_deep_file_takes_few_descriptors(tmp_path: Path) -> None:
    """However many folders lead to it: eight files are written at once, and a process may have a thousand."""
    path = "a/" * 349 + "b"
    tmp_path.joinpath("home").mkdir()
    home = os.open(tmp_path / "home", os.O_RDONLY)
    try:
        before = open_files()
        with new_file(home, path):
            assert open_files() == before + 1
    finally:
        os.close(home)
    with open_below(tmp_path / "home", path):
        assert open_files() == before


def test_a_million_resources_are_not_read(folder: Bucket, dest: Path) -> None:
    """A package beyond all measure costs no more than its entry says."""
    run = leave(folder)
    row = {"name": "x", "path": "files/x", "bytes": 0, "hash": "sha256:" + "0" * 64}
    text = (json.dumps({**row, "mediatype": "a/b", "mayfly:role": "result"}) + ",").encode()
    commit(folder, run, text * 600_000)
    assert "more than 50331648 bytes" in pull_into(dest, folder).problems
    short = {"key": JobKey(run, "quotes").text, "bytes": 1000, "sha256": "0" * 64}

    def change(entry: dict[str, Any]) -> None:
        entry["jobs"][0]["package"] = short

    amend_entry(folder, run, change, "jobs")
    other = dest.with_name("other")
    assert "larger than its entry says" in pull_into(other, folder).problems
    assert (run, "quotes") not in installed(dest) + installed(other)


def test_a_package_is_believed_only_as_it_was_committed(folder: Bucket, dest: Path) -> None:
    """One that was exchanged later, is another job's, or says otherwise than its entry, is rejected."""
    run, other = leave(folder), leave(folder, NIGHTS[0])
    key = JobKey(run, "quotes").text
    folder.objects.put(key, folder.objects.get(key).replace(b"\n ", b"\n\t"))
    assert "not what its entry committed" in pull_into(dest, folder).problems
    # What a home has read of an entry does not change any more: each forgery meets another one.
    for foreign in (JobKey(other, "quotes"), JobKey(run, "notes")):
        commit(folder, run, folder.objects.get(foreign.text))
        assert "of another job" in pull_into(dest.with_name(foreign.job), folder).problems
    rewrite(folder, other, lambda package: package["mayfly:job"].update(status="failed"))
    assert (
        "its entry says succeeded, its package failed"
        in pull_into(dest.with_name("fresh"), folder).problems
    )


@pytest.mark.parametrize("name", ["..", ".mayfly", "a/b", "", "a\n", "A", "x" * 64, "-a", "\u0661"])
def test_a_job_without_a_possible_name_is_told(folder: Bucket, dest: Path, name: str) -> None:
    """A job's name is a folder at home: the entry that has another cannot be used."""
    run = leave(folder)
    key = amend_entry(folder, run, lambda entry: entry["jobs"][0].update(name=name), "jobs")
    pulled = pull_into(dest, folder)
    assert (pulled.code, installed(dest)) == (3, [])
    (told,) = [note for note in pulled.document["notes"] if key in note["text"]]
    assert (told["fault"], told["folder"]) == (True, False)


def test_links_that_somebody_left_at_home_are_not_followed(
    folder: Bucket, dest: Path, tmp_path: Path
) -> None:
    """A link in the place of a job, of a staging, of the memory or of the lock is in the way, and is told."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = leave(folder)
    dest.mkdir()
    (dest / ".mayfly").symlink_to(elsewhere)
    assert pull_into(dest, folder).code == 4
    (dest / ".mayfly").unlink()
    for name in ("lock", "pull.db"):
        (dest / ".mayfly").mkdir(exist_ok=True)
        (dest / ".mayfly" / name).symlink_to(elsewhere / name)
        assert pull_into(dest, folder).code == 4
        (dest / ".mayfly" / name).unlink()
    (dest / ".mayfly" / "staging").mkdir(parents=True)
    (dest / ".mayfly" / "staging" / run).symlink_to(elsewhere)
    (dest / "quotes").symlink_to(elsewhere)
    pulled = pull_into(dest, folder)
    assert (pulled.code, pulled.rows("delayed")) == (3, [(run, "quotes")])
    assert "in the way" in pulled.document["delayed"][0]["problem"]
    assert installed(dest, ["notes"]) == [(run, "notes")]
    (dest / "quotes").unlink()
    assert pull_into(dest, folder).code == 0
    assert list(elsewhere.iterdir()) == []
    assert results(dest / "quotes" / run) == of_job("quotes")


def test_what_lies_in_staging_is_not_believed(folder: Bucket, dest: Path, tmp_path: Path) -> None:
    """Links, strangers and wrong bytes in a staging folder are thrown away."""
    run = leave(folder)
    (tmp_path / "secret").write_text("secret")
    staged = dest / ".mayfly" / "staging" / run
    (staged / "quotes" / "files").mkdir(parents=True)
    (staged / "quotes" / "files" / "page 1.json").symlink_to(tmp_path / "secret")
    (staged / "notes" / "files").mkdir(parents=True)
    (staged / "notes" / "files" / "\U0001f98b.md").write_bytes(b"# MAYFLY")
    (staged / "notes" / "datapackage.json").write_bytes(b"{}")
    assert pull_into(dest, folder).code == 0
    assert results(dest / "quotes" / run) == of_job("quotes")
    assert results(dest / "notes" / run) == of_job("notes")
    assert (tmp_path / "secret").read_text() == "secret"
    is_sound(dest)


def test_a_folder_named_latest_is_not_overwritten(folder: Bucket, dest: Path) -> None:
    """What is no link of ours stays, is told, and the run is there all the same; other jobs do not suffer."""
    runs = [leave(folder, night) for night in NIGHTS[:2]]
    (dest / "notes" / "latest").mkdir(parents=True)
    for _ in range(2):
        pulled = pull_into(dest, folder)
        assert (pulled.code, pulled.notes) == (3, [f"{dest / 'notes' / 'latest'} is no link"])
        assert pulled.document["notes"][0]["folder"]
    for run in runs:
        assert results(dest / "notes" / run) == of_job("notes")
    assert (dest / "quotes" / "latest").readlink() == Path(runs[1])


@pytest.mark.parametrize("options", [(), ("--keep", "9"), ("--keep", "9", "--exec", "true")])
def test_a_bad_job_folder_stops_that_job_and_no_other(
    folder: Bucket, dest: Path, options: tuple[str, ...]
) -> None:
    """It is told once, however many runs wait for it, and they come when it is put right."""
    for night in NIGHTS:
        leave(folder, night)
    dest.mkdir()
    (dest / "quotes").write_text("not a folder")
    for _ in range(2):
        pulled = pull_into(dest, folder, *options)
        assert pulled.code == 3
        assert len(pulled.rows("delayed")) == 1
        assert len(installed(dest, ["notes"])) == len(NIGHTS)
    (dest / "quotes").unlink()
    assert pull_into(dest, folder, *options).code == 0
    assert len(installed(dest)) == 2 * len(NIGHTS)


SOME_PATHS = st.one_of(
    st.sampled_from(EVIL_PATHS),
    st.text(max_size=20).map(lambda text: f"files/{text}"),
    st.text(st.sampled_from("./aA\u00e9e\u0301\x00"), max_size=12).map(lambda t: f"files/{t}"),
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
        "mayfly:role": st.sampled_from(["result", "log", "state", "", None]),
        "mayfly:path": st.sampled_from(["..", "a\\b", None, ""]),
    },
)
FIELDS = st.sampled_from(["$schema", "id", "created", "resources", "mayfly:job", "\x1b"])


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    resources=st.lists(RESOURCES, max_size=4),
    changes=st.dictionaries(FIELDS, JSON, max_size=1) | st.just({}),
    partial=st.booleans(),
)
@pytest.mark.long
def test_two_hundred_forged_packages(
    resources: list[dict[str, Any]], changes: dict[str, Any], *, partial: bool
) -> None:
    """Whatever a committed package says: home stays as it was, or has whole and verified jobs; and it is told."""
    with tempfile.TemporaryDirectory() as name:
        sandbox = Path(name)
        dest, folder = sandbox / "home", Bucket.in_folder(sandbox / "bucket")
        run = leave(folder, jobs={"quotes": {"page 1.json": b"[]"}, "notes": {"n": b"n"}})
        good = leave(folder, NIGHTS[0], {"quotes": {"a": b"a"}})

        def forge(package: dict[str, Any]) -> None:
            for resource in resources:
                add(package, **resource)
            package.update(changes)

        rewrite(folder, run, forge)
        for resource in resources:
            if path_problem(resource["path"]) is None:
                with suppress(OSError):
                    folder.objects.put(JobKey(run, "quotes", resource["path"]).text, b"[]")
        before = outside(sandbox, dest)
        pulled = pull_into(dest, folder, *(["--partial"] if partial else []))
        assert outside(sandbox, dest) == before
        assert pulled.code == (3 if pulled.document["rejected"] else 0)
        is_sound(dest)
        assert {(good, "quotes"), (run, "notes")} <= set(installed(dest))
        if (run, "quotes") in installed(dest):
            there = content(dest / "quotes" / run)
            del there["datapackage.json"]
            listed = {one["path"]: one["hash"] for one in package_of(folder, run)["resources"]}
            assert {
                path: f"sha256:{sha256(data).hexdigest()}" for path, data in there.items()
            } == listed


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["files", "bytes", "name", "package", "status"]), JSON),
    st.dictionaries(st.sampled_from(["jobs", "run", "written", "began", "x"]), JSON),
)
def test_forged_entries(job: dict[str, Any], changes: dict[str, Any]) -> None:
    """An entry with arbitrary values is told or harmless, and stops no other run."""
    with tempfile.TemporaryDirectory() as name:
        dest, folder = Path(name) / "home", Bucket.in_folder(Path(name) / "bucket")
        run, good = leave(folder), leave(folder, NIGHTS[0])

        def change(entry: dict[str, Any]) -> None:
            entry["jobs"][0].update(job)
            entry.update(changes)

        amend_entry(folder, run, change, "jobs")
        pulled = pull_into(dest, folder)
        assert pulled.code in (0, 3)
        assert {(good, "quotes"), (good, "notes")} <= set(installed(dest))
        is_sound(dest)
