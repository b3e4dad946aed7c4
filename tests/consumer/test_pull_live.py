"""Pulls beside everything that goes on at the same time: runs being made, readers, kills, other pulls, bad lines."""

import functools
import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Self

import pytest

from agent.base.console import columns_of
from agent.contract.ids import is_run_id
from consumer.bucket import ANSWERS_AT_ONCE as AT_ONCE
from consumer.follow import MOST_LOOKS
from consumer.pull.fetch import UNDER_WAY_BYTES
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter
from tests.consumer.pulling import (
    NIGHTS,
    SMALL,
    installed,
    leave,
    pull_into,
    pulling,
    results,
    state_of,
)
from tests.consumer.terminal import at_terminal
from tests.parts.command import MAYFLY, surroundings
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer, BlackHole, Delay, ResetDownload
from tests.parts.waiting import wait_until

MANY = {f"{number:03d}.bin": bytes([number]) * 30_000 for number in range(48)}


def with_sums(seed: int) -> dict[str, bytes]:
    """Forty files, and one that says what they hold."""
    files = {f"{number}.bin": bytes([seed, number]) * number * 499 for number in range(40)}
    sums = "".join(f"{sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    return {**files, "SHA256SUMS": sums.encode()}


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder at home."""
    return tmp_path / "at home"


@pytest.fixture
def distant(s3_proxy: FaultProxy, s3_bucket: str) -> Bucket:
    """A bucket behind the proxy."""
    return Bucket.on_s3(s3_proxy.store, s3_bucket, endpoint=s3_proxy.url)


class Reader:
    """Somebody who looks every 50 ms at what is there, and takes it for whole."""

    def __init__(self, dest: Path) -> None:
        self._dest = dest
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.faults: list[str] = []
        self.looks = 0
        self.known: set[Path] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _read(self) -> None:
        while not self._stop.wait(0.05):
            self.looks += 1
            for job in ("first", "second"):
                for folder in (self._dest / job).glob("*"):
                    self._look_at(folder)

    def _look_at(self, folder: Path) -> None:
        if folder.name == "latest":
            if not (folder / "files" / "SHA256SUMS").exists():
                self.faults.append(f"{folder} leads nowhere")
        elif folder not in self.known:
            self.known.add(folder)
            try:
                sums = (folder / "files" / "SHA256SUMS").read_text().splitlines()
                for line in sums:
                    digest, _, name = line.partition("  ")
                    if sha256((folder / "files" / name).read_bytes()).hexdigest() != digest:
                        self.faults.append(f"{folder / name} is another")
                if len(sums) != 40 or not is_run_id(folder.name):
                    self.faults.append(f"{folder} has {len(sums)}")
            except OSError as error:
                self.faults.append(f"{folder}: {error}")


def test_a_reader_never_sees_a_partial_job(
    distant: Bucket, s3_proxy: FaultProxy, s3_bucket: str, dest: Path, tmp_path: Path
) -> None:
    """Runs are pulled while the next is committed, job by job; whoever looks sees whole jobs, and all of them."""
    bucket = Bucket.on_s3(s3_proxy.store, s3_bucket)
    s3_proxy.inject(Delay(0.02), method="GET", path="/runs/")
    log = tmp_path / "log"
    with Reader(dest) as reader, pulling(dest, distant.environ, "--watch", "1", log=log) as process:
        jobs = {"first": with_sums(1), "second": with_sums(2)}
        runs = [leave(bucket, night, jobs) for night in NIGHTS[:3]]
        wait_until(lambda: len(installed(dest, ("first", "second"))) == 6, what="6 folders")
        wait_until(lambda: len(reader.known) == 6, what="the reader to look at what is complete")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert reader.faults == []
    assert (len(reader.known), reader.looks > 10) == (6, True)
    assert (dest / "first" / "latest").readlink() == Path(runs[-1])
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["run"] for line in told for row in line["installed"]] == [
        run for run in runs for _ in range(2)
    ]


def staged(dest: Path) -> list[Path]:
    """The files that are being fetched, or were."""
    return [path for path in (dest / ".mayfly" / "staging").rglob("*") if path.is_file()]


def test_a_killed_pull_goes_on_where_it_was(
    distant: Bucket, s3_proxy: FaultProxy, dest: Path, tmp_path: Path
) -> None:
    """SIGKILL at any point leaves nothing half visible, and what was verified is not fetched again."""
    runs = [leave(distant, night, {"quotes": MANY, "notes": {}}) for night in NIGHTS[:2]]
    # The second is never complete before all have been killed: what is complete is staged no longer.
    s3_proxy.inject(BlackHole(), method="GET", path=f"{runs[1]}/jobs/quotes/files/047.bin")
    s3_proxy.inject(Delay(0.25), method="GET", path="/quotes/files/")
    for least in (10, 20, 40):
        log = tmp_path / "log"
        with pulling(dest, distant.environ, log=log) as process:
            wait_until(lambda least=least: len(staged(dest)) >= least, what="files")  # type: ignore[misc]
            process.kill()
        for run, job in installed(dest, ("quotes",)):
            assert len(results(dest / job / run)) == len(MANY)
    s3_proxy.heal()
    assert pull_into(dest, distant).code == 0
    for run in runs:
        assert results(dest / "quotes" / run) == MANY
    asked = s3_proxy.count("GET", f"{runs[0]}/jobs/quotes/files/")
    # Each kill loses what was under way, and nothing that was done.
    assert asked <= len(MANY) + 3 * AT_ONCE
    assert staged(dest) == []


def test_no_more_is_asked_for_than_a_slow_line_brings_in_time(
    distant: Bucket, s3_proxy: FaultProxy, dest: Path, tmp_path: Path
) -> None:
    """The bytes on their way are bounded, and not only the number of files."""
    most, size = UNDER_WAY_BYTES // 1024**2, 1024**2
    files = {f"{number}.bin": bytes([number]) * size for number in range(2 * most)}
    leave(distant, NIGHTS[0], {"quotes": files})
    s3_proxy.inject(BlackHole(), method="GET", path="/quotes/files/")

    def asked() -> int:
        return s3_proxy.count("GET", "/quotes/files/")

    with pulling(dest, distant.environ, log=tmp_path / "log") as process:
        wait_until(lambda: asked() >= most, what="as many as there may be")
        time.sleep(1)
        at_once = asked()
        s3_proxy.heal()
        assert process.wait(60) == 0
    assert at_once == most
    assert len(installed(dest)) == 1


def test_an_interrupted_pull_says_so_and_keeps_what_it_has(
    distant: Bucket, s3_proxy: FaultProxy, dest: Path, tmp_path: Path
) -> None:
    """SIGTERM in the middle of a download ends it at once, with exit code 7, and with a report of what has come."""
    come = leave(distant, NIGHTS[0], SMALL)
    leave(distant, NIGHTS[1], {"quotes": MANY})
    s3_proxy.inject(BlackHole(), method="GET", path="/quotes/files/047.bin")
    with pulling(dest, distant.environ, log=tmp_path / "log") as process:
        wait_until(lambda: len(staged(dest)) > 10, what="files of the second run")
        process.terminate()
        assert process.wait(60) == 7
    told = json.loads((tmp_path / "log").read_text())
    assert (told["exit_code"], [row["run"] for row in told["installed"]]) == (7, [come])
    assert installed(dest) == [(come, "quotes")]
    assert "Traceback" not in (tmp_path / "log.err").read_text()
    s3_proxy.heal()
    assert pull_into(dest, distant).code == 0
    assert len(results(dest / "quotes" / "latest")) == len(MANY)


def test_two_pulls_at_once_do_the_work_once(
    distant: Bucket, s3_proxy: FaultProxy, dest: Path, tmp_path: Path
) -> None:
    """The second waits for the first; each job of each run is placed, and its hook called, by one of them."""
    runs = [leave(distant, night, {"quotes": MANY, "notes": {}}) for night in NIGHTS[:2]]
    s3_proxy.inject(Delay(0.05), method="GET", path="/quotes/files/")
    hook = ("--exec", f'echo "$MAYFLY_RUN_ID $MAYFLY_JOB" >> "{tmp_path}/calls"')
    logs = [tmp_path / "one", tmp_path / "two"]
    started = [pulling(dest, distant.environ, *hook, log=log) for log in logs]
    assert [process.wait(60) for process in started] == [0, 0]
    told = [
        (row["run"], row["job"]) for log in logs for row in json.loads(log.read_text())["installed"]
    ]
    everything = sorted((run, job) for run in runs for job in ("quotes", "notes"))
    assert sorted(told) == installed(dest) == everything
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sorted(calls) == [f"{run} {job}" for run, job in everything]
    assert s3_proxy.count("GET", "/quotes/files/") == 2 * len(MANY)


@pytest.mark.parametrize(
    ("columns", "numbers"),
    [
        (200, r"8 \S+Z-\S+: 241 files .*━.* [0-9.]+/7\.2 MB .*/s .*:"),
        (80, r"… .*━.* [0-9.]+/7\.2 MB .*/s .*:"),
        (40, r"… [0-9.]+/7\.2 MB$"),
    ],
)
def test_the_bar_is_one_line_of_its_terminal(
    distant: Bucket, s3_proxy: FaultProxy, dest: Path, columns: int, numbers: str
) -> None:
    """Whatever the job is called, its numbers are shown: in a narrow terminal how much has come, and no bar."""
    job = "prices-of-a-shop-with-a-long-name-8"
    leave(distant, NIGHTS[0], {job: {f"{n:03d}.bin": bytes([n]) * 30_000 for n in range(240)}})
    s3_proxy.inject(Delay(0.25), method="GET", path=f"/{job}/files/")
    code, text = at_terminal("pull", str(dest), environ=distant.environ, columns=columns)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.decode())
    drawn = [one for one in re.split(r"\r|\x1b\[2K", plain) if " MB" in one]
    bars = [one for one in drawn if one.startswith("prices-of-")]
    assert len(bars) > 2
    assert max(map(columns_of, bars)) <= columns
    assert all("\n" not in one for one in bars)
    assert re.search(numbers, bars[-1])


def test_connections_that_break_cost_a_retry(
    distant: Bucket, s3_proxy: FaultProxy, dest: Path
) -> None:
    """A download that is cut off in the middle is fetched again, in this pull or in the next."""
    leave(distant, NIGHTS[0], {"quotes": MANY})
    s3_proxy.inject(ResetDownload(10_000), times=5, method="GET", path="/quotes/files/")
    codes = [pull_into(dest, distant).code for _ in range(2)]
    assert codes[-1] == 0
    assert len(results(dest / "quotes" / "latest")) == len(MANY)


@contextmanager
def watched(
    dest: Path, bucket: Bucket, log: Path, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Watch a bucket; the end of the block ends it."""
    with pulling(dest, bucket.environ, "--watch", "1", *options, log=log) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_watch_outlives_a_store_that_goes_away(
    distant: Bucket, s3_proxy: FaultProxy, dest: Path, tmp_path: Path
) -> None:
    """What fails one pull is told, and the next one tries again; idle pulls say nothing."""
    log = tmp_path / "log"
    leave(distant, NIGHTS[0], SMALL)
    with watched(dest, distant, log) as process:
        wait_until(lambda: len(installed(dest)) == 1, what="the first run")
        s3_proxy.inject(Answer(403, "AccessDenied"), path="list-type=2")
        leave(distant, NIGHTS[1], SMALL)
        wait_until(lambda: len(log.read_text().splitlines()) >= 2, what="a complaint")
        assert len(installed(dest)) == 1
        s3_proxy.heal()
        wait_until(lambda: len(installed(dest)) == 2, what="the second run")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert (len(lines[0]["installed"]), len(lines[-1]["installed"])) == (1, 1)
    assert all("refused to list" in line["unreachable"] for line in lines[1:-1])
    assert [line["exit_code"] for line in lines[1:-1]] == [6] * (len(lines) - 2)


def test_a_watch_names_what_ends_its_pulls(folder: Bucket, dest: Path, tmp_path: Path) -> None:
    """A memory that cannot be used is named on stderr by each pull, also without --json."""
    leave(folder, NIGHTS[0], SMALL)
    state_of(dest).mkdir(parents=True)
    errors = tmp_path / "errors"
    with errors.open("wb") as stream:
        command = [*MAYFLY, "pull", str(dest), "--watch", "1"]
        environ = surroundings(folder.environ)
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=stream)
    with process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.kill()
    assert lines == [b"nothing new, 1 problem\n"] * 2
    assert f"{state_of(dest)} is in the way" in errors.read_text()


