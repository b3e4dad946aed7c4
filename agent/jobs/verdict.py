"""How an attempt is judged: exit code, what the job says of itself, what it produced, what was expected of it.

Decisions only.
"""

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from agent.base.units import show_duration, show_size
from agent.config.jobsfile import Expect
from agent.contract.entries import Output
from agent.contract.package import RefusedFile
from agent.contract.results import JobCause, JobStatus
from agent.delivery.sealing import refusal_sentence
from agent.jobs.reason import reason_of_output
from agent.jobs.resultfile import ResultFile

EX_TEMPFAIL = 75
"""sysexits.h: try again later. A job that exits with it always gets one more attempt."""

KILLED = 9
TOO_LARGE = 25
"""SIGXFSZ: it wrote a file beyond its limit. A shell that saw it in its child exits with 128 more."""

SIGN_LINES = 40
"""Lines at the end of the output in which signs of a cause count."""
_OUT_OF_MEMORY = ("MemoryError", "Cannot allocate memory", "std::bad_alloc", "out of memory")
_OUT_OF_DISK = (
    *("No space left on device", "Disk quota exceeded", "ENOSPC"),
    *("File size limit exceeded", "File too large"),
)


_SAYS_READ_ONLY = re.compile(r"[Rr]ead-only file system|\[Errno 13\] Permission denied: '[^/]")
"""What a program prints if its working directory is read-only: in a unit, and for an ordinary user."""
READ_ONLY = 'the release\'s files are read-only; write to $MAYFLY_OUTPUT_DIR, or set output = "."'

_NO_PROGRAM = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
_NOT_EXECUTABLE = frozenset({errno.ENOEXEC, errno.ELOOP, errno.ENAMETOOLONG, errno.E2BIG})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Strays:
    """Files that a job wrote or changed beside its code, where nobody collects them.

    Attributes:
        count: How many.
        first: One of them.
        output: The job's `output` that would have collected it.
        volumes: Where it may have written what went with its stack.
    """

    count: int = 0
    first: str = ""
    output: str = "."
    volumes: tuple[str, ...] = ()

    @property
    def hint(self) -> str:
        """A sentence for a job that delivered nothing, has no `output`, and may have written where nobody sees."""
        if not self.volumes:
            return ""
        return (
            f"it delivered nothing, and what it wrote to {', '.join(self.volumes)} went with its stack;"
            f' set output = "{self.volumes[0]}"'
        )

    @property
    def text(self) -> str:
        """A sentence about them; empty without any."""
        if not self.count:
            return ""
        one = self.count == 1
        files = "1 file beside its code:" if one else f"{self.count} files beside its code, such as"
        return f'it wrote {files} {self.first}; set output = "{self.output}"'


NO_STRAYS = Strays()


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program ended.

    Attributes:
        code: Its exit code; None when a signal ended it, or when it never started.
        signal: The signal that ended it.
        image: Of which image it was, for a container.
        out_of_memory: It was ended because it exceeded its memory limit; False when that is not known.
        out_of_disk: It was ended because it left no room on the disk.
        timed_out: It was ended at its time limit.
    """

    code: int | None = None
    signal: int | None = None
    image: str | None = None
    out_of_memory: bool = False
    out_of_disk: bool = False
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Ended(Exit):
    """The facts of an attempt that ended.

    Attributes:
        interrupted: It was ended because the run was told to stop.
        browser_died: The browser died, or was restarted, while the attempt ran.
        failure: Why it could not be started at all; empty when it was.
        failed_by: The cause of that failure.
        tail: The last lines of its output.
        limit: Its time limit, in seconds.
        strays: What it wrote outside of its output.
        read_only: Its working directory is read-only, for an ordinary user at least.
    """

    interrupted: bool = False
    browser_died: bool = False
    failure: str = ""
    failed_by: JobCause = JobCause.RELEASE
    tail: str = ""
    limit: float = 0.0
    strays: Strays = NO_STRAYS
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Produced:
    """What an attempt left in its output directory: results and their bytes, the first of the refused, and how many."""

    files: int = 0
    bytes: int = 0
    refused: Sequence[RefusedFile] = ()
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """An attempt's status, and whether its exit code asks for another attempt."""

    status: JobStatus
    cause: JobCause | None = None
    message: str = ""
    asks_retry: bool = False


def not_started(error: OSError) -> JobCause:
    """Return why a program could not be started.

    A program that is missing, or is none, is the release's fault. Everything else is the machine's: a full disk, or
    a service manager that is too busy.
    """
    if isinstance(error, _NO_PROGRAM) or error.errno in _NOT_EXECUTABLE:
        return JobCause.RELEASE
    return JobCause.OUT_OF_DISK if error.errno in _NO_ROOM else JobCause.ERROR


