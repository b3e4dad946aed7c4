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
`consumer.look` reads from the bucket what the pages of a run need.
"""

from consumer.page.file import file_page, may_be_looked_at
from consumer.page.front import (
    evidence_wanted,
    job_page,
    missing_page,
    overview,
    runs_compared,
    runs_page,
)
from consumer.page.given import Health, Problem, Pull, Text, Visit
from consumer.page.render import static_file
from consumer.page.run import run_job_page, run_page

__all__ = [
    "Health",
    "Problem",
    "Pull",
    "Text",
    "Visit",
    "evidence_wanted",
    "file_page",
    "job_page",
    "may_be_looked_at",
    "missing_page",
    "overview",
    "run_job_page",
    "run_page",
    "runs_compared",
    "runs_page",
    "static_file",
]
