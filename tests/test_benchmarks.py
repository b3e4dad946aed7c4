"""The benchmarks' own parts: figures that are kept, turns that are fair, a link that is slow, clean peaks."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import page, results
from benchmarks.floor import PART
from benchmarks.loops import loop_figures, watching
from benchmarks.measured import FailedError, measured
from benchmarks.quick import compared
from benchmarks.results import Case, Findings, Result, Sample, Target, in_turn, ratio
from tests.parts.command import completed, output_of, surroundings
from tests.parts.seaweed import S3Server

STEPS = {
    "hash": "get_object",
    "hash2": "get_object",
    "write": "get_object",
    "read": "get_object",
    "send": "put_object",
}
LINK = Path(results.__file__).with_name("link.py")
MILLISECONDS = 60


def test_everybody_has_one_turn_in_each_round_and_follows_now_one_and_now_another() -> None:
    """What a program leaves behind burdens another one each time."""
    turns = {name: (lambda name=name: [Sample(name, {"wall": 1.0})]) for name in ("a", "b", "c")}
    order = [sample.who for sample in in_turn(turns, 5)]
    assert all(sorted(order[first : first + 3]) == ["a", "b", "c"] for first in range(0, 15, 3))
    before = {name: {first for first, then in pairwise(order) if then == name} for name in turns}
    assert all(len(others - {name}) == 2 for name, others in before.items()), before


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """A round that was disturbed as a whole does not count more than the others."""
    samples = [("a", 1.0), ("b", 2.0), ("a", 30.0), ("b", 40.0), ("a", 1.0), ("b", 1.0)]
    case = Case("work", "here", tuple(Sample(who, {"wall": wall}) for who, wall in samples))
    target = ratio("time", case, "wall", 0.8, who="a", against="b")
    assert target.values == (0.5, 0.75, 1.0)
    assert target.median == 0.75
    assert target.reached
    assert case.fastest("wall", but=("b",)) == "a"


def test_the_page_says_what_is_reached_and_what_was_never_measured(tmp_path: Path) -> None:
    """Both stand beside each other, and a part without figures names the command that makes them."""
    case = Case("work", "here", (Sample("a", {"wall": 1.0}), Sample("b", {"seconds": 2.0})))
    targets = (
        Target("slow", 1, "s", (2.0, 3.0), floor="Floor 2 s."),
        Target("quick", 1, "s", (0.5,), floor="Floor 0.4 s."),
    )
    machine = {"cores": 2, "processor": "p", "memory_gb": 1, "system": "s", "load": [0.1, 0.2]}
    findings = Findings((case,), targets, {"peer": "1"}, ("a note",))
    found = Result("one", "2026-01-02T03:04:05+00:00", machine, findings)
    titles = {"one": "First", "two": "Second"}
    text = page.write({"one": found, "two": None}, titles, tmp_path / "page.md").read_text()
    assert "| slow | <= 1 s | 2.5 s (2.00 to 3.00) | **not reached**. Floor 2 s. |" in text
    assert "| quick | <= 1 s | 0.5 s | reached |" in text
    assert "Not measured yet: `python -m benchmarks two`." in text


def test_what_was_found_is_read_back(tmp_path: Path) -> None:
    """A part that is not measured again keeps its figures and its date on the page."""
    case = Case("work", "here", (Sample("a", {"wall": 1.0}),))
    findings = Findings((case,), (Target("t", 1, "x", (0.5,), "b"),), {"peer": "1"}, ("a note",))
    found = results.find("part", lambda: findings, tmp_path)
    assert results.kept("part", tmp_path) == found
    assert results.kept("other", tmp_path) is None


def test_a_quick_look_shows_committed_figures_beside_todays() -> None:
    """Each has its ratio; a figure that nobody committed is shown, and fails nothing."""
    machine = {"load": [0, 0]}

    def found(seconds: float, *more: Target) -> Findings:
        case = Case("work", "here", (Sample("a", {"wall": seconds}),))
        return Findings((case,), (Target("tail", 1, "s", (seconds / 2,)), *more))

    committed = Result("one", "2026-01-02T03:04:05+00:00", machine, found(2.0))
    now = found(3.0, Target("head", 1, "x", (0.5,), "peer"))
    lines = [" ".join(line.split()) for line in compared(now, committed)]
    assert lines == [
        "1.50 1.000 -> 1.500 tail (s)",
        "new 0.500 head against peer (x)",
        "1.50 2.000 -> 3.000 work: a, wall",
    ]
    assert all(line.split()[0] == "new" for line in compared(now, None))


def test_a_command_is_watched_as_it_is(tmp_path: Path) -> None:
    """It ends with its own exit code, and its loop's longest turn is told when it ends."""
    report, bucket = tmp_path / "loop", tmp_path / "bucket"
    bucket.mkdir()
    pull = ["pull", str(tmp_path / "home"), "--store", str(bucket)]
    ended = completed([*watching(report), *pull], environ=surroundings({}))
    assert ended.returncode == 0, ended.stderr
    figures = loop_figures(report)
    assert 0 < figures["busy"] <= figures["stall"] < 60
    report.unlink()
    ended = completed([*watching(report), *pull, "--run", "no"], environ=surroundings({}))
    assert ended.returncode == 2, ended.stderr
    assert report.exists()


