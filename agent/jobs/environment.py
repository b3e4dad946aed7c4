"""The environment of a job: exactly the contract, nothing else of the agent's. Decisions only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.browser.interface import WATCH
from agent.config.jobsfile import Job, matrix_environment

FALLBACK_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class AttemptPaths:
    """Where an attempt works, and what it is told.

    Attributes:
        run_id: The run.
        batch: Its batch.
        number: The attempt's number, from 1.
        deadline: Unix seconds after which it is stopped.
        output: Results go here.
        state: What it left for itself.
        home: An empty home of its own.
        result_file: Where it may say what happened.
        downloads: Where the browser's downloads appear; None when the browser shares no disk with it.
        webdriver: The browser's URL; None for a job without one.
        programs: `bin` of the release's environment; None when it has none.
    """

    run_id: str
    batch: str
    number: int
    deadline: int
    output: Path
    state: Path
    home: Path
    result_file: Path
    downloads: Path | None = None
    webdriver: str | None = None
    programs: Path | None = None


def job_environment(
    job: Job, paths: AttemptPaths, secrets: Mapping[str, str], agent: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of an attempt; of the agent's own it has PATH, LANG, TZ and MAYFLY_WATCH."""
    path = agent.get("PATH", FALLBACK_PATH)
    environment = {
        "PATH": f"{paths.programs}:{path}" if paths.programs else path,
        "HOME": str(paths.home),
        "LANG": agent.get("LANG", "C.UTF-8"),
        **{name: agent[name] for name in ("TZ", WATCH) if name in agent},
        **job.env,
        **secrets,
        **matrix_environment(job),
        "MAYFLY_OUTPUT_DIR": str(paths.output),
        "MAYFLY_STATE_DIR": str(paths.state),
        "MAYFLY_RESULT_FILE": str(paths.result_file),
        "MAYFLY_RUN_ID": paths.run_id,
        "MAYFLY_BATCH": paths.batch,
        "MAYFLY_JOB": job.name,
        "MAYFLY_ATTEMPT": str(paths.number),
        "MAYFLY_DEADLINE": str(paths.deadline),
    }
    if paths.programs:
        environment["VIRTUAL_ENV"] = str(paths.programs.parent)
    if job.browser and paths.webdriver:
        environment["MAYFLY_WEBDRIVER_URL"] = paths.webdriver
        if paths.downloads:
            environment["MAYFLY_DOWNLOADS_DIR"] = str(paths.downloads)
    return environment
