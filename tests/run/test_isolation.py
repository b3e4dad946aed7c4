"""The parts of the isolation that need no systemd; tests/machine/test_isolation.py has the rest."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agent.base.logs import RunLogger
from agent.base.processes import started
from agent.config.jobsfile import Expect
from agent.config.locate import Locations
from agent.config.settings import Limits, Settings
from agent.contract import facts
from agent.contract.results import JobCause
from agent.jobs.interface import Launch, Running
from agent.jobs.isolation.channel import launcher_command
from agent.jobs.isolation.choice import Chosen, choose_isolation
from agent.jobs.isolation.confinement import Confinement, properties, unit_name
from agent.jobs.isolation.diskwatch import DiskWatch, occupied
from agent.jobs.isolation.probe import Reach, reach_of_jobs
from agent.jobs.isolation.process import ProcessIsolation
from agent.jobs.isolation.unit import UnitIsolation, exit_of
from agent.jobs.resultfile import ResultFile
from agent.jobs.verdict import Ended, Exit, Produced, judge, not_started
from tests.bucket.bucket import Bucket
from tests.parts.missing import MissingPartError
from tests.parts.small_disk import ROOMY_BYTES, SmallDisk
from tests.parts.stalled import refused
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, job

LOG = structlog.get_logger()
MIB = 1024**2


def launch(**changes: object) -> Launch:
    """Return a launch of nothing in particular."""
    values: dict[str, object] = {
        "name": "a-1",
        "command": ("true",),
        "environ": {"PATH": os.defpath, "MAYFLY_RUN_ID": "r", "MAYFLY_JOB": "a"},
        "cwd": Path("/"),
    }
    return Launch(**{**values, **changes})  # type: ignore[arg-type]


def become(command: list[bytes], environ: dict[bytes, bytes]) -> tuple[bytes, bytes, int]:
    """Let the launcher become a program; return what it answered, what the program wrote, and its exit code."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            launcher_command(),
            stdin=theirs.fileno(),
            stdout=subprocess.PIPE,
        )
        theirs.close()
        stream = ours.makefile("rb")
        assert int(stream.readline()) == os.getuid()
        variables = [name + b"=" + value for name, value in environ.items()]
        ours.sendall(b"\0".join([b"0", b"%d" % len(command), *command, *variables]))
        ours.shutdown(socket.SHUT_WR)
        output, _ = process.communicate(timeout=30)
        return stream.read(), output, process.returncode


def test_the_launcher_becomes_the_program_with_exactly_its_environment() -> None:
    """Empty words, blanks, line ends and bytes that are no text arrive as they are; signals are as usual."""
    environ = {b"ODD": b"a\n\x1b=\xff \"$HOME'", b"EMPTY": b""}
    said = become([b"/usr/bin/env", b"-0"], environ)
    assert said == (b"", b"ODD=" + environ[b"ODD"] + b"\0EMPTY=\0", 0)
    _, words, _ = become([b"/usr/bin/printf", b"[%s]", b"", b"two words"], environ)
    assert words == b"[][two words]"
    _, status, _ = become([b"/bin/grep", b"SigIgn", b"/proc/self/status"], environ)
    ignored = int(status.split()[1], 16)  # whoever started the tests may have others ignored
    assert not any(ignored & 1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))
    # Why a program cannot be started is the number of the error, which no exit code could tell.
    answer, output, code = become([b"/no/such/program"], {b"A": b"b"})
    assert (int(answer), output, code) == (errno.ENOENT, b"", 1)


ROWS = [
    ("1", "3", "exit-code", Exit(3)),
    ("1", "203", "exit-code", Exit(203)),
    ("2", "15", "signal", Exit(None, 15)),
    ("3", "11", "core-dump", Exit(None, 11)),
    ("2", "9", "oom-kill", Exit(None, 9, out_of_memory=True)),
    ("1", "1", "oom-kill", Exit(1, out_of_memory=True)),
    ("2", "9", "timeout", Exit(None, 9, timed_out=True)),
]


@pytest.mark.parametrize(("code", "status", "result", "expected"), ROWS)
def test_what_systemd_says_of_an_end(code: str, status: str, result: str, expected: Exit) -> None:
    """Exit code or signal, exactly, and whose limit it was."""
    known = {"LoadState": "loaded", "ActiveState": "failed", "Result": result}
    assert exit_of({**known, "ExecMainCode": code, "ExecMainStatus": status}) == expected


@pytest.mark.parametrize("shown", [{}, {"LoadState": "not-found", "ExecMainStatus": "0"}])
def test_a_unit_that_is_not_known_any_more_is_no_success(shown: dict[str, str]) -> None:
    """It is an error, and not exit code 0."""
    with pytest.raises(OSError, match="forgotten"):
        exit_of(shown)


