"""What changed from a run to the next: by table, by property, by command, and as a hook is told."""

import csv
import io
import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.descriptor import Resource
from agent.contract.ids import Batch
from consumer.diff import (
    MOST_RECORD,
    MOST_TABLES,
    MOST_TEXT,
    Allowance,
    Change,
    Schema,
    Side,
    Sum,
    changes_of,
    compare,
    compare_records,
    pairs,
    records,
)
from consumer.entries import MOST_DESCRIPTOR_BYTES
from consumer.pull.folder import SPARE_BYTES
from tests.bucket.bucket import Bucket
from tests.consumer.forging import rewrite
from tests.consumer.pulling import NIGHTS, leave, pull_into, state_of
from tests.consumer.serving import SECONDS, serving
from tests.parts.command import MAYFLY, call, completed, surroundings
from tests.parts.small_disk import PAGE, SmallDisk
from tests.parts.waiting import wait_until

CHANGED = 'mayfly_job_last_changes{change="changed",job_name="quotes",of="records",schedule="main"}'
OLD: list[dict[str, Any]] = [
    {"id": 1, "price": 5},
    {"id": 2, "price": 6},
    {"id": 3, "price": 7, "seen": "Mon"},
]


def resource(path: str, content: bytes, **said: Any) -> Resource:
    """A result, and what its job says of it."""
    return Resource.model_validate(
        {
            "name": path.lower(),
            "path": path,
            "bytes": len(content),
            "hash": f"sha256:{sha256(content).hexdigest()}",
            "mediatype": "text/plain",
            "mayfly:role": "result",
            **said,
        }
    )


def side(files: Mapping[str, bytes], **said: Any) -> Side:
    """A run that left these files."""
    named = {f"files/{path}": content for path, content in files.items()}
    return Side(
        tuple(resource(path, content, **said) for path, content in named.items()),
        lambda path: io.BytesIO(named[path]),
    )


def keyed(*key: str, **more: Any) -> dict[str, Any]:
    """What a job says of a file whose records have a key."""
    return {"schema": {"fields": [{"name": "id"}], "primaryKey": list(key), **more}}


@pytest.mark.parametrize(
    ("new", "expected", "changes"),
    [
        (OLD, Sum(), ()),
        (OLD[::-1], Sum(), ()),
        ([*OLD, {"id": 4}], Sum(added=1), ()),
        (OLD[1:], Sum(removed=1), ()),
        ([{"id": 1, "price": 9}, *OLD[1:]], Sum(changed=1), (Change(("1",), {"price": (5, 9)}),)),
        (
            [*OLD[:2], {"id": 3, "price": 7}],
            Sum(changed=1),
            (Change(("3",), {"seen": ("Mon", None)}),),
        ),
        ([], Sum(removed=3), ()),
        ([{"id": "1", "price": 5}, *OLD[1:]], Sum(changed=1), (Change(("1",), {"id": (1, "1")}),)),
    ],
)
def test_records_are_compared_by_their_keys(
    new: list[dict[str, Any]], expected: Sum, changes: tuple[Change, ...]
) -> None:
    """In any order, with the fields that changed."""
    table = compare_records(OLD, new, ["id"])
    assert (table.sum, table.changed) == (expected, changes)


def test_ignored_fields_are_no_news() -> None:
    """But a key is never ignored."""
    new = [{**one, "seen": "Tue"} for one in OLD]
    assert compare_records(OLD, new, ["id"]).sum == Sum(changed=3)
    assert compare_records(OLD, new, ["id"], ["seen", "id"]).sum == Sum()


def test_records_without_a_key_of_their_own_are_counted() -> None:
    """Of two with one key the last counts."""
    new = [*OLD, {"price": 1}, {"id": "", "price": 1}, {"id": 1, "price": 5}]
    table = compare_records(OLD, new, ["id"])
    assert (table.sum, table.odd) == (Sum(), 3)


ROWS = st.dictionaries(st.integers(0, 9), st.sampled_from(["a", "b", None]), max_size=8)


