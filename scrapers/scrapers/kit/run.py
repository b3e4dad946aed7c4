"""The entry of every job: signals, deadline, result file and exit code."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from scrapers.kit.causes import WORTH_A_RETRY, Cause, JobFailure, PageFacts, verdict
from scrapers.kit.job import Job, Result, job_from
from scrapers.kit.output import write_text
from scrapers.kit.stops import Stopped, cleaning_up, watch

FAILED = 1
TRY_AGAIN = 75
"""EX_TEMPFAIL: asks the agent for a retry."""

TOLD_TO_STOP = 143
"""128 + SIGTERM, as a shell reports it."""


def run_job(main: Callable[[Job], Result]) -> NoReturn:
    """Run a job's `main` with what the environment says, write the result file and exit.

    Exits with 0 when `main` returned, 75 when trying again may help, 143 when told to stop, otherwise 1.
    """
    sys.exit(carry_out(main, os.environ, sys.argv[1:]))


def carry_out(
    main: Callable[[Job], Result], environ: Mapping[str, str], arguments: Sequence[str]
) -> int:
    """Return the exit code of `main`, run in the given environment."""
    try:
        job = job_from(environ, arguments, sys.modules[main.__module__].__doc__)
    except JobFailure as error:
        return _failed(None, error)
    with watch(job.deadline):
        try:
            result = main(job)
            with cleaning_up():
                _succeeded(job, result)
                return 0
        except (Exception, Stopped) as error:  # noqa: BLE001 -- the place where every failure becomes a value
            with cleaning_up():
                return _failed(job, error)


def _succeeded(job: Job, result: Result) -> None:
    told = {"items": result.items, "message": result.message, "metrics": dict(result.metrics)}
    _tell(job.result_file, told)
    print(f"{result.items} items. {result.message}".strip(), file=sys.stderr)


def _failed(job: Job | None, error: BaseException) -> int:
    page = _page_of(job, error)
    judged = verdict(error, page)
    message = f"{judged.message}{_place(error)}"
    traceback.print_exception(error)
    print(f"{judged.cause}: {message}", file=sys.stderr)
    if job is not None:
        try:
            _tell(job.result_file, {"cause": judged.cause, "message": message})
        except OSError as unwritten:
            print(f"result file not written: {unwritten}", file=sys.stderr)
    return exit_code(judged.cause)


def exit_code(cause: Cause) -> int:
    """Return the exit code of a job that failed for this cause."""
    if cause == "interrupted":
        return TOLD_TO_STOP
    return TRY_AGAIN if cause in WORTH_A_RETRY else FAILED


def _page_of(job: Job | None, error: BaseException) -> PageFacts | None:
    """Return the page that `error`, or what it was raised from, happened on."""
    if job is None or job.failed_page is None:
        return None
    failed, page = job.failed_page
    return page if failed in (error, error.__cause__) else None


def _place(error: BaseException) -> str:
    """Return ` (quotes.py, line 42)`: the innermost line of a job's own; Selenium's time-outs say nothing else."""
    kit = str(Path(__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((kit, sys.base_prefix, sys.prefix))
        and "<" not in frame.filename
    ]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _tell(path: Path | None, told: Mapping[str, Any]) -> None:
    if path is not None:
        write_text(path, json.dumps(told, ensure_ascii=False) + "\n")
