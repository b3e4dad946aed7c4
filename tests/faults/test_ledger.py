"""The checker of the other suites sees what it is there for."""

import hashlib
import json
from pathlib import Path

from tests.faults.ledger import Broken, Held, Looker, examine, files_in

RUN = "20261122T064205Z-3f9a1c"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _bucket() -> tuple[dict[str, Held], list[tuple[str, str, str]]]:
    """Return a bucket with one run of one file, and what its job had finished."""
    resource = {"path": "a/file", "bytes": 3, "hash": f"sha256:{_digest(b'one')}"}
    manifest = json.dumps({"resources": [resource]}).encode()
    entry = {"run_id": RUN, "manifest": {"sha256": _digest(manifest)}}
    objects = {
        f"started/{RUN}.json": b"{}",
        f"runs/{RUN}/a/file": b"one",
        f"runs/{RUN}/datapackage.json": manifest,
        f"index/20261122T064300.000Z-{RUN}.json": json.dumps(entry).encode(),
    }
    held = {key: Held.of(key, data) for key, data in objects.items()}
    return held, [(RUN, "a/file", _digest(b"one"))]


def test_a_sound_bucket_is_all_zeros() -> None:
    """Nothing is wrong where nothing is."""
    assert examine(*_bucket()) == Broken()


def test_a_finished_file_that_no_manifest_has_is_lost() -> None:
    """Also when its run is not there at all."""
    objects, finished = _bucket()
    more = [*finished, (RUN, "a/other", "0"), ("20261122T064206Z-000000", "a/file", "0")]
    assert examine(objects, more) == Broken(lost=2)


def test_a_second_entry_is_counted() -> None:
    """Whatever it says."""
    objects, finished = _bucket()
    objects[f"index/20261122T064300.001Z-{RUN}.json"] = next(
        data for key, data in objects.items() if key.startswith("index/")
    )
    assert examine(objects, finished).twice == 1


def test_an_object_that_is_not_there_is_missing_and_lost() -> None:
    """The manifest names it, and its job had finished it."""
    objects, finished = _bucket()
    del objects[f"runs/{RUN}/a/file"]
    assert examine(objects, finished) == Broken(lost=1, missing=1)


def test_another_content_is_different() -> None:
    """Of a file, even of the same size, and of a manifest."""
    objects, finished = _bucket()
    objects[f"runs/{RUN}/a/file"] = Held.of("", b"two")
    assert examine(objects, finished) == Broken(lost=1, different=1)
    objects, finished = _bucket()
    key = f"runs/{RUN}/datapackage.json"
    objects[key] = Held.of(key, objects[key].text + b" ")
    assert examine(objects, finished).different == 1


def test_orphans_of_a_committed_run_and_runs_that_vanished_are_counted() -> None:
    """An object that the manifest does not name; a marker without an entry."""
    objects, finished = _bucket()
    objects[f"runs/{RUN}/a/orphan"] = Held.of("", b"")
    objects["started/20261122T064206Z-000000.json"] = Held.of("", b"{}")
    assert examine(objects, finished) == Broken(unlisted=1, vanished=1)


def test_a_second_look_reads_what_has_changed(tmp_path: Path) -> None:
    """Also a content of the same size; what is gone is gone."""
    read: list[str] = []

    def get(key: str) -> bytes:
        read.append(key)
        return (tmp_path / key).read_bytes()

    for name in ("stays", "changes", "goes"):
        (tmp_path / name).write_bytes(b"one")
    looker = Looker(lambda: files_in(tmp_path), get)
    looker.look()
    read.clear()
    (tmp_path / "draft").write_bytes(b"two")
    (tmp_path / "draft").rename(tmp_path / "changes")
    (tmp_path / "goes").unlink()
    seen = looker.look()
    assert read == ["changes"]
    assert {key: held.sha256 for key, held in seen.items()} == {
        "stays": _digest(b"one"),
        "changes": _digest(b"two"),
    }