def test_each_step_of_a_transfer_is_measured_alone(tmp_path: Path, s3_server: S3Server) -> None:
    """It hashes, writes, sends and reads the bytes of each file, with a real server at the other end."""
    content = {"small": os.urandom(5_000), "large": os.urandom(PART + 5)}
    (folder := tmp_path / "written").mkdir()
    report, urls = tmp_path / "report", tmp_path / "urls"
    bucket = s3_server.make_bucket()
    for name, data in content.items():
        s3_server.put(bucket, f"get/{name}", data)
    for step, action in STEPS.items():
        where = [{"Bucket": bucket, "Key": f"{action[:3]}/{name}"} for name in content]
        signed = [s3_server.client().generate_presigned_url(action, Params=one) for one in where]
        urls.write_text(json.dumps([*zip(signed, map(len, content.values()), strict=True)]))
        command = [sys.executable, "-m", "benchmarks.floor", step]
        output_of([*command, str(report), str(folder), str(urls)], at=results.ROOT)
        assert json.loads(report.read_text()).keys() == {"wall", "cpu"}
    sent = [len(s3_server.get(bucket, key)) for key in s3_server.keys(bucket, "put/")]
    assert sorted(sent) == [5_000, PART + 5]
    assert sorted(path.stat().st_size for path in folder.iterdir()) == [5_000, PART + 5]


def test_a_program_is_measured_without_what_started_it() -> None:
    """The peak is its own though this process is larger, and CPU time is that of its children as well."""
    ballast = b"x" * 100_000_000
    busy = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**6))'])"
    sample = measured("small", [sys.executable, "-S", "-c", busy], os.environ)
    assert len(ballast) / 2**20 > 90 > sample.figures["peak"]
    assert sample.figures["cpu"] > 0
    with pytest.raises(FailedError, match="ended with 3"):
        measured("failing", ["sh", "-c", "exit 3"], os.environ)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def test_the_link_delays_limits_and_changes_nothing(echo: int) -> None:
    """A first answer takes two round trips, a megabyte each way the time of its rate, and every byte arrives."""
    command = [sys.executable, "-S", str(LINK), str(echo), str(MILLISECONDS), "40"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        try:
            assert relay.stdout is not None
            port = int(relay.stdout.readline())
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
                link.sendall(b"x")
                assert link.recv(1) == b"x"
                assert time.monotonic() - began >= 2 * MILLISECONDS / 1000
                sent = os.urandom(1_000_000)
                began = time.monotonic()
                threading.Thread(target=link.sendall, args=(sent,), daemon=True).start()
                got = b""
                while len(got) < len(sent):
                    got += link.recv(65536)
                assert got == sent
                assert time.monotonic() - began >= len(sent) / 5_000_000
        finally:
            relay.kill()