def judge(
    ended: Ended,
    reported: ResultFile,
    produced: Produced,
    expect: Expect,
    past: Sequence[Output] = (),
) -> Verdict:
    """Return the verdict on one attempt."""
    # What it wrote elsewhere, or could not, explains why it has no results, and is a note where it has some.
    astray = "" if produced.files else ended.strays.text or _refused_write(ended)
    if ended.interrupted:
        return Verdict(
            JobStatus.INTERRUPTED, JobCause.INTERRUPTED, "stopped because the run was told to stop"
        )
    if ended.timed_out:
        text = f"still running after {show_duration(ended.limit)}"
        return Verdict(JobStatus.TIMED_OUT, JobCause.TIMEOUT, _all(text, reported.message, astray))
    if ended.failure:
        return Verdict(JobStatus.FAILED, ended.failed_by, ended.failure)
    if ended.code == 0:
        broken = broken_expectation(expect, produced, reported.items, past)
        refused = ""
        if produced.refusals and not produced.files:
            refused = refusal_sentence(produced.refused, produced.refusals)
        if broken or refused or astray:
            text = _all(broken, refused, astray, reported.message)
            return Verdict(JobStatus.EMPTY, reported.cause or JobCause.EXPECTATION, text)
        return Verdict(JobStatus.SUCCEEDED, None, reported.message)
    return Verdict(
        JobStatus.FAILED,
        _cause(ended, reported),
        _all(reported.message or _reason(ended), astray or _refused_write(ended)),
        asks_retry=ended.code == EX_TEMPFAIL,
    )


def note_on_strays(
    strays: Strays, verdict: Verdict, produced: Produced, *, has_output: bool
) -> str:
    """Return the note on what a job wrote elsewhere; without results, the verdict's message says it."""
    if produced.files:
        return strays.text
    return strays.hint if verdict.status is JobStatus.SUCCEEDED and not has_output else ""


def broken_expectation(
    expect: Expect, produced: Produced, items: int | None, past: Sequence[Output]
) -> str:
    """Return which expectation the output breaks, as a sentence, or an empty string."""
    if expect.min_files is not None and produced.files < expect.min_files:
        return f"{produced.files} files, expected at least {expect.min_files}"
    if expect.min_bytes is not None and produced.bytes < expect.min_bytes:
        return f"{show_size(produced.bytes)}, expected at least {show_size(expect.min_bytes)}"
    if expect.min_items is not None and (items or 0) < expect.min_items:
        return f"{items or 0} items, expected at least {expect.min_items}"
    if expect.drop is None or not past:
        return ""
    for what, now, before in (
        ("files", produced.files, [run.files for run in past]),
        ("items", items or 0, [run.items for run in past if run.items is not None]),
    ):
        usual = median(before) if before else 0
        if now < expect.drop * usual:
            return f"{now} {what}, fewer than {expect.drop:.0%} of the usual {usual:g}"
    return ""


def wants_retry(verdict: Verdict, number: int, retries: int, *, browser_died: bool) -> bool:
    """Tell whether attempt `number` (from 1) is followed by another.

    Every failure is retried `retries` times. Exit code 75, and an attempt that lost its browser, get one retry in any
    case.
    """
    if verdict.status in {JobStatus.SUCCEEDED, JobStatus.INTERRUPTED, JobStatus.SKIPPED}:
        return False
    granted = 1 if verdict.asks_retry or browser_died else 0
    return number <= max(retries, granted)


def _cause(ended: Ended, reported: ResultFile) -> JobCause:
    if ended.out_of_disk or ended.out_of_memory:
        return JobCause.OUT_OF_DISK if ended.out_of_disk else JobCause.OUT_OF_MEMORY
    if reported.cause or ended.browser_died:
        return reported.cause or JobCause.BROWSER
    # What a program printed long before its end it got over.
    end = "\n".join(ended.tail.split("\n")[-SIGN_LINES:])
    if ended.signal == TOO_LARGE or any(sign in end for sign in _OUT_OF_DISK):
        return JobCause.OUT_OF_DISK
    # A SIGKILL that is not ours comes from the kernel's out-of-memory killer.
    if ended.signal == KILLED or any(sign in end for sign in _OUT_OF_MEMORY):
        return JobCause.OUT_OF_MEMORY
    return JobCause.ERROR


def _reason(ended: Ended) -> str:
    how = f"killed by signal {ended.signal}" if ended.signal else f"exit code {ended.code}"
    if ended.out_of_memory:
        how = "it exceeded its memory limit"
    elif ended.out_of_disk:
        how = "ended because the disk was nearly full"
    elif ended.signal == TOO_LARGE:
        how = "it wrote a file larger than limits.file"
    reason = reason_of_output(ended.tail.split("\n"))
    return f"{how}: {reason}" if reason else how


def _refused_write(ended: Ended) -> str:
    """Return the remedy for a program whose output says that its working directory is read-only."""
    return READ_ONLY if ended.read_only and _SAYS_READ_ONLY.search(ended.tail) else ""


def _all(*texts: str) -> str:
    return "; ".join(filter(None, texts))
