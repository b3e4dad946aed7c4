"""What a job's program sees of the world: the contract, its own, and nothing else of the agent's."""

from dataclasses import replace
from pathlib import Path

from agent.config.jobsfile import Job
from agent.jobs.environment import AttemptPaths, job_environment

RUN = "20261122T064205Z-3f9a1c"


PATHS = AttemptPaths(
    run_id=RUN,
    batch="20261122T180000Z",
    number=2,
    deadline=1795337000,
    output=Path("/o"),
    state=Path("/s"),
    home=Path("/h"),
    result_file=Path("/r.json"),
    webdriver="http://127.0.0.1:4444",
    downloads=Path("/d"),
)
CONTRACT = {
    "PATH": "/bin",
    "HOME": "/h",
    "LANG": "C.UTF-8",
    "MAYFLY_OUTPUT_DIR": "/o",
    "MAYFLY_STATE_DIR": "/s",
    "MAYFLY_RESULT_FILE": "/r.json",
    "MAYFLY_RUN_ID": RUN,
    "MAYFLY_BATCH": "20261122T180000Z",
    "MAYFLY_JOB": "quotes",
    "MAYFLY_ATTEMPT": "2",
    "MAYFLY_DEADLINE": "1795337000",
}


def test_a_job_gets_the_contract_and_nothing_else_of_the_agents() -> None:
    """Credentials, settings and whatever else the agent has stay with it; only who asked is told of the browser."""
    agent = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "no",
        "MAYFLY_STORE_URL": "no",
        "HOME": "/root",
        "LD_PRELOAD": "no",
    }
    assert job_environment(Job(name="quotes", command=("x",)), PATHS, {}, agent) == CONTRACT


def test_a_browser_job_of_a_matrix_gets_its_part_and_its_own() -> None:
    """Its `env` and secrets, its matrix value, the browser, and its release's programs first on PATH."""
    job = Job(
        name="quotes",
        command=("x",),
        browser=True,
        env={"TZ": "Asia/Tokyo", "A": "1"},
        matrix={"shop": ("b",)},
    )
    paths = replace(PATHS, programs=Path("/rel/env/bin"))
    agent = {"PATH": "/bin", "TZ": "UTC", "LANG": "ja_JP.UTF-8"}
    assert job_environment(job, paths, {"TOKEN": "t"}, agent) == {
        **CONTRACT,
        "PATH": "/rel/env/bin:/bin",
        "VIRTUAL_ENV": "/rel/env",
        "LANG": "ja_JP.UTF-8",
        "TZ": "Asia/Tokyo",
        "A": "1",
        "TOKEN": "t",
        "MAYFLY_MATRIX_SHOP": "b",
        "MAYFLY_WEBDRIVER_URL": "http://127.0.0.1:4444",
        "MAYFLY_DOWNLOADS_DIR": "/d",
    }
