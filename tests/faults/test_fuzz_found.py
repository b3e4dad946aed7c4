"""What the fuzzers have found, each as the input that broke a reader: refused with words from now on."""

import json
import time

import pytest

from agent.base.redact import Redactor
from agent.config.faults import LONGEST_SHOWN
from agent.config.jobsfile import MAX_JOBS, parse_jobs
from agent.config.overrides import Document, flag_overrides, parse_settings

COMMAND = 'job = [{ name = "a", command = ["x"], %s }]'
BILLIONS = ", ".join(f"k{number} = {json.dumps([*'123456789'])}" for number in range(12))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = " + "1" * 5000, "not valid TOML: Exceeds the limit"),
        ("x = " + "[" * 3000, "not valid TOML: nested too deeply"),
        (COMMAND % ("timeout = 0x" + "f" * 5000), "must be above zero, and below ten years"),
        (COMMAND % ("retries = 0x" + "f" * 5000), ", not a number as large"),
        (COMMAND % 'env = { A = "b\\u0000" }', "has a NUL in a text"),
        (COMMAND % 'matrix = { "\\u0000" = ["b"] }', "has a NUL in a text"),
        (COMMAND % f"matrix = {{ {BILLIONS} }}", f"282429536481 jobs, more than {MAX_JOBS}"),
    ],
)
def test_jobs_files_that_ended_in_a_traceback(text: str, problem: str) -> None:
    """Numbers that Python does not print, depth that it does not follow, what no program or memory takes."""
    jobs, faults = parse_jobs(text, "jobs.toml", "1.2.0")
    assert jobs is None
    assert problem in " ".join(map(str, faults))
    assert all(len(fault.problem) < LONGEST_SHOWN + 100 for fault in faults)


@pytest.mark.parametrize(
    "flag",
    [
        "release.repository=http://[",
        "store.url=s3://[",
        "store.endpoint=http://[::1",
        "store.concurrency=" + "1" * 5000,
        "store.concurrency=" + "[" * 3000,
    ],
)
def test_settings_that_ended_in_a_traceback(flag: str) -> None:
    """Addresses that cannot be taken apart, and numbers of flags."""
    overrides, _ = flag_overrides([flag])
    parsed = parse_settings([Document("", "agent.toml")], overrides)
    assert parsed.faults[0].source.startswith("--set")
    assert parsed.settings.sensitive() == {}


def test_a_secret_of_a_hundred_kilobytes_costs_no_seconds() -> None:
    """Only how a secret begins is a pattern; the whole of it is compared, and what only begins like it stays."""
    secret = "begin" + "x" * 100_000
    began = time.process_time()
    redactor = Redactor({"KEY": secret, "SHORT": "beginning"})
    assert (
        redactor.text(f"a {secret} b beginning c begin d")
        == "a [redacted:KEY] b [redacted:SHORT] c begin d"
    )
    assert time.process_time() - began < 2
