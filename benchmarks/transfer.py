"""Files up and down, against programs that do nothing else.

Mayfly's side is the whole hand-off: reading as if the job were hostile, hashing, sending, comparing with the store's
listing, sealing, committing; and the whole pull: hashes compared, files synced, folders renamed into place.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.contract.layout import job_prefix
from benchmarks.handoff import JOB
from benchmarks.loops import loop_figures, stall_target, watching
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
REST_SECONDS, REST_LOOKS = 0.25, 80
KEPT_BYTES = 50 * MB
"""Of a load: what was fetched of larger ones is removed at once, since the disk is small."""
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
HUGE = Load("one file of 2 GB", (2_000 * MB,), large=True)
LOADS = (
    THOUSAND,
    Load("10,000 files of 2 to 60 kB", _small(10_000), large=True),
    FOUR,
    HUGE,
    Load(
        "a mix: 500 small, twenty of 3 MB, two of 50 MB",
        _small(500) + (3 * MB,) * 20 + (50 * MB,) * 2,
    ),
)

UP_AIMS = {THOUSAND.name: 0.95, FOUR.name: 1.0}
"""Of the wall time of the fastest peer, at most."""
DOWN_AIMS = {THOUSAND.name: (1.0, 0.9), FOUR.name: (1.3, 0.5), HUGE.name: (1.3, 0.6)}
"""Of that of the fastest peer, which verifies and syncs nothing, and of the one that does."""
PEAK_AIM = 100.0
UP_CPU_AIM = 1.0

START, READ, SEND = (
    "Python's start, and the command's imports",
    "read, and nothing else",
    "send, and nothing else",
)
GET, PUT = "read by the client, and nothing else", "send by the client, and nothing else"
HASH, HASH_TWO, WRITE = "SHA-256", "SHA-256, two threads", "write and sync, and nothing else"
STEPS = {
    READ: "read",
    GET: "get",
    SEND: "send",
    PUT: "put",
    HASH: "hash",
    HASH_TWO: "hash2",
    WRITE: "write",
}
LIMITS = (START, *STEPS)
IMPORTS = (
    "import consumer.cli.pull, consumer.bucket, consumer.follow, consumer.store, agent.config.locate, "
    "consumer.pull.session, consumer.pull.watch"
)


def loopback(rounds: int) -> Findings:
    """Measure every load over the loopback; `MAYFLY_BENCH_LOADS=0,2` measures some, by their places in `LOADS`."""
    chosen = os.environ.get("MAYFLY_BENCH_LOADS", "")
    loads = [LOADS[int(place)] for place in chosen.split(",")] if chosen else LOADS
    found = peers()
    cases = [case for load in loads for case in _carry(found, load, rounds, slow=False)]
    programs = {"the hand-off": _Carrier.profiled_hand_off, f"`{PULL}`": _Carrier.profiled_pull}
    profiles = (
        _profile(found, load, what, profiled)
        for what, profiled in programs.items()
        for load in (THOUSAND, FOUR)
        if load in loads
    )
    return Findings(tuple(cases), _targets(cases), found.versions(), (*_notes(), *profiles))


def few(rounds: int) -> Findings:
    """Measure two loads against the fastest peers alone: a minute, for `python -m benchmarks quick`."""
    found = peers()
    loads = [replace(load, large=True) for load in (THOUSAND, FOUR)]
    cases = [case for load in loads for case in _carry(found, load, rounds, slow=False)]
    return Findings(tuple(cases), _targets(cases), found.versions())


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
    targets = tuple(_loop_targets(cases))
    return Findings(tuple(cases), targets, found.versions(), (*_notes(), *notes))


def _notes() -> tuple[str, ...]:
    return (
        (
            f"`{AGENT}`: the hand-off as it is in a run, whose process is there already. `{PROCESS}`: the same with "
            "Python's start and the imports. Peers and `mayfly pull` include their own start."
        ),
        (
            "Client and server share the machine's cores; the server's part is the same for all. Each program starts "
            "when the server has done what was left of its work for the one before."
        ),
        (
            "They share the disk as well: before each run all that was written earlier is synced. A pull's own sync is "
            "of the whole file system, and would else wait for what the server was sent just before. Each run's folder "
            "lies apart from files that were removed shortly before: on ext4 they slow down whoever makes new ones."
        ),
        (
            "Event loop: its longest turn. `stall` is by the clock, with what other programs took of the cores; "
            "`busy` is CPU time of its thread alone."
        ),
        (
            "Limits: each step alone, by a program in Python that does nothing else "
            "([`floor.py`](../benchmarks/floor.py)), in the same rounds. The floor is the start, and then the longest "
            "of the steps or, where that is longer, the processor time of all of them and of the server, spread evenly "
            "over the cores: all steps at once, none of which waits for another. A file is read in ranges of 10 MiB "
            "and sent in one request, four at once; of small ones sixteen. `by the client` is the same work done by "
            "obstore, Mayfly's client, instead of plain sockets."
        ),
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
        # On ext4 each folder in it then begins elsewhere: beside inodes of files that were removed minutes ago, which
        # it must not use yet, a new file takes up to ten times the processor time, whoever makes it.
        subprocess.run(["chattr", "+T", name], stderr=subprocess.DEVNULL, check=False)
        load.make(folder / "source" / "many")
        # A server keeps what was deleted for a while; with one for each round the disk stays small.
        for portion in (1,) * rounds if load.large else (rounds,):
            with _endpoint(folder / "server", slow=slow) as endpoint:
                carrier = _Carrier(found, load, folder, endpoint, slow=slow)
                up += carrier.up(portion)
                down += carrier.down(portion)
                loops += carrier.watched(portion)
            shutil.rmtree(folder / "server")
    cases = [
        Case(f"{way}: {load.name}", group, tuple(one for one in some if one.who not in LIMITS))
        for way, some in (("up", up), ("down", down), ("event loop", loops))
    ]
    limits = tuple(one for one in (*up, *down) if one.who in LIMITS)
    return [*cases, Case(f"limits: {load.name}", group, limits)] if limits else cases


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
        self._limited = load.name in DOWN_AIMS and not slow
        self._report = folder / "report"

    def up(self, rounds: int) -> Iterable[Sample]:
        """Let everybody send it, each time under a new prefix."""
        names = self._peers.uploads(Path(), self._endpoint, "")
        turns: dict[str, Callable[[], Iterable[Sample]]] = {AGENT: self._hand_over}
        if self._load.name in UP_AIMS and self._limited:
            turns["limits"] = lambda: self._alone(
                (SEND, PUT), self._urls("put_object", self._prefix())
            )
        return in_turn(turns | {name: self._sender(name) for name in self._who(names)}, rounds)

    def down(self, rounds: int) -> Iterable[Sample]:
        """Let everybody fetch what was handed over once, each time into an empty folder."""
        self._hand_over("home")
        first = self._endpoint.server.keys(self._endpoint.bucket, "home/runs/")[0]
        prefix = f"home/{job_prefix(first.split('/')[2], JOB)}".rstrip("/")
        names = self._peers.downloads(prefix, self._endpoint, Path())
        turns: dict[str, Callable[[], Iterable[Sample]]] = {PULL: self._pull}
        if self._limited:
            urls = self._urls("get_object", f"{prefix}/files")
            turns["limits"] = lambda: self._alone((READ, GET, HASH, HASH_TWO, WRITE), urls)
        fetchers = {name: self._fetcher(name, prefix) for name in self._who(names)}
        return in_turn(turns | fetchers, rounds)

    def _who(self, names: Iterable[str]) -> list[str]:
        everybody = not (self._load.large or (self._slow and sum(self._load.sizes) > SLOW_TO_CARRY))
        return [name for name in names if name in FAST or everybody]

    def _urls(self, action: str, prefix: str) -> list[tuple[str, int]]:
        """Return a signed URL and a size for each file."""
        client, many = self._endpoint.server.client(), self._folder / "source" / "many"
        files = [path for path in sorted(many.rglob("*")) if path.is_file()]
        keys = [f"{prefix}/{path.relative_to(many).as_posix()}" for path in files]
        where = [{"Bucket": self._endpoint.bucket, "Key": key} for key in keys]
        signed = [
            client.generate_presigned_url(action, Params=one, ExpiresIn=36_000) for one in where
        ]
        return [(url, path.stat().st_size) for url, path in zip(signed, files, strict=True)]

    def _alone(self, steps: Iterable[str], urls: list[tuple[str, int]]) -> Iterator[Sample]:
        """Yield what each step of a transfer takes alone."""
        given = self._folder / "urls"
        given.write_text(json.dumps(urls))
        for step in steps:
            with self._empty() as target:
                command = [sys.executable, "-m", "benchmarks.floor", STEPS[step]]
                command += [str(self._report), str(target), str(given)]
                whole = self._measured(step, command, cwd=ROOT)
            yield Sample(step, {**whole.figures, **json.loads(self._report.read_text())})
            if step == READ:
                yield self._measured(START, [sys.executable, "-c", IMPORTS])

    def _measured(self, who: str, command: list[str], cwd: Path | None = None) -> Sample:
        """Run a program as `measured` does; tell what the server used meanwhile as well."""
        # What the server was sent before is on the same disk, and would be written down within the next one's sync.
        os.sync()
        before = _rested(self._endpoint.server.pid)
        sample = measured(who, command, self._endpoint.environ, cwd=cwd)
        server = _cpu_seconds(self._endpoint.server.pid) - before
        return Sample(who, {**sample.figures, "server": server})

    def _prefix(self) -> str:
        self._number += 1
        return f"turn-{self._number}"

    def _hand_over(self, prefix: str = "") -> Iterable[Sample]:
        source = self._folder / "source"
        command = [sys.executable, "-m", "benchmarks.handoff", str(source), self._endpoint.bucket]
        command += [prefix or self._prefix(), str(self._report)]
        whole = self._measured(PROCESS, command, ROOT)
        told = json.loads(self._report.read_text())
        return whole, Sample(AGENT, {**whole.figures, "wall": told["wall"], "cpu": told["cpu"]})

    def _sender(self, name: str) -> Callable[[], Iterable[Sample]]:
        def send() -> Iterable[Sample]:
            source = self._folder / "source" / "many"
            command = self._peers.uploads(source, self._endpoint, self._prefix())[name]
            return (self._measured(name, command),)

        return send

    def _fetcher(self, name: str, prefix: str) -> Callable[[], Iterable[Sample]]:
        def fetch() -> Iterable[Sample]:
            with self._empty() as target:
                command = self._peers.downloads(prefix, self._endpoint, target)[name]
                sample = self._measured(name, command)
                self._check(target)
            return (sample,)

        return fetch

    def _pull(self) -> Iterable[Sample]:
        with self._empty() as target:
            store = f"s3://{self._endpoint.bucket}/home"
            mayfly = str(Path(sys.executable).with_name("mayfly"))
            command = [mayfly, "pull", str(target), "--store", store]
            sample = self._measured(PULL, command)
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
            command = [*watching(self._report), "pull", str(target), "--store", store]
            measured(PULL, command, self._endpoint.environ)
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
    return Sample(who, loop_figures(report))


def _rested(pid: int) -> float:
    """Wait until a server has done what was left of its earlier work; return the processor time it has used."""
    before = _cpu_seconds(pid)
    for _ in range(REST_LOOKS):
        time.sleep(REST_SECONDS)
        now = _cpu_seconds(pid)
        if now - before < REST_SECONDS / 10:
            return now
        before = now
    raise RuntimeError(f"the server, process {pid}, is never idle")


def _cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used (proc(5), `stat`)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _targets(cases: Sequence[Case]) -> tuple[Target, ...]:
    there = {case.name: case for case in cases}
    up = [load for load in UP_AIMS if f"up: {load}" in there]
    down = [load for load in DOWN_AIMS if f"down: {load}" in there]
    return (
        *(target for load in up for target in _up_targets(there, load)),
        *(target for load in down for target in _down_targets(there, load)),
        *_loop_targets(cases),
    )


def _up_targets(cases: Mapping[str, Case], load: str) -> Iterator[Target]:
    case, limits = cases[f"up: {load}"], cases[f"limits: {load}"]
    against, aim = case.fastest("wall", but=(AGENT, PROCESS)), UP_AIMS[load]
    floor = _floor(case, limits, AGENT, (SEND, HASH), against)
    what = f"{load} up"
    yield ratio(f"{what}, wall", case, "wall", aim, who=AGENT, against=against, floor=floor)
    if load == THOUSAND.name:
        yield ratio(f"{what}, CPU", case, "cpu", UP_CPU_AIM, who=AGENT, against=against)
    else:
        yield Target(f"{what}, peak memory", PEAK_AIM, "MB", case.values(PROCESS, "peak"))


def _down_targets(cases: Mapping[str, Case], load: str) -> Iterator[Target]:
    case, limits = cases[f"down: {load}"], cases[f"limits: {load}"]
    fastest = case.fastest("wall", but=(PULL, CHECKED))
    for against, aim in zip((fastest, CHECKED), DOWN_AIMS[load], strict=True):
        floor = _floor(case, limits, PULL, (READ, HASH, WRITE), against)
        what = f"{load} pulled, verified, wall"
        yield ratio(what, case, "wall", aim, who=PULL, against=against, floor=floor)


def _floor(case: Case, limits: Case, who: str, steps: Sequence[str], against: str) -> str:
    """Tell below what nobody gets who does these steps in Python, and how far from that `who` is; by medians."""
    start = limits.median(START, "wall") if who == PULL else 0.0
    theirs, ours = case.median(against, "wall"), case.median(who, "wall")
    floor, alone, used = _at_least(limits, steps)
    carried = (GET if who == PULL else PUT, *steps[1:])
    client = start + _at_least(limits, carried)[0]
    each = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in alone.items())
    first = f"{START} {start:.2f} s, then the longest of: " if start else "the longest of: "
    return (
        f"Floor {(start + floor) / theirs:.2f} x: {start + floor:.2f} s of {who}'s {ours:.2f} s ({first}{each}, "
        f"{used:.2f} s of processor time, the server's with it, on {os.cpu_count()} cores). "
        f"With Mayfly's client in the place of plain sockets {client / theirs:.2f} x: {client:.2f} s."
    )


def _at_least(limits: Case, steps: Sequence[str]) -> tuple[float, Mapping[str, float], float]:
    """Return the seconds that steps take which do not wait for each other, those of each alone, and processor time.

    The first step is the one that the server has its part in.
    """
    alone = {step: limits.median(step, "wall") for step in steps}
    # Two threads hash four files faster, and neither one file nor many small ones.
    alone[HASH] = min(alone[HASH], limits.median(HASH_TWO, "wall"))
    used = sum(limits.median(step, "cpu") for step in steps) + limits.median(steps[0], "server")
    return max(*alone.values(), used / (os.cpu_count() or 1)), alone, used


def _loop_targets(cases: Iterable[Case]) -> Iterator[Target]:
    for who in (AGENT, PULL):
        loops = [case.values(who, "stall") for case in cases if case.name.startswith("event loop")]
        yield stall_target(f"{who}, all loads", [max(each) for each in zip(*loops, strict=True)])