CAUSES = [
    (Ended(signal=9, out_of_memory=True, browser_died=True), JobCause.OUT_OF_MEMORY),
    (Ended(signal=9, out_of_disk=True), JobCause.OUT_OF_DISK),
    (Ended(signal=25), JobCause.OUT_OF_DISK),
    (Ended(code=153, tail="File size limit exceeded"), JobCause.OUT_OF_DISK),
    (Ended(signal=9, timed_out=True), JobCause.TIMEOUT),
]


@pytest.mark.parametrize(("ended", "cause"), CAUSES)
def test_a_limit_that_was_hit_is_the_cause(ended: Ended, cause: JobCause) -> None:
    """Whatever else the job says."""
    assert judge(ended, ResultFile(), Produced(), Expect()).cause is cause


PLACES = Confinement(
    state=Path("/var/lib/mayfly"),
    closed=(Path("/srv/bucket"), Path("/var/lib/mayfly/cache")),
    interpreter=Path("/usr"),
    limits=Limits(),
)


def test_a_unit_has_its_limits_and_sees_only_its_own() -> None:
    """Memory, tasks, file size and time are the configured ones; what is hidden with the state is not closed twice."""
    own = Path("/var/lib/mayfly/spool/r/jobs/a/1/output")
    rules = properties(launch(memory=2**30, seconds=90.0, writable=(own,)), PLACES)
    assert {"MemoryMax=1073741824", "TasksMax=1024", "LimitFSIZE=4294967296"} <= set(rules)
    assert {"TimeoutStartSec=150", "ProtectHome=yes", f"BindPaths={own}"} <= set(rules)
    closed = next(rule for rule in rules if rule.startswith("InaccessiblePaths="))
    assert "-/srv/bucket" in closed
    assert "-/etc/mayfly" in closed
    assert "/var/lib/mayfly/cache" not in closed
    assert not any(rule.startswith("BindReadOnlyPaths=") for rule in rules)
    # What is in a home stays visible: that is emptied, and not closed.
    rules = properties(launch(readable=(Path("/root/.local/state/mayfly/r/tree"),)), PLACES)
    assert "ProtectHome=tmpfs" in rules


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/\n"), min_size=1))
def test_no_path_adds_a_word_to_a_property(name: str) -> None:
    """Blanks, colons, quotes and backslashes stay within their word."""
    rules = properties(launch(writable=(Path("/s") / name,)), PLACES)
    value = next(rule for rule in rules if rule.startswith("BindPaths=")).removeprefix("BindPaths=")
    inner = value.removeprefix('"').removesuffix('"')
    if inner != value:
        inner = inner.replace('\\"', "").replace("\\\\", "")
        assert '"' not in inner
    else:
        assert not set(value) & set(" \t:\"'\\")


def test_units_have_names_that_systemd_takes() -> None:
    """The longest job, in the last attempt: fewer than systemd's 255 characters, and lower case."""
    name = unit_name("20261122T064205Z-3f9a1c", f"{'x' * 63}-11")
    assert name == f"mayfly-job-20261122t064205z-3f9a1c-{'x' * 63}-11.service"
    assert len(name) < 255


def test_what_folders_occupy_is_counted_without_following_links(tmp_path: Path) -> None:
    """Blocks on disk, of files in folders in folders; a hole and a link count nothing."""
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/a").write_bytes(b"x" * 1_000_000)
    with (tmp_path / "hole").open("wb") as stream:
        stream.truncate(10**9)
    (tmp_path / "link").symlink_to("/usr")
    assert 1_000_000 <= occupied([tmp_path, tmp_path / "gone"]) < 1_200_000


