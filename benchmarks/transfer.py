"""Files up and down, against programs that do nothing else.

Mayfly's side is the whole hand-off: reading as if the job were hostile, hashing, sending, comparing with the store's
listing, sealing, committing; and the whole pull: hashes compared, files synced, folders renamed into place.
"""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.contract.layout import job_prefix
from benchmarks.handoff import JOB
from benchmarks.measured import measured
from benchmarks.peers import CHECKED, Endpoint, Peers, peers
from benchmarks.results import ROOT, Case, Findings, Sample, Target, in_turn, ratio
from tests.parts.seaweed import S3Server

LINK = Path(__file__).with_name("link.py")
MILLISECONDS, MBIT = 50, 100
MB = 10**6
AGENT = "mayfly"
PROCESS = "mayfly, with Python's start"
PULL = "mayfly pull"
SHOWN_SECONDS = 0.02
KEPT_BYTES = 50 * MB
"""Of a load: what was fetched of larger ones is removed at once, since the disk is small."""
LOOP_MILLISECONDS = 50.0
HASHED_MB = 1000
FAST = frozenset({"s5cmd", CHECKED, "rclone"})
"""The peers that large loads are measured against; the others take four times as long, as the smaller loads show."""
SLOW_TO_CARRY = 100 * MB
"""Over the slow link, what is larger takes everybody the same half a minute: the fastest peers are enough."""


@dataclass(frozen=True)
class Load:
    """Files to carry.

    Attributes:
        name: What they are.
        sizes: Of the files, in bytes.
        large: Whether only the fastest peers carry them, each round with a server of its own.
    """

    name: str
    sizes: tuple[int, ...]
    large: bool = False

    def make(self, folder: Path) -> None:
        """Write the files, a hundred in a folder, with bytes that do not compress."""
        dice = random.Random(len(self.sizes))  # noqa: S311 -- the same files each time
        for number, size in enumerate(self.sizes):
            path = folder / f"{number // 100:03d}" / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for start in range(0, size, MB):
                    file.write(dice.randbytes(min(MB, size - start)))


def _small(count: int) -> tuple[int, ...]:
    return tuple(2_000 + number * 37 % 58_000 for number in range(count))


THOUSAND = Load("1,000 files of 2 to 60 kB", _small(1_000))
FOUR = Load("four files of 100 MB", (100 * MB,) * 4)
LOADS = (
    THOUSAND,
    Load("10,000 files of 2 to 60 kB", _small(10_000), large=True),
    FOUR,
    Load("one file of 2 GB", (2_000 * MB,), large=True),
    Load(
        "a mix: 500 small, twenty of 3 MB, two of 50 MB",
        _small(500) + (3 * MB,) * 20 + (50 * MB,) * 2,
    ),
)


def loopback(rounds: int) -> Findings:
    """Measure every load over the loopback."""
    found = peers()
    cases = [case for load in LOADS for case in _carry(found, load, rounds, slow=False)]
    targets = (*_small_targets(cases), *_large_targets(cases), *_loop_targets(cases))
    programs = {"the hand-off": _Carrier.profiled_hand_off, f"`{PULL}`": _Carrier.profiled_pull}
    profiles = (
        _profile(found, load, what, profiled)
        for what, profiled in programs.items()
        for load in (THOUSAND, FOUR)
    )
    return Findings(tuple(cases), targets, found.versions(), (*_notes(), *profiles))


def few(rounds: int) -> Findings:
    """Measure two loads against the fastest peers alone: a minute, for `python -m benchmarks quick`."""
    found = peers()
    loads = [replace(load, large=True) for load in (THOUSAND, FOUR)]
    cases = [case for load in loads for case in _carry(found, load, rounds, slow=False)]
    targets = (*_small_targets(cases), *_large_targets(cases))
    return Findings(tuple(cases), targets, found.versions())


def link(rounds: int) -> Findings:
    """Measure what a slow link does to it."""
    found = peers()
    cases = [case for load in (THOUSAND, FOUR) for case in _carry(found, load, rounds, slow=True)]
    notes = (
        (
            f"The link is a relay: {MILLISECONDS} ms for a round trip (also of a new connection), {MBIT} Mbit/s in "
            "each direction for all connections together, no loss, no slow start."
        ),
    )
    return Findings(tuple(cases), (), found.versions(), (*_notes(), *notes))


def _notes() -> tuple[str, ...]:
    return (
        (
            f"`{AGENT}`: the hand-off as it is in a run, whose process is there already. `{PROCESS}`: the same with "
            "Python's start and the imports. Peers and `mayfly pull` include their own start."
        ),
        "Client and server share the machine's cores; the server's part is the same for all.",
        (
            "Event loop: its longest turn. `stall` is by the clock, with what other programs took of the cores; "
            "`busy` is CPU time of its thread alone."
        ),
        _hashing_speed(),
        f"`{CHECKED}` does what a verified pull does, and counts for no figure that is to be reached.",
    )


