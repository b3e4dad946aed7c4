"""A stack runs as `docker compose up` would run it: all of it, as its file says, with its own release's code."""

import signal

import pytest

from agent.base.containers import built_prefix
from tests.containers.conftest import said
from tests.parts.docker_engine import DockerEngine
from tests.run.bench import Bench, finish, job

JOB = """
    [[job]]
    name = "legacy"
    compose = "compose.yml"
    service = "batch"
"""


def lines(bench: Bench, **settings: str) -> list[str]:
    """Do a run, which must succeed, and return what the job printed."""
    ran = bench.run(code=0, **settings)
    return [event["line"] for event in ran.events("job.output")]


def test_a_plain_depends_on_waits_until_the_service_serves(
    compose_yard: Bench, busybox: str
) -> None:
    """The documentation's own example loses this race with compose: a container that was started does not serve yet.

    What comes after the job is not started, and named.
    """
    stack = f"""
services:
  batch:
    image: {busybox}
    depends_on: [page]
    command: ["sh", "-c", "nc -w 30 page 8080 </dev/null"]
  page:
    image: {busybox}
    expose: ["8080"]
    command: [sh, -c, "sleep 4; exec nc -ll -p 8080 -e echo served"]
  report:
    image: {busybox}
    depends_on: {{batch: {{condition: service_completed_successfully}}}}
    command: ["true"]
"""
    compose_yard.release("v1", JOB, {"compose.yml": stack})
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    assert "served" in said(ran, "legacy")
    (ready,) = ran.events("job.service_ready")
    assert ready["service"] == "page"
    (left,) = ran.events("job.services_not_started")
    assert left["services"] == ["report"]


@pytest.mark.long
def test_each_release_runs_its_own_code_and_its_images_go_with_it(
    compose_yard: Bench, docker_engine: DockerEngine, busybox: str
) -> None:
    """`image:` with `build:` names one image for all releases; a built one carries its release."""
    stack = f"""
services:
  batch:
    build: {{context: ., dockerfile_inline: "FROM {busybox}\\nCOPY code.txt /code.txt\\n"}}
    image: mayfly.test/shop:latest
    command: ["cat", "/code.txt"]
"""
    commits = {}
    for number in ("1", "2"):
        files = {"compose.yml": stack, "code.txt": f"code {number}\n"}
        commits[number] = compose_yard.release(f"v{number}", JOB, files)
        # A budget for one release: what no run needs goes after the commit.
        assert f"code {number}" in lines(compose_yard, limits__disk="1kB")
    assert docker_engine.docker("image", "ls", "--quiet", "mayfly.test/shop").stdout == ""
    built = {
        number: docker_engine.docker(
            "image",
            "ls",
            "--quiet",
            f"{built_prefix(compose_yard.state / 'releases' / commit / 'tree')}-batch",
        ).stdout
        for number, commit in commits.items()
    }
    assert built["1"] == ""
    assert built["2"] != ""


def test_what_the_file_says_of_its_end_counts(compose_yard: Bench, busybox: str) -> None:
    """`init: false` makes the program process 1, and `stop_signal` is what it is asked to end with."""
    stack = f"""
services:
  batch:
    image: {busybox}
    init: false
    stop_signal: SIGUSR1
    command: ["sh", "-c", "trap 'echo asked; exit 0' USR1; echo process $$$$; while true; do sleep 0.1; done"]
"""
    compose_yard.release("v1", JOB, {"compose.yml": stack})
    with compose_yard.running() as process:
        compose_yard.log.wait_for("job.output", line="process 1", seconds=120)
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
    assert ran.job("legacy")["status"] == "interrupted", ran.stderr
    assert "asked" in [event["line"] for event in ran.events("job.output")]


def test_an_image_of_s6_is_process_one(
    yard: Bench, docker_engine: DockerEngine, busybox: str, own_image: str
) -> None:
    """Without a word in the file; it has shared memory of its own."""
    context = yard.folder / "s6"
    context.mkdir()
    (context / "init").write_text('#!/bin/sh\necho process $$\nexec "$@"\n')
    (context / "init").chmod(0o755)
    (context / "Dockerfile").write_text(f'FROM {busybox}\nCOPY init /init\nENTRYPOINT ["/init"]\n')
    docker_engine.build(own_image, context)
    shared = "df -k /dev/shm | tail -n 1 | awk '{print \"shm\", $2}'"
    yard.release("v1", job("a", shared, image=own_image, shared_memory="256MiB"))
    assert lines(yard) == ["process 1", "shm 262144"]