def test_a_watch_tries_again_what_the_folder_refused(
    folder: Bucket, dest: Path, tmp_path: Path
) -> None:
    """A folder in the place of `latest` is told until it is gone; then the link comes without any news."""
    run, log = leave(folder, NIGHTS[0], SMALL), tmp_path / "log"
    latest = dest / "quotes" / "latest"
    latest.mkdir(parents=True)
    with watched(dest, folder, log):
        wait_until(lambda: log.read_text().count("is no link") > 1, what="the second complaint")
        latest.rmdir()
        wait_until(latest.is_symlink, what="the link")
    assert latest.readlink() == Path(run)


def test_a_watch_knows_the_whole_bucket_before_it_pulls(
    folder: Bucket, dest: Path, tmp_path: Path
) -> None:
    """More batches than one poll looks into are read first, so that a job of the oldest is known."""
    rare = leave(folder, NIGHTS[0], {"rare": {"a": b"a"}})
    for number in range(MOST_LOOKS):
        began = NIGHTS[1] + timedelta(seconds=number)
        writer = RunWriter(folder.objects, began)
        writer.append(jobs=(writer.job("daily"),))
    with watched(dest, folder, tmp_path / "log", "--job", "rare") as process:
        wait_until(
            lambda: installed(dest, ("rare",)) or process.poll() is not None,
            what="the job, or the end",
        )
    assert installed(dest, ("rare",)) == [(rare, "rare")], (tmp_path / "log.err").read_text()


def test_two_watches_of_one_folder_each_hear_of_what_the_other_read(
    folder: Bucket, dest: Path, tmp_path: Path
) -> None:
    """They share what is known of the bucket, and are for different jobs; each holds the folder while it works."""
    jobs = {"first": {"a": b"a"}, "second": {"a": b"b"}}
    leave(folder, NIGHTS[0], jobs)

    def has_come(count: int) -> bool:
        return len(installed(dest, tuple(jobs))) == count

    with ExitStack() as stack:
        for job in jobs:
            stack.enter_context(watched(dest, folder, tmp_path / job, "--job", job))
        for number, night in enumerate(NIGHTS[:4], start=1):
            if number > 1:
                leave(folder, night, jobs)
            wait_until(functools.partial(has_come, 2 * number), what=f"both jobs of run {number}")
        assert pull_into(dest, folder, "--lock-timeout", "60s").code == 0
