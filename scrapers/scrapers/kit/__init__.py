"""What the jobs share: a browser from the environment, evidence of failures, causes, files that appear whole.

`run_job(main)` is the entry of a job; inside `main` a job is plain Selenium or plain requests.
"""

from scrapers.kit.browser import browser_session
from scrapers.kit.causes import Cause, JobFailure
from scrapers.kit.downloads import Downloads
from scrapers.kit.job import Job, Result
from scrapers.kit.output import json_lines, keep_file, read_json, write_json, write_text
from scrapers.kit.run import run_job

__all__ = [
    "Cause",
    "Downloads",
    "Job",
    "JobFailure",
    "Result",
    "browser_session",
    "json_lines",
    "keep_file",
    "read_json",
    "run_job",
    "write_json",
    "write_text",
]