def _hashing_speed() -> str:
    data, digest = bytes(MB), hashlib.sha256()
    began = time.thread_time()
    for _ in range(HASHED_MB):
        digest.update(data)
    took = time.thread_time() - began
    return (
        f"What nobody who verifies can go below: SHA-256 takes {took:.2f} s of a core for a gigabyte here, as Python "
        "calls it."
    )


def _profile(
    found: Peers, load: Load, what: str, profiled: "Callable[[_Carrier], dict[str, Any]]"
) -> str:
    """Tell where a program spends its time."""
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
        folder = Path(name)
        load.make(folder / "source" / "many")
        with _endpoint(folder / "server", slow=False) as endpoint:
            seen = profiled(_Carrier(found, load, folder, endpoint, slow=False))
    rows = "; ".join(f"{own:.2f} s {row}" for own, _, row in seen["rows"] if own >= SHOWN_SECONDS)
    return f"Where {what} of {load.name} spends {seen['whole']:.2f} s of its main thread, under the profiler: {rows}."


def _carry(found: Peers, load: Load, rounds: int, *, slow: bool) -> list[Case]:
    group = "link" if slow else "loopback"
    up: list[Sample] = []
    down: list[Sample] = []
    loops: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as name:
        folder = Path(name)
        load.make(folder / "source" / "many")
        # A server keeps what was deleted for a while; with one for each round the disk stays small.
        for portion in (1,) * rounds if load.large else (rounds,):
            with _endpoint(folder / "server", slow=slow) as endpoint:
                carrier = _Carrier(found, load, folder, endpoint, slow=slow)
                up += carrier.up(portion)
                down += carrier.down(portion)
                loops += carrier.watched(portion)
            shutil.rmtree(folder / "server")
    return [
        Case(f"up: {load.name}", group, tuple(up)),
        Case(f"down: {load.name}", group, tuple(down)),
        Case(f"event loop: {load.name}", group, tuple(loops)),
    ]


