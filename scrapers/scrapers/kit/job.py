"""A job's surroundings, read from its environment, and what it says of itself at the end."""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scrapers.kit.causes import JobFailure, PageFacts


@dataclass(frozen=True, slots=True)
class Result:
    """What a job says of itself when it succeeded.

    Attributes:
        items: How many things it collected.
        message: One sentence for a person.
        metrics: Numbers worth a graph; names are letters, digits and underscores.
    """

    items: int
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Job:
    """Where a job reads and writes.

    Attributes:
        output_dir: Results go here; names that begin with `.` or end in `.part` or `.tmp` are not results.
        state_dir: The job's memory, restored from its last success and kept for the next.
        result_file: Where the result is written as JSON, if someone wants it.
        base_url: The site to scrape, without a slash at the end; empty when it was not given.
        webdriver_url: Where to ask for a browser session.
        downloads_dir: Where the browser's downloads appear; None when the browser shares no disk with the job.
        deadline: Unix seconds at which the job is killed, if it has a limit.
        failed_page: An error that left a browser session, and the page it happened on.
    """

    output_dir: Path
    state_dir: Path
    result_file: Path | None = None
    base_url: str = ""
    webdriver_url: str | None = None
    downloads_dir: Path | None = None
    deadline: float | None = None
    failed_page: tuple[BaseException, PageFacts] | None = None

    def url(self, path: str) -> str:
        """Return the address of `path` below the base URL.

        Raises:
            JobFailure: No base URL was given.
        """
        if not self.base_url:
            raise JobFailure("error", "no site to scrape: set SCRAPE_BASE_URL or give --base-url")
        return f"{self.base_url}/{path}"

    def seconds_left(self, at_most: float) -> float:
        """Return the seconds until the deadline, between zero and `at_most`."""
        if self.deadline is None:
            return at_most
        return min(max(self.deadline - time.time(), 0.0), at_most)


def job_from(environ: Mapping[str, str], arguments: Sequence[str], description: str | None) -> Job:
    """Return the job that the environment and the command line describe; run by hand, both may be nearly empty.

    Raises:
        JobFailure: `MAYFLY_DEADLINE` is not a number.
        SystemExit: The command line asks for help or cannot be read.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base-url", default=environ.get("SCRAPE_BASE_URL", ""), metavar="URL")
    options = parser.parse_args(arguments)
    try:
        deadline = float(environ["MAYFLY_DEADLINE"]) if environ.get("MAYFLY_DEADLINE") else None
    except ValueError as error:
        raise JobFailure("error", "MAYFLY_DEADLINE is not a number of seconds") from error
    return Job(
        output_dir=Path(environ.get("MAYFLY_OUTPUT_DIR") or "output"),
        state_dir=Path(environ.get("MAYFLY_STATE_DIR") or "state"),
        result_file=_path(environ.get("MAYFLY_RESULT_FILE")),
        base_url=options.base_url.rstrip("/"),
        webdriver_url=environ.get("MAYFLY_WEBDRIVER_URL") or None,
        downloads_dir=_path(environ.get("MAYFLY_DOWNLOADS_DIR")),
        deadline=deadline,
    )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
