"""Stacks and repositories as people have them: what `mayfly check` says of each, and what a run makes of it.

What a compose file means, docker compose says itself: its services and their images are those that ran.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent.base.containers import built_prefix

from tests.bucket.bucket import Bucket, Run
from tests.bucket.sound import sound
from tests.containers.conftest import bench, bucket, compose_yard, yard
from tests.corpus.cases import PAGE, Case, cases, page
from tests.corpus.standins import ensure_all
from tests.parts.command import call, completed, surroundings
from tests.parts.docker_engine import DockerEngine
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.missing import program
from tests.run.bench import Bench, Ran

__all__ = ["bench", "bucket", "compose_yard", "yard"]

CASES = cases()
RUNS = [
    pytest.param(case, id=case.name, marks=[pytest.mark.long] if case.expected.get("long") else [])
    for case in CASES
]
PAGES = {"/books.csv": "title,price\nSapiens,54.23\n", "/robots.txt": "User-agent: *\n"}


class _Pages(QuietHandler):
    def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
        page = PAGES.get(self.path)
        self.answer(404 if page is None else 200, (page or "").encode())


@pytest.fixture(scope="session")
def site(docker_engine: DockerEngine) -> Iterator[str]:
    """A web site that programs and containers reach at the same address."""
    with LoopbackHttp(_Pages, host=docker_engine.gateway()) as server:
        yield server.url


def write(case: Case, work: Path, site: str) -> None:
    """Write a repository's files."""
    for path, content, executable in case.files(site):
        file = work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if executable else 0o644)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_check_says_what_is_expected(case: Case, compose_yard: Bench, tmp_path: Path) -> None:
    """All faults and all notes, word for word."""
    folder = tmp_path / "repository"
    write(case, folder, "http://books.example")
    options = [f"--set={key}={value}" for key, value in case.expected.get("settings", {}).items()]
    checked = call("check", "--json", *options, str(folder), environ=compose_yard.environ)
    data = json.loads(checked.stdout)
    faults = [_sentence(fault, folder) for fault in data["faults"]]
    assert faults == case.expected.get("faults", [])
    assert data["notes"] == case.expected.get("notes", [])
    assert data["unchecked"] == []


def _sentence(fault: dict[str, str], folder: Path) -> str:
    remedy = f" ({fault['remedy']})" if fault["remedy"] else ""
    key = f"{fault['key']}: " if fault["key"] else ""
    return f"{key}{fault['problem']}{remedy}".replace(str(folder), "")


@pytest.mark.parametrize("case", RUNS)
def test_a_run_makes_of_it_what_is_expected(
    *,
    case: Case,
    compose_yard: Bench,
    bucket: Bucket,
    docker_engine: DockerEngine,
    site: str,
    tmp_path: Path,
) -> None:
    """The status of each job, what it says, and the files that arrive; nothing else does."""
    for name in case.expected.get("programs", ()):
        program(name)
    work = compose_yard.repo.work
    write(case, work, site)
    texts = [
        file.read_bytes().decode(errors="replace") for file in work.rglob("*") if file.is_file()
    ]
    ensure_all(docker_engine, "\n".join(texts), tmp_path)
    compose_yard.repo.commit()
    compose_yard.repo.tag("v1.0")
    compose_yard.repo.push()
    settings = {
        key.replace(".", "__"): value for key, value in case.expected.get("settings", {}).items()
    }
    if "secrets" in case.expected:
        secrets = compose_yard.folder / "secrets.env"
        secrets.touch(0o600)
        secrets.write_text(case.expected["secrets"])
        settings["secrets__source"] = str(secrets)
    try:
        ran = compose_yard.run(**settings)
        run = sound(bucket, ran.run_id)
        _compare(case, ran, run)
        _judge(case, ran, run, compose_yard)
    finally:
        _remove_built(compose_yard, docker_engine)


def _compare(case: Case, ran: Ran, run: Run) -> None:
    assert ran.code == case.expected.get("exit", 0), ran.stderr
    for said in case.expected.get("warnings", ()):
        assert said in "\n".join(ran.outcome["warnings"])
    if not case.jobs:
        assert case.expected["rejected"] in ran.stderr
    printed = [event["line"] for event in ran.events("job.output")]
    assert set(run.statuses) == set(case.jobs), ran.stderr
    for name, expected in case.jobs.items():
        job = run.job(name)
        assert job["status"] == expected["status"], ran.stderr
        assert expected.get("says", "") in " ".join([job["message"], *job["notes"]])
        assert {*expected.get("prints", ())} <= {*printed}, ran.stderr
        assert set(run.files_of(name)) == {*expected.get("files", ())}


def _judge(case: Case, ran: Ran, run: Run, bench: Bench) -> None:
    """Compare the services that ran, and their images, with what compose makes of the file on its owner's server."""
    work = bench.repo.work
    if "secrets" in case.expected:
        (work / ".env").write_text(case.expected["secrets"])
    left = {name for event in ran.events("job.services_not_started") for name in event["services"]}
    for job in run.jobs:
        image = job["attempts"][-1].get("image", "")
        file, colon, listed = image.partition(": ")
        if not colon:
            continue
        done = completed(
            ["docker", "compose", *_files(work / file), "config", "--format", "json"],
            environ=surroundings(bench.environ),
        )
        assert done.returncode == 0, done.stderr
        services: dict[str, Any] = json.loads(done.stdout)["services"]
        built = {own.get("image", name) for name, own in services.items() if "build" in own}
        used = dict(re.findall(r"(\S+?)=(\S+) \(", listed))
        assert set(used) == set(services) - left
        for name, ran_with in used.items():
            if services[name].get("image", name) in built:
                assert ran_with.startswith("mayfly-built-")
            else:
                assert ran_with == services[name]["image"]


def _files(file: Path) -> list[str]:
    override = file.with_name(f"{file.stem}.override.yml")
    return ["-f", str(file), *(["-f", str(override)] if override.exists() else [])]


def _remove_built(bench: Bench, engine: DockerEngine) -> None:
    for tree in (bench.state / "releases").glob("*/tree"):
        listed = engine.docker("image", "ls", "--quiet", f"{built_prefix(tree)}-*").stdout.split()
        if listed:
            engine.docker("image", "rm", "--force", *listed)


def test_the_page_has_the_corpus() -> None:
    """`python -m tests.corpus.cases` writes it."""
    assert len(CASES) >= 20
    assert PAGE.read_text() == page()