@given(old=ROWS, new=ROWS, data=st.data())
def test_the_sum_is_that_of_the_dictionaries(
    old: dict[int, str | None], new: dict[int, str | None], data: st.DataObject
) -> None:
    """However the records are ordered; and the other way around it is the other way around."""
    sides = [[{"k": key, "x": 1, "v": value} for key, value in one.items()] for one in (old, new)]
    first, second = (data.draw(st.permutations(one)) for one in sides)
    both = old.keys() & new.keys()
    expected = Sum(
        len(new.keys() - old.keys()),
        len(old.keys() - new.keys()),
        sum(old[key] != new[key] for key in both),
    )
    table = compare_records(first, second, ["k", "x"])
    back = compare_records(second, first, ["k", "x"])
    assert table.sum == expected
    assert (back.added, back.removed) == (table.removed, table.added)
    assert [one.fields["v"][::-1] for one in back.changed] == [
        one.fields["v"] for one in table.changed
    ]


def read(text: str, path: str, **said: Any) -> list[Mapping[str, Any]]:
    """The records in a text."""
    schema = Schema.of(resource(path, b"", **{**keyed("id"), **said}))
    assert schema is not None
    return list(records(io.StringIO(text, newline=""), schema))


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("id,v\r\n1,a\r\n\r\n2,b\r\n", "x.csv", {}),
        ("id;v\n1;a\n2;b", "x.csv", {"dialect": {"delimiter": ";"}}),
        ("id\tv\n1\ta\n2\tb\n", "x.TSV", {}),
        ('[{"id": "1", "v": "a"},\n {"id": "2", "v": "b"}]\n', "x.json", {}),
        (' [{"id":"1","v":"a"},{"id":"2","v":"b"}]', "x.json", {}),
        ('{"id": "1", "v": "a"}\n\n{"id": "2", "v": "b"}', "x.jsonl", {}),
        (
            "1,a\n2,b\n",
            "x.csv",
            {
                "schema": {"fields": [{"name": "id"}, {"name": "v"}], "primaryKey": "id"},
                "dialect": {"header": False},
            },
        ),
    ],
)
def test_records_are_read_in_each_format(text: str, path: str, said: dict[str, Any]) -> None:
    """With what the job says of how it wrote them."""
    assert read(text, path, **said) == [{"id": "1", "v": "a"}, {"id": "2", "v": "b"}]


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=40000) | st.integers(), max_size=3),
        max_size=6,
    ),
    st.sampled_from([None, 1]),
)
def test_a_json_array_is_read_whole_however_it_is_cut(
    rows: list[dict[str, Any]], indent: int | None
) -> None:
    """Elements that lie across the pieces in which a file is read are not lost."""
    assert read(json.dumps(rows, indent=indent), "x.json") == rows


