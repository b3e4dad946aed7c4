"""The pages that home serves, as functions of data: each returns HTML, or None where there is no such thing.

| path | function |
|---|---|
| `/` | `overview` |
| `/jobs/<schedule>/<job>` | `job_page` |
| `/runs` | `runs_page` |
| `/runs/<run>` | `run_page` |
| `/runs/<run>/jobs/<job>` | `run_job_page` |
| `/view/<run>/<job>/<path of a resource>` | `file_page`, of what `may_be_looked_at` |
| `/static/<name>` | `static_file` |
| `/status.json` | `consumer.page.document.status_document` |

Links to objects lead to the path that is their key: `/runs/<run>/datapackage.json`, `/runs/<run>/log/<n>.jsonl`,
`/runs/<run>/jobs/<job>/datapackage.json`, `/runs/<run>/jobs/<job>/files/...`, `logs/...` and `evidence/...`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.contract.descriptor import Resource
from agent.contract.entries import Invalid
from agent.contract.package import Package
from consumer.judge import Judged
from consumer.page.given import Health, Text
from consumer.page.words import Language
from consumer.spending import MonthCosts


def overview(
    visit: Visit,
    judged: Judged,
    costs: MonthCosts,
    health: Health,
    packages: Mapping[tuple[str, str], Package] = {},
) -> str:
    """Return the first page.

    Args:
        visit: `?by=day` or `?by=run`: columns of the grid; `?page=2`: more jobs.
        judged: Runs and jobs.
        costs: Of this month.
        health: Of home.
        packages: Of failed jobs, by run and job, for their screenshots: those of `evidence_wanted`, as far as they
            can be had at once.
    """
    raise NotImplementedError


def evidence_wanted(judged: Judged) -> list[tuple[str, str]]:
    """Return runs and jobs whose packages the first page would like to have, at most a few."""
    raise NotImplementedError


def job_page(visit: Visit, judged: Judged, schedule: str, job: str) -> str | None:
    """Return the page of a job; `?page=2`: older runs of it."""
    raise NotImplementedError


def runs_page(visit: Visit, judged: Judged, costs: MonthCosts) -> str:
    """Return the list of runs; `?before=<run>`: those before it."""
    raise NotImplementedError


def run_page(visit: Visit, judged: Judged, costs: MonthCosts, run: str, log: Text) -> str | None:
    """Return the page of a run.

    Args:
        visit: `?level=warning` and `?job=<name>` filter the log.
        judged: Runs and jobs.
        costs: Of the month in which it began.
        run: Its id.
        log: Its parts, one after the other.
    """
    raise NotImplementedError


def run_job_page(
    visit: Visit,
    judged: Judged,
    run: str,
    job: str,
    *,
    package: Package | Invalid | None,
    log: Text,
) -> str | None:
    """Return the page of a job in a run.

    Args:
        visit: `?page=2`: more files.
        judged: Runs and jobs.
        run: The run's id.
        job: Its name.
        package: As `consumer.entries.read_package` returns it; None where there is none.
        log: What its last attempt printed: the last of its resources with the role `log`.
    """
    raise NotImplementedError


def may_be_looked_at(resource: Resource) -> bool:
    """Tell whether `file_page` can show it: CSV, JSON, text, pictures."""
    raise NotImplementedError


def file_page(visit: Visit, run: str, job: str, resource: Resource, text: Text) -> str:
    """Return a page that shows a file: its first `MOST_VIEW_BYTES`, as a table where it is one.

    Args:
        visit: Who asks.
        run: The run's id.
        job: The job's name.
        resource: The file, of the job's package.
        text: Its beginning; not needed for a picture, which the page shows by a link to the object.
    """
    raise NotImplementedError


def missing_page(visit: Visit) -> str:
    """Return the page that says that there is no such page."""
    raise NotImplementedError


def static_file(name: str) -> tuple[str, bytes] | None:
    """Return the media type and content of a file that pages need; None when there is no such file."""
    raise NotImplementedError