def test_an_entry_that_cannot_be_looked_at_hides_no_other(tmp_path: Path) -> None:
    """A job whose files come and go occupies what the others of its files do: else its neighbour would be ended."""
    folder, depth = tmp_path, os.open(tmp_path, os.O_RDONLY)
    while room := os.pathconf(tmp_path, "PC_PATH_MAX") - 40 - len(os.fsencode(folder)):
        name = "x" * min(200, room - 1)
        if not name:
            break
        os.mkdir(name, dir_fd=depth)
        inner = os.open(name, os.O_RDONLY, dir_fd=depth)
        os.close(depth)
        folder, depth = folder / name, inner
    names = [str(number) for number in range(20)]
    # With the longer ones the path is too long for a stat.
    for name in (*names, *(name.ljust(100, "-") for name in names)):
        with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=depth), "wb") as stream:
            stream.write(bytes(100_000))
    os.close(depth)
    assert 20 * 100_000 <= occupied([folder]) < 40 * 100_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk on which nobody else writes."""
    with SmallDisk(tmp_path / "disk") as disk:
        yield disk.path


def watched(folder: Path, size: int, run: str = "r") -> Launch:
    """Return the launch of a job that has written so many bytes, and is called as its folder is."""
    folder.mkdir()
    (folder / "file").write_bytes(bytes(size))
    environ = {"MAYFLY_RUN_ID": run}
    return launch(name=folder.name, writable=(folder,), environ=environ)


async def test_only_the_job_that_occupies_most_is_ended(disk: Path) -> None:
    """When less is free than must be, the small neighbour is left alone; a signal that was lost is sent again."""
    ended: list[str] = []
    watch = DiskWatch(free=ROOMY_BYTES - 10 * MIB, log=LOG)
    async with (
        watch.watching(watched(disk / "small", 1000), lambda: ended.append("small")),
        watch.watching(watched(disk / "large", 20 * MIB), lambda: ended.append("large")),
    ):
        await asyncio.to_thread(wait_until, lambda: len(ended) > 1, what="a job to be ended twice")
    assert set(ended) == {"large"}


async def test_no_job_is_ended_for_what_others_wrote(disk: Path) -> None:
    """A container's files, or those of a job that has ended: that all jobs are ended frees nothing. The log says it."""
    ended: list[str] = []
    events: list[dict[str, object]] = []
    watch = DiskWatch(free=ROOMY_BYTES - 60 * MIB, log=RunLogger(events.append).log)
    async with watch.watching(watched(disk / "beside", 20 * MIB), lambda: ended.append("beside")):
        (disk / "container").write_bytes(bytes(150 * MIB))
        await asyncio.to_thread(wait_until, lambda: events, what="a look at the disk")
    assert ([event["event"] for event in events], ended) == (["disk.full_of_other"], [])


def _removed(group: Path) -> bool:
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.fixture
def in_unit() -> Iterator[Callable[[str, int], None]]:
    """Puts a process into the control group that a unit would have."""
    made: list[Path] = []

    def put(name: str, pid: int) -> None:
        tops = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup"))
        top = next((top for top in tops if (top / "cgroup.procs").exists()), None)
        if top is None or os.geteuid() != 0:
            raise MissingPartError("control groups", "making one needs root and a mount of them")
        made.append(top / name)
        made[-1].mkdir()
        (made[-1] / "cgroup.procs").write_text(str(pid))

    yield put
    for group in made:
        wait_until(partial(_removed, group), what="the end of a group's processes")


async def test_a_file_without_a_name_counts_for_the_job_that_holds_it_open(
    disk: Path, in_unit: Callable[[str, int], None]
) -> None:
    """Whoever fills the disk cannot have a neighbour ended for it."""
    ended: list[str] = []
    run = f"r{os.getpid()}"
    holder, beside = watched(disk / "holder", 0, run), watched(disk / "beside", 20 * MIB, run)
    script = f"exec 3>x; rm x; head -c {60 * MIB} /dev/zero >&3; echo; exec sleep 60"
    async with started(["sh", "-c", script], environ=os.environ, cwd=disk / "holder") as process:
        in_unit(unit_name(run, "holder"), process.pid)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"\n"
        watch = DiskWatch(free=ROOMY_BYTES - 10 * MIB, log=LOG)
        async with (
            watch.watching(holder, lambda: ended.append("holder")),
            watch.watching(beside, lambda: ended.append("beside")),
        ):
            await asyncio.to_thread(wait_until, lambda: ended, what="a job to be ended")
    assert set(ended) == {"holder"}