@pytest.mark.parametrize(
    ("text", "path", "dialect"),
    [
        ('{"id": 1}', "x.json", {}),
        ('[{"id": 1}', "x.json", {}),
        ("[1]", "x.json", {}),
        ("[" * 100_000, "x.json", {}),
        ("nonsense", "x.jsonl", {}),
        ('"x', "x.jsonl", {}),
        ("id,v\n1," + "x" * (MOST_RECORD + 1), "x.csv", {}),
        ("id,v\n1" + "," * (MOST_RECORD + 1), "fields.csv", {}),
        ("id,v\n1" + (',"' + "x" * (MOST_RECORD // 2) + '\n"') * 20, "lines.csv", {}),
        (
            json.dumps({"id": 1, "v": "\u96ea" * (MOST_RECORD // 2)}, ensure_ascii=False),
            "x.jsonl",
            {},
        ),
        ("id\n1\n", "two.csv", {"delimiter": "ab"}),
        ("id\n1\n", "number.csv", {"delimiter": 5}),
        ("id\n1\n", "empty.csv", {"quoteChar": ""}),
        ("id\n1\n", "list.csv", {"escapeChar": []}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_table_is_told(text: str, path: str, dialect: dict[str, Any]) -> None:
    """It is a job's own mistake, which ends neither a pull nor the service; other files are compared all the same."""
    good, said = b'{"id": 1}\n', {**keyed("id"), "dialect": dialect}
    old = side({path: text.encode(), "y.jsonl": good}, **said)
    new = side({path: text.encode() + b" ", "y.jsonl": good + b'{"id": 2}'}, **said)
    found = compare(old, new)
    table, other = found.tables
    assert (bool(table.problem), other.sum) == (True, Sum(added=1))
    assert found.changed == (f"files/{path}", "files/y.jsonl")
    changes = changes_of(found, "a", "b")
    assert (changes.of, changes.sum) == ("records", Sum(added=1, changed=1))


@pytest.mark.parametrize("encoding", [None, "utf-8", "UTF8"])
@pytest.mark.parametrize(
    ("path", "text"), [("x.csv", "id,v\r\n1,{}\r\n"), ("x.json", '[{{"id": "1", "v": "{}"}}]')]
)
def test_a_mark_at_the_beginning_is_no_part_of_a_name(
    path: str, text: str, encoding: str | None
) -> None:
    """Also where the job says the encoding."""
    said = {**keyed("id"), "encoding": encoding}
    old, new = (side({path: text.format(value).encode("utf-8-sig")}, **said) for value in "ab")
    (table,) = compare(old, new).tables
    assert (table.sum, table.odd, table.problem) == (Sum(changed=1), 0, "")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("id,v\n1,a\n", "ID,v\n1,b\n", "its header has no field 'id'"),
        ("id;v\n1;a\n", "id;v\n1;b\n", "its header has no field 'id'"),
        ("id,v\n1,a,x\n", "id,v\n1,a,y\n", "it has a record of more fields than its header"),
        ("id,v,v\n1,a,x\n", "id,v,v\n1,b,x\n", "its header has the field 'v' more than once"),
        ("id,v\n1,a,\n", "id,v\n1,b,\n", ""),
        ("", "id,v\n1,b\n", ""),
    ],
)
def test_a_csv_that_would_lose_values_is_not_compared(old: str, new: str, problem: str) -> None:
    """That is told, and counted as a file."""
    before, after = (side({"x.csv": text.encode()}, **keyed("id")) for text in (old, new))
    found = compare(before, after)
    assert found.tables[0].problem == problem
    changes = changes_of(found, "a", "b")
    assert (changes.of, bool(changes.sum)) == ("files" if problem else "records", True)


def test_files_whose_records_are_not_compared_count_beside_records() -> None:
    """One that came, went or changed counts as one; a table of another name each night is no such file."""
    lines, said = b'{"id": 1}\n', keyed("id")

    def changed(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> tuple[str, Sum]:
        changes = changes_of(compare(side(old, **said), side(new, **said)), "a", "b")
        return changes.of, changes.sum

    table = {"t.jsonl": lines}
    assert changed({**table, "u.jsonl": lines}, table) == ("records", Sum(removed=1))
    assert changed({**table, "x.pdf": b"1"}, {**table, "x.pdf": b"2"}) == (
        "records",
        Sum(changed=1),
    )
    assert changed({"mon.jsonl": lines}, {"tue.jsonl": lines}) == ("records", Sum())
    assert changed(table, {"t.jsonl": lines * 2, "y": b""}) == ("records", Sum(added=1))


@pytest.mark.parametrize("key", [None, [], [1], {}, 3])
def test_without_a_key_only_files_are_compared(key: Any) -> None:
    """Whatever a package says instead."""
    said = {"schema": {"fields": [{"name": "id"}], "primaryKey": key}}
    found = compare(
        side({"a.csv": b"id\n1", "b": b"b"}, **said), side({"a.csv": b"id\n2", "c": b""}, **said)
    )
    changes = changes_of(found, "a", "b")
    assert (changes.of, changes.sum) == ("files", Sum(1, 1, 1))
    assert (found.added, found.removed, found.changed) == (
        ("files/c",),
        ("files/b",),
        ("files/a.csv",),
    )


def test_a_schema_says_which_fields_are_no_news() -> None:
    """A time at which a page was read changes each night."""
    fields = [{"name": "id"}, {"name": "read", "mayfly:ignore": True}]
    said = {"schema": {"fields": fields, "primaryKey": "id"}}
    found = compare(
        side({"a.csv": b"id,read\n1,Mon"}, **said), side({"a.csv": b"id,read\n1,Tue"}, **said)
    )
    changes = changes_of(found, "a", "b")
    assert (changes.of, changes.sum) == ("records", Sum())


def test_a_file_that_has_another_name_each_night_is_found() -> None:
    """By its schema, when no other file has the same."""

    def named(*paths: str) -> dict[str, Resource]:
        return {path: resource(path, b"", **keyed("id")) for path in paths}

    assert [(a.path, b.path) for a, b in pairs(named("mon.csv"), named("tue.csv"))] == [
        ("mon.csv", "tue.csv")
    ]
    assert pairs(named("mon.csv", "x.csv"), named("tue.csv")) == []
    assert pairs(named("mon.csv"), named("tue.csv", "x.csv")) == []
    assert pairs(named("mon.csv"), {"tue.csv": resource("tue.csv", b"")}) == []


class Looked(Resource):
    """A file, and how often somebody looked at what its job says of it."""

    times: ClassVar[Counter[str]] = Counter()

    @property
    def model_extra(self) -> dict[str, Any] | None:
        """What its job says."""
        self.times[self.path] += 1
        return super().model_extra


@pytest.mark.parametrize("said", [{}, keyed("id")], ids=["no-schema", "one-schema"])
def test_each_file_of_another_name_is_looked_at_once(said: dict[str, Any]) -> None:
    """And not with each other one: a run may have a hundred thousand, all with names of their own."""
    Looked.times.clear()
    old, new = (
        {
            path: Looked.model_validate(dict(resource(path, b"", **said).model_dump(by_alias=True)))
            for path in (f"{night}-{number}.csv" for number in range(500))
        }
        for night in ("mon", "tue")
    )
    assert pairs(old, new) == []
    assert len(Looked.times) == Looked.times.total() == 1000


def test_files_of_other_names_are_found_among_many() -> None:
    """Each by its own schema, in the order of their new names."""

    def night(*keys: str) -> dict[str, Resource]:
        return {
            path: resource(path, b"", **keyed(key))
            for path, key in (one.split("=") for one in keys)
        }

    found = pairs(
        night("a.csv=x", "b.csv=y", "c.csv=z", "d.csv=z", "same.csv=x"),
        night("p.csv=y", "q.csv=x", "r.csv=z", "same.csv=y"),
    )
    assert [(a.path, b.path) for a, b in found] == [
        ("same.csv", "same.csv"),
        ("b.csv", "p.csv"),
        ("a.csv", "q.csv"),
    ]


def many(count: int, step: int = 1) -> Iterable[dict[str, Any]]:
    """Records in an order that is not that of their keys."""
    for number in range(count):
        key = number * 7919 % count
        yield {"id": key, "text": f"{key // step}" * 20}


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    """Of a hundred thousand records few are in memory; nothing is left in the folder for the others."""
    tracemalloc.start()
    try:
        table = compare_records(many(100_000), many(100_000, 2), ["id"], temporary=tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert table.sum == Sum(changed=99_999)
    assert len(table.changed) == 20
    assert peak < 12 * 1024**2
    assert list(tmp_path.iterdir()) == []


LARGE = 1_000_000


def large(count: int, more: str = "") -> Iterable[dict[str, Any]]:
    """Records of a megabyte."""
    for number in range(count):
        yield {"id": number * 7 % count, "text": f"{number * 7 % count % 10}" * LARGE + more}


def test_memory_does_not_grow_with_the_size_of_records(tmp_path: Path) -> None:
    """Neither where they are sorted, nor for those that are shown; 60 MB on each side come out right."""
    tracemalloc.start()
    try:
        table = compare_records(large(61), large(60, "x"), ["id"], temporary=tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000
    assert table.sum == Sum(removed=1, changed=60)
    assert len(table.changed) == 20
    assert table.changed[0] == Change(("0",), {"text": ("0" * MOST_TEXT, "0" * MOST_TEXT)})
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_much_to_be_sorted_is_told() -> None:
    """Of all files together, however small each is; files before it are compared."""
    old, new = (
        side({f"{number}.csv": f"id,v\n1,{run}\n".encode() for number in range(3)}, **keyed("id"))
        for run in "ab"
    )
    found = compare(old, new, allowance=Allowance(sorted=300))
    assert [bool(table.problem) for table in found.tables] == [False, True, True]
    assert "too many records" in found.tables[1].problem
    shown = compare(old, new, allowance=Allowance(shown=1)).tables
    assert [(table.sum.changed, len(table.changed)) for table in shown] == [(1, 1), (1, 0), (1, 0)]


def test_a_header_makes_no_more_of_a_file_than_is_allowed() -> None:
    """Each short row has all names of a long header."""
    names = ",".join(f"{number:0100}" for number in range(100))
    text = f"id,{names}\n" + ("1" + "," * 100 + "\n") * 1000
    old, new = (side({"a.csv": text.encode() + more}, **keyed("id")) for more in (b"", b"2,\n"))
    (table,) = compare(old, new, allowance=Allowance(sorted=2 * len(text))).tables
    assert "too many records" in table.problem


def test_no_more_than_a_thousand_files_of_records_are_compared() -> None:
    """Of those that changed; the first of the others is told."""
    same = {f"0{number:04}.csv": b"id\n1\n" for number in range(5)}
    old, new = (
        side(
            same
            | {f"1{number:04}.csv": f"id\n{run}\n".encode() for number in range(MOST_TABLES + 2)},
            **keyed("id"),
        )
        for run in "ab"
    )
    found = compare(old, new)
    assert len(found.tables) == len(same) + MOST_TABLES + 1
    assert [table.path for table in found.tables if table.problem] == [f"files/1{MOST_TABLES}.csv"]
    assert len(found.changed) == MOST_TABLES + 2


def test_a_comparison_does_not_fill_the_disk(tmp_path: Path) -> None:
    """It leaves what a pull leaves free, and is told."""
    with SmallDisk(tmp_path / "disk") as disk:
        disk.leave_pages(SPARE_BYTES // PAGE)
        with pytest.raises(OSError, match="no room"):
            compare_records(large(20), large(20), ["id"], temporary=disk.path)
        assert list(disk.path.iterdir()) == []


def prices(**rows: int) -> bytes:
    """A CSV of prices."""
    text = io.StringIO()
    csv.writer(text).writerows([("shop", "price"), *rows.items()])
    return text.getvalue().encode()


def with_key(package: dict[str, Any]) -> None:
    """Say by which field records are told from each other."""
    schema = {"fields": [{"name": "shop"}, {"name": "price"}], "primaryKey": "shop"}
    package["resources"][0]["schema"] = schema


@pytest.fixture
def nights(folder: Bucket) -> tuple[Bucket, list[str]]:
    """Three nights of a job that says by which field its records are told from each other."""
    runs = []
    for night, rows in zip(
        NIGHTS, ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"b": 3, "c": 4}), strict=False
    ):
        run = leave(folder, night, {"quotes": {"prices.csv": prices(**rows)}})
        rewrite(folder, run, with_key)
        runs.append(run)
    return folder, runs


@pytest.mark.parametrize("pulled", [True, False])
def test_the_command_compares_what_was_pulled_or_what_is_in_the_bucket(
    nights: tuple[Bucket, list[str]], tmp_path: Path, *, pulled: bool
) -> None:
    """The last two, one and the one before it, or two that are named."""
    folder, runs = nights
    if pulled:
        pull_into(tmp_path / "home", folder)
    where = (
        ("--dest", str(tmp_path / "home")) if pulled else ("--history", str(tmp_path / "history"))
    )
    environ = {} if pulled else folder.environ

    def diff(*arguments: str) -> list[str]:
        done = call("diff", "quotes", *arguments, *where, environ=environ)
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()

    assert diff() == [
        f"quotes: {runs[1]} -> {runs[2]}",
        "files: +0, -0, 1 changed",
        "  ~ files/prices.csv",
        "files/prices.csv: records +1, -1, 1 changed",
        '  + {"price": "4", "shop": "c"}',
        '  - {"price": "1", "shop": "a"}',
        '  ~ b: price "2" -> "3"',
    ]
    assert diff(runs[1])[3] == "files/prices.csv: records +0, -0, 0 changed"
    assert diff(runs[0], runs[2])[3] == "files/prices.csv: records +1, -1, 1 changed"
    assert diff("latest") == diff()
    assert diff(runs[0], "latest") == diff(runs[0], runs[2])
    assert diff("--ignore", "price")[3] == "files/prices.csv: records +1, -1, 0 changed"
    assert diff(runs[0]) == [f"quotes: {runs[0]} is the first success, a baseline"]
    assert json.loads("\n".join(diff("--json")))["sum"] == "+1, -1, 1 changed"
    for wrong in (("20261122T064205Z-3f9a1c",), (*runs,)):
        assert call("diff", "quotes", *wrong, *where, environ=environ).exit_code == 2
    assert call("diff", "qotes", *where, environ=environ).exit_code == 2


@pytest.mark.parametrize("kind", ["link", "folder-link", "pipe"])
def test_only_files_of_the_folder_are_read(
    nights: tuple[Bucket, list[str]], tmp_path: Path, kind: str
) -> None:
    """What somebody put in the place of a file that was pulled leads nowhere, and keeps nobody waiting."""
    folder, runs = nights
    dest, other = tmp_path / "home", tmp_path / "other"
    pull_into(dest, folder)
    file = dest / "quotes" / runs[1] / "files" / "prices.csv"
    other.mkdir()
    (other / "prices.csv").write_text("shop,price\nelsewhere,9\n")
    file.unlink()
    if kind == "link":
        file.symlink_to(other / "prices.csv")
    elif kind == "folder-link":
        file.parent.rmdir()
        file.parent.symlink_to(other)
    else:
        os.mkfifo(file)
    done = completed([*MAYFLY, "diff", "quotes", "--dest", str(dest)], environ=surroundings({}))
    assert (done.returncode, "elsewhere" in done.stdout) == (0, False), done.stderr
    assert "files/prices.csv: cannot be compared: " in done.stdout


def test_a_pull_and_its_hook_say_what_changed(
    nights: tuple[Bucket, list[str]], tmp_path: Path
) -> None:
    """Since the run before; the first run is a baseline, and no news.

    A hook hears of each. Of several that come at once without one, the last alone is compared with what is there.
    """
    folder, runs = nights
    calls = tmp_path / "calls"
    pull_into(tmp_path / "home", folder, "--exec", f'echo "[$MAYFLY_CHANGES]" >> "{calls}"')
    assert calls.read_text().splitlines() == ["[]", "[+0, -0, 0 changed]", "[+1, -1, 1 changed]"]
    for options, changes in (("--run", runs[0]), [""]), ((), ["", "+1, -1, 1 changed"]):
        pulled = pull_into(tmp_path / "other", folder, *options)
        assert [one["changes"] for one in pulled.document["installed"]] == changes


SCHEDULES: list[tuple[str, dict[str, int]]] = [
    ("a", {"x": 1}),
    ("b", {"y": 8, "z": 9}),
    ("a", {"x": 1, "w": 1}),
    ("b", {"y": 8, "z": 9}),
]
"""Nights of two schedules, each with a job of one name."""


@pytest.fixture
def two_schedules(folder: Bucket) -> tuple[Bucket, list[str]]:
    """Runs of a job, alternately of one schedule and the other."""
    runs = []
    for night, (schedule, rows) in zip(NIGHTS, SCHEDULES, strict=False):
        batch = Batch.of_slot(schedule, night)
        run = leave(folder, night, {"quotes": {"prices.csv": prices(**rows)}}, batch=batch)
        rewrite(folder, run, with_key)
        runs.append(run)
    return folder, runs


def test_jobs_of_two_schedules_are_compared_each_with_its_own_kind(
    two_schedules: tuple[Bucket, list[str]], tmp_path: Path
) -> None:
    """They have one name, and at home one folder, whose `latest` is the last of both."""
    folder, runs = two_schedules
    calls, home = tmp_path / "calls", tmp_path / "home"
    pull_into(home, folder, "--exec", f'echo "[$MAYFLY_CHANGES]" >> "{calls}"')
    sums = ["", "", "+1, -0, 0 changed", "+0, -0, 0 changed"]
    assert calls.read_text().splitlines() == [f"[{one}]" for one in sums]
    assert (home / "quotes" / "latest").readlink() == Path(runs[3])
    pulled = pull_into(tmp_path / "other", folder)
    assert [one["changes"] for one in pulled.document["installed"]] == sums


@pytest.mark.parametrize("pulled", [True, False])
def test_the_command_compares_runs_of_one_schedule(
    two_schedules: tuple[Bucket, list[str]], tmp_path: Path, *, pulled: bool
) -> None:
    """Unless two are named; where the memory of a folder is lost, nobody knows of schedules."""
    folder, runs = two_schedules
    home = tmp_path / "home"
    if pulled:
        pull_into(home, folder)
    where = ("--dest", str(home)) if pulled else ("--history", str(tmp_path / "history"))

    def heads(*named: str) -> list[str]:
        done = call("diff", "quotes", *named, *where, environ={} if pulled else folder.environ)
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()[:1]

    assert heads() == heads(runs[3]) == [f"quotes: {runs[1]} -> {runs[3]}"]
    assert heads(runs[2]) == [f"quotes: {runs[0]} -> {runs[2]}"]
    assert heads(runs[1]) == [f"quotes: {runs[1]} is the first success, a baseline"]
    assert heads(runs[2], "latest") == [f"quotes: {runs[2]} -> {runs[3]}"]
    if pulled:
        state_of(home).unlink()
        assert heads() == [f"quotes: {runs[2]} -> {runs[3]}"]


def test_what_lies_in_the_place_of_a_package_is_read_to_its_bound(
    nights: tuple[Bucket, list[str]], tmp_path: Path
) -> None:
    """However large it is; it is none of the successes."""
    folder, runs = nights
    home = tmp_path / "home"
    pull_into(home, folder)
    endless = home / "quotes" / "29991231T000000Z-aaaaaa"
    endless.mkdir()
    with (endless / "datapackage.json").open("wb") as stream:
        stream.truncate(MOST_DESCRIPTOR_BYTES * 1000)
    done = completed(
        ["prlimit", f"--as={2 * 1024**3}", *MAYFLY, "diff", "quotes", "--dest", str(home)],
        environ=surroundings({}),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"quotes: {runs[1]} -> {runs[2]}\n")


@pytest.mark.parametrize("pulled", [True, False])
def test_the_service_says_what_changed(
    nights: tuple[Bucket, list[str]], tmp_path: Path, *, pulled: bool
) -> None:
    """Records where they were pulled, on the job's page and as metrics; the files alone where nothing is."""
    folder, runs = nights
    options = ("--pull", str(tmp_path / "files")) if pulled else ()
    for _ in range(2):  # also after a restart
        with serving(tmp_path / "home", folder.environ, *options) as service:
            if pulled:
                looked = service.metrics
                wait_until(lambda: CHANGED in looked(), seconds=SECONDS, what="the changes")  # noqa: B023 -- ends here
                assert looked()[CHANGED] == 1
            else:
                assert "mayfly_job_last_changes" not in service.get("/metrics").text
            page = service.get("/jobs/main/quotes").text
            assert all(run in page for run in runs[1:])
            assert "~ files/prices.csv" in page
            assert ("~ b: price &#34;2&#34; -&gt; &#34;3&#34;" in page) is pulled


def test_without_packages_the_page_is_there(
    nights: tuple[Bucket, list[str]], tmp_path: Path
) -> None:
    """It says why it cannot tell what changed."""
    folder, runs = nights
    folder.objects.delete(f"runs/{runs[1]}/jobs/quotes/datapackage.json")
    with serving(tmp_path / "home", folder.environ) as service:
        page = service.get("/jobs/main/quotes")
    assert (page.status, "not in the bucket any more" in page.text) == (200, True)
