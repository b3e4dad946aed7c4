"""SIGKILL at the n-th system call of the real `mayfly run` that changes the disk or speaks to the network, by strace.

Only the agent is killed: strace follows its threads, and lets go of a child when that becomes another program (git, a
job). strace counts the calls of each thread by itself, so the one that dies is the first thread that comes to its n-th;
n goes from 1 to the most that any thread made in a run that was watched before. The call that kills is not done.

In two forms, as the crash points: the disk is kept, or wiped between the kill and the next run, of the same shard then.

`MAYFLY_SYSCALLS=all` for every n, `MAYFLY_SYSCALLS=40` for so many cases of each form; a single one again:
`MAYFLY_SYSCALLS='rename 7'`.
"""

import os
import random
import re
import shutil
import sqlite3
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bucket.sound import Broken
from tests.faults.figures import Figures
from tests.faults.scenario import LASTS, Scenario
from tests.parts.missing import program
from tests.parts.seaweed import S3Server

WANTED = os.environ.get("MAYFLY_SYSCALLS", "")
SEED = 1
SAMPLE = 4
"""Cases of the short form, for each kind of bucket and disk."""
AT_ONCE = {"kept": 2, "wiped": 4}
"""Computers at once; those whose disk is wiped mostly wait for a job."""
HOURS = 6 * 3600

CALLS = (
    "fsync", "fdatasync", "syncfs", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "link", "linkat",
    "symlink", "symlinkat", "mkdir", "mkdirat", "ftruncate", "pwrite64",
    "sendto", "sendmsg", "sendmmsg", "writev", "connect",
)  # fmt: skip


@dataclass
class Case:
    """What became of a kill at one system call.

    Attributes:
        invalid: How many runs in the spool had no database that was whole.
        slow: Whether more than two runs were needed.
    """

    call: str
    number: int
    killed: bool
    invalid: int
    slow: bool
    broken: Broken


def _strace(scenario: Scenario, *options: str) -> list[str]:
    """Return a run's command line under strace."""
    follow = ("-f", "-b", "execve", "-qq", "-o", str(scenario.bench.folder / "trace"))
    return [program("strace"), *follow, *options, *scenario.command()]


def _most(scenario: Scenario) -> dict[str, int]:
    """Return how often the busiest thread of a run made each of the calls."""
    scenario.release()
    assert not scenario.killed(_strace(scenario, "-e", f"trace={','.join(CALLS)}"))
    trace = (scenario.bench.folder / "trace").read_text(errors="replace")
    made = Counter(re.findall(r"^(\d+) +(\w+)\(", trace, re.MULTILINE))
    most: dict[str, int] = {}
    for (_, call), times in made.items():
        most[call] = max(times, most.get(call, 0))
    return most


def _cases(most: dict[str, int]) -> list[tuple[str, int]]:
    """Return the calls and numbers to kill at."""
    every = [(call, number) for call in CALLS for number in range(1, most.get(call, 0) + 1)]
    if WANTED == "all":
        return every
    if WANTED and not WANTED.isdecimal():
        call, number = WANTED.split()
        return [(call, int(number))]
    return random.Random(SEED).sample(every, min(len(every), int(WANTED or SAMPLE)))


def _invalid(spool: Path, aside: Path) -> int:
    """Return how many runs in the spool have no database that is whole."""
    invalid = 0
    for run in spool.glob("[0-9]*"):
        shutil.copytree(run, copy := aside / "copy", ignore=_all_but_databases)
        try:
            with closing(sqlite3.connect(copy / "run.sqlite")) as database:
                invalid += database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
        except sqlite3.Error:
            invalid += 1
        shutil.rmtree(copy)
    return invalid + sum(1 for _ in (spool / "broken").glob("*"))


def _all_but_databases(_: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith("run.sqlite")]


def _kill(scenario: Scenario, call: str, number: int, *, wiped: bool) -> Case:
    """Kill a run at a call, and have the next ones finish it, or do what it leaves undone."""
    before = scenario.examine()
    scenario.release()
    inject = f"inject={call}:signal=KILL:when={number}"
    killed = scenario.killed(_strace(scenario, "-e", f"trace={call}", "-e", inject))
    spool = scenario.bench.state / "spool"
    invalid = _invalid(spool, scenario.bench.folder)
    if wiped:
        scenario.wipe()
    slow = scenario.converge() > 2
    invalid += _invalid(spool, scenario.bench.folder)
    return Case(call, number, killed, invalid, slow, scenario.examine() - before)


@pytest.mark.timeout(HOURS)
@pytest.mark.parametrize("disk", ["kept", "wiped"])
@pytest.mark.parametrize("kind", ["folder", "S3"])
@pytest.mark.long
def test_killed_at_every_system_call(
    tmp_path: Path, s3_server: S3Server, kind: str, disk: str
) -> None:
    """Whatever call was the last: the spool is valid, and the next run, or the one after it, delivers what must be."""
    server = s3_server if kind == "S3" else None
    wiped = disk == "wiped"
    lasts = LASTS if wiped else 0.0
    computers = [
        Scenario.make(
            tmp_path / f"computer-{number}", f"calls {SEED}", server, early=lasts, shard=wiped
        )
        for number in range(AT_ONCE[disk])
    ]
    began = time.monotonic()
    cases = _cases(_most(computers[0]))

    def chain(number: int) -> list[Case]:
        mine = cases[number :: len(computers)]
        return [_kill(computers[number], *case, wiped=wiped) for case in mine]

    with ThreadPoolExecutor(len(computers)) as pool:
        done = [case for cases in pool.map(chain, range(len(computers))) for case in cases]
    _report(kind, disk, done, time.monotonic() - began)
    wrong = [
        f"MAYFLY_SYSCALLS='{case.call} {case.number}': {case}"
        for case in done
        if case.invalid or case.slow or case.broken != Broken()
    ]
    wrong += [f"{one.wiped}" for one in computers if one.wiped.unreadable]
    assert not wrong, "\n".join(wrong)
    assert any(case.killed for case in done)


def _report(kind: str, disk: str, done: list[Case], seconds: float) -> None:
    tables = {("folder", "kept"): "2", ("S3", "kept"): "2b", ("folder", "wiped"): "2c"}
    which = "every" if WANTED == "all" else "some"
    figures = Figures(
        point=tables.get((kind, disk), "2d"),
        title=f"SIGKILL at the n-th system call, for {which} n; the bucket is in {kind}, the disk {disk}",
        command=f"MAYFLY_SYSCALLS={WANTED or SAMPLE} pytest tests/faults/test_system_calls.py -s",
        columns=(
            *("system call", "cases", "killed", "invalid spools", "finished files lost"),
            *("committed twice", "other faults", "not converged within two runs"),
        ),
        seed=SEED,
        long=WANTED == "all",
    )
    for call in CALLS:
        cases = [case for case in done if case.call == call]
        if not cases:
            continue
        broken = sum((case.broken for case in cases), Broken())
        figures.row(
            call,
            len(cases),
            sum(case.killed for case in cases),
            sum(case.invalid for case in cases),
            broken.lost,
            broken.twice,
            broken.wrong + broken.vanished,
            sum(case.slow for case in cases),
        )
    figures.write()
    sys.stdout.write(f"\n{seconds:.0f} s\n")