async def test_a_probe_says_what_a_program_can_reach() -> None:
    """A listener is reachable, a closed port is not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        there = await reach_of_jobs(ProcessIsolation(), "r", os.environ, ["127.0.0.1"], port)
    with refused() as address:
        port = int(address.rpartition(":")[2])
        gone = await reach_of_jobs(ProcessIsolation(), "r", os.environ, ["127.0.0.1"], port)
    assert (there, gone) == (Reach.REACHABLE, Reach.UNREACHABLE)


class _Hanging(ProcessIsolation):
    """A machine on which a program takes longer than a probe may."""

    @asynccontextmanager
    async def start(self, launch: Launch) -> AsyncIterator[Running]:
        async with super().start(launch) as running:
            yield running
        raise TimeoutError  # as the limit of the probe does


async def test_a_probe_that_takes_too_long_says_so() -> None:
    """Why jobs get another isolation is in the warning that the run ends with."""
    with pytest.raises(OSError, match="did not end within 75 s"):
        await reach_of_jobs(_Hanging(), "r", os.environ, [])


async def chosen(folder: Path, isolation: str, path: str, **more: str) -> Chosen:
    """Return the isolation of a computer without a metadata service (if `more` names none), by its PATH."""
    settings = Settings.model_validate({"limits": {"isolation": isolation}})
    places = Locations(folder, folder / "cache", folder / "bucket")
    environ = {"PATH": path, "AWS_EC2_METADATA_DISABLED": "true", **more}
    return await choose_isolation(settings, places, "r", environ, LOG)


async def test_a_computer_without_a_metadata_service_is_not_asked_for_one(tmp_path: Path) -> None:
    """The manifest says `absent`, nobody is warned, and nothing is started to find out."""
    found = await chosen(tmp_path, "process", os.defpath)
    assert found.record == facts.Isolation(
        backend="process", metadata=Reach.ABSENT, containers=Reach.ABSENT
    )
    assert found.warnings == ()


async def test_units_that_were_asked_for_by_name_are_not_replaced(tmp_path: Path) -> None:
    """Where there is no systemd every job fails, and the run says why: better none than an open one."""
    found = await chosen(tmp_path, "systemd", str(tmp_path))
    assert found.record.backend == "systemd"
    assert "no job can run in a unit of its own" in found.warnings[0]


async def test_where_nothing_can_be_tried_a_run_says_that_it_does_not_know(tmp_path: Path) -> None:
    """On a machine of EC2 no word would be taken for a fence that holds."""
    ec2 = {"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://nowhere"}
    found = await chosen(tmp_path, "systemd", str(tmp_path), **ec2)
    assert (found.record.metadata, found.record.containers) == (Reach.UNKNOWN, Reach.UNKNOWN)
    _, jobs, containers = found.warnings
    assert "whether jobs can reach the metadata service" in jobs
    assert "containers may reach the metadata service" in containers


async def test_a_machine_without_systemd_is_not_the_releases_fault(tmp_path: Path) -> None:
    """A missing program is the release's if it is the job's: a good release would be marked bad for the machine."""
    units = UnitIsolation(PLACES, {"PATH": str(tmp_path)}, LOG)
    with pytest.raises(OSError, match="systemd-run does not start") as caught:
        async with units.start(launch()):
            pass
    assert not_started(caught.value) is JobCause.ERROR


async def test_what_systemd_complains_of_need_not_end_with_a_whole_character(
    tmp_path: Path,
) -> None:
    """Its beginning is kept, and systemd writes more than ASCII; no defect hides why there is no unit."""
    complains = "#!/bin/sh\nprintf '%499s\\342\\200\\246' 'No unit: '; exit 1\n"
    for name, text in (("systemd-run", complains), ("systemctl", "#!/bin/sh\nexit 1\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    units = UnitIsolation(PLACES, {"PATH": f"{tmp_path}:{os.defpath}"}, LOG)
    with pytest.raises(
        OSError, match=r"systemd did not start its unit .*No unit: \N{REPLACEMENT CHARACTER}"
    ):
        async with units.start(launch()):
            pass


@pytest.mark.parametrize(
    ("isolation", "kind"), [("systemd", "container"), ("process", "chromedriver")]
)
def test_jobs_in_units_get_no_chromedriver_of_the_agents_user(
    bench: Bench, isolation: str, kind: str
) -> None:
    """It would start any program for them, as root and outside of their units; processes lose nothing by it."""
    bench.with_browser()
    bench.environ["DOCKER_HOST"] = "unix:///nowhere.sock"
    bench.release("v1", job("looks", "true", browser=True))
    run = bench.run(limits__isolation=isolation)
    assert {event["browser"] for event in run.events("browser.stopped")} == {kind}


LARGE = """
import os, resource, time
# This limit is set once the program has started: nobody writes a file that is too large in the moment before.
while resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY:
    time.sleep(0.01)
open(os.environ["MAYFLY_OUTPUT_DIR"] + "/x", "wb").write(bytes(3_000_000))
"""


def test_a_file_beyond_the_limit_is_out_of_disk(bench: Bench, bucket: Bucket) -> None:
    """As a plain process, too; what was written up to the limit is delivered all the same."""
    bench.release("v1", job("large", ["python3", "-c", LARGE]))
    run = bucket.run(bench.run(limits__file="1MiB", limits__isolation="process").run_id)
    told = run.job("large")
    assert (told["status"], told["cause"]) == ("failed", "out_of_disk")
    assert len(run.files["large/x"]) == 2**20