@contextmanager
def _endpoint(folder: Path, *, slow: bool) -> Iterator[Endpoint]:
    with S3Server(folder) as server:
        bucket = server.make_bucket()
        if not slow:
            yield Endpoint(server.url, server, bucket)
            return
        command = [sys.executable, "-S", str(LINK), str(server.port), str(MILLISECONDS), str(MBIT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
            try:
                port = relay.stdout.readline().strip() if relay.stdout else ""
                yield Endpoint(f"http://127.0.0.1:{port}", server, bucket)
            finally:
                relay.kill()


class _Carrier:
    """Carries one load to and from one server."""

    def __init__(
        self, found: Peers, load: Load, folder: Path, endpoint: Endpoint, *, slow: bool
    ) -> None:
        self._slow = slow
        self._peers = found
        self._load = load
        self._folder = folder
        self._endpoint = endpoint
        self._number = 0
        self._report = folder / "report"

    def up(self, rounds: int) -> Iterable[Sample]:
        """Let everybody send it, each time under a new prefix."""
        names = self._peers.uploads(Path(), self._endpoint, "")
        turns: dict[str, Callable[[], Iterable[Sample]]] = {AGENT: self._hand_over}
        return in_turn(turns | {name: self._sender(name) for name in self._who(names)}, rounds)

    def down(self, rounds: int) -> Iterable[Sample]:
        """Let everybody fetch what was handed over once, each time into an empty folder."""
        self._hand_over("home")
        first = self._endpoint.server.keys(self._endpoint.bucket, "home/runs/")[0]
        prefix = f"home/{job_prefix(first.split('/')[2], JOB)}".rstrip("/")
        names = self._peers.downloads(prefix, self._endpoint, Path())
        turns: dict[str, Callable[[], Iterable[Sample]]] = {PULL: self._pull}
        fetchers = {name: self._fetcher(name, prefix) for name in self._who(names)}
        return in_turn(turns | fetchers, rounds)

    def _who(self, names: Iterable[str]) -> list[str]:
        everybody = not (self._load.large or (self._slow and sum(self._load.sizes) > SLOW_TO_CARRY))
        return [name for name in names if name in FAST or everybody]

    def _prefix(self) -> str:
        self._number += 1
        return f"turn-{self._number}"

    def _hand_over(self, prefix: str = "") -> Iterable[Sample]:
        source = self._folder / "source"
        command = [sys.executable, "-m", "benchmarks.handoff", str(source), self._endpoint.bucket]
        command += [prefix or self._prefix(), str(self._report)]
        whole = measured(PROCESS, command, self._endpoint.environ, cwd=ROOT)
        told = json.loads(self._report.read_text())
        inner = {"wall": told["wall"], "cpu": told["cpu"], "peak": whole.figures["peak"]}
        return whole, Sample(AGENT, inner)

    def _sender(self, name: str) -> Callable[[], Iterable[Sample]]:
        def send() -> Iterable[Sample]:
            source = self._folder / "source" / "many"
            command = self._peers.uploads(source, self._endpoint, self._prefix())[name]
            return (measured(name, command, self._endpoint.environ),)

        return send

    def _fetcher(self, name: str, prefix: str) -> Callable[[], Iterable[Sample]]:
        def fetch() -> Iterable[Sample]:
            with self._empty() as target:
                command = self._peers.downloads(prefix, self._endpoint, target)[name]
                sample = measured(name, command, self._endpoint.environ)
                self._check(target)
            return (sample,)

        return fetch

    def _pull(self) -> Iterable[Sample]:
        with self._empty() as target:
            store = f"s3://{self._endpoint.bucket}/home"
            mayfly = str(Path(sys.executable).with_name("mayfly"))
            command = [mayfly, "pull", str(target), "--store", store]
            sample = measured(PULL, command, self._endpoint.environ)
            self._check(target)
        return (sample,)

    def profiled_pull(self) -> dict[str, Any]:
        """Fetch once under the profiler, and return its report."""
        self._hand_over("home")
        with self._empty() as target:
            store = f"s3://{self._endpoint.bucket}/home"
            told = self._profiled("mayfly", "pull", str(target), "--store", store)
            self._check(target)
        return told

    def watched(self, rounds: int) -> Iterable[Sample]:
        """Hand over and fetch, and tell how long the event loops were kept from their work."""
        return in_turn({AGENT: self._hand_over_watched, PULL: self._pull_watched}, rounds)

    def _hand_over_watched(self) -> Iterable[Sample]:
        self._hand_over()
        return (_of_loop(AGENT, self._report),)

    def _pull_watched(self) -> Iterable[Sample]:
        with self._empty() as target:
            store = f"s3://{self._endpoint.bucket}/home"
            command = [sys.executable, "-m", "benchmarks.watched", str(self._report)]
            command += ["pull", str(target), "--store", store]
            measured(PULL, command, self._endpoint.environ, cwd=ROOT)
            self._check(target)
        return (_of_loop(PULL, self._report),)

    def profiled_hand_off(self) -> dict[str, Any]:
        """Hand over once under the profiler, and return its report."""
        source = str(self._folder / "source")
        return self._profiled("handoff", source, self._endpoint.bucket, self._prefix())

    def _profiled(self, *arguments: str) -> dict[str, Any]:
        report = self._folder / "profile"
        command = [sys.executable, "-m", "benchmarks.profiled", str(report), *arguments]
        measured("under the profiler", command, self._endpoint.environ, cwd=ROOT)
        told: dict[str, Any] = json.loads(report.read_text())
        return told

    def _check(self, target: Path) -> None:
        there = sum(1 for path in target.rglob("*.bin") if path.is_file())
        if there < len(self._load.sizes):
            raise RuntimeError(f"{there} files of {len(self._load.sizes)} in {target}")

    @contextmanager
    def _empty(self) -> Iterator[Path]:
        # Files that were removed minutes ago make new ones slow to create on ext4, for whoever comes next.
        target = Path(tempfile.mkdtemp(prefix="target-", dir=self._folder))
        try:
            yield target
        finally:
            if sum(self._load.sizes) > KEPT_BYTES:
                shutil.rmtree(target)


def _of_loop(who: str, report: Path) -> Sample:
    told = json.loads(report.read_text())
    return Sample(who, {name: told[name] for name in ("stall", "busy")})


def _case(cases: Iterable[Case], way: str, load: Load) -> Case:
    return next(case for case in cases if case.name == f"{way}: {load.name}")


def _small_targets(cases: Iterable[Case]) -> Iterator[Target]:
    case = _case(cases, "up", THOUSAND)
    against = case.fastest("wall", but=(AGENT, PROCESS))
    yield ratio("1,000 small files up, wall", case, "wall", 0.9, who=AGENT, against=against)
    yield ratio("1,000 small files up, CPU", case, "cpu", 1.0, who=AGENT, against=against)
    yield _pull_target(cases, "1,000 small files", THOUSAND)


def _large_targets(cases: Iterable[Case]) -> Iterator[Target]:
    case = _case(cases, "up", FOUR)
    against = case.fastest("wall", but=(AGENT, PROCESS))
    yield ratio("four of 100 MB up, wall", case, "wall", 1.0, who=AGENT, against=against)
    yield Target("four of 100 MB up, peak memory", 100.0, "MB", case.values(PROCESS, "peak"))
    yield _pull_target(cases, "four of 100 MB", FOUR)


def _loop_targets(cases: Iterable[Case]) -> Iterator[Target]:
    for who in (AGENT, PULL):
        busy = [case.values(who, "busy") for case in cases if case.name.startswith("event loop")]
        values = tuple(max(each) * 1000 for each in zip(*busy, strict=True))
        yield Target(f"{who}: event loop busy at once, all loads", LOOP_MILLISECONDS, "ms", values)


def _pull_target(cases: Iterable[Case], what: str, load: Load) -> Target:
    case = _case(cases, "down", load)
    against = case.fastest("wall", but=(PULL, CHECKED))
    return ratio(f"{what} pulled, verified, wall", case, "wall", 1.0, who=PULL, against=against)
