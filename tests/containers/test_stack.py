"""Jobs that are an existing compose stack, with the plugin of today and with the program of old."""

import signal
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.containers.conftest import path_without, remains
from tests.parts.docker_engine import DockerEngine
from tests.parts.waiting import wait_until
from tests.run.bench import Bench

JOB = """
    [[job]]
    name = "legacy"
    compose = "compose.yml"
    service = "python-scripts"
    output = "/data"
"""
STACK = """
version: "3"
services:
  python-scripts:
    image: {image}
    restart: always
    environment: {{ TZ: Asia/Tokyo }}
    volumes: [{volumes}]
    depends_on: [selenium]
    command: ["sh", "-c", {script}]
  selenium:
    image: {image}
    restart: always
    shm_size: 64m
    volumes: ["/dev/shm:/dev/shm"]
    command: ["sh", "-c", "while true; do echo page | nc -l -p 4444; done"]
volumes:
  scraped: {{}}
"""
VOLUMES = {"bind": '"./data:/data"', "named volume": '"scraped:/data"', "anonymous": '"/data"'}


def stack(image: str, script: str, volumes: str = VOLUMES["bind"]) -> str:
    """The seed's `compose.yml`, with a script for the batch service."""
    quoted = '"' + script.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'
    return STACK.format(image=image, script=quoted, volumes=volumes)


@pytest.mark.parametrize("volumes", VOLUMES.values(), ids=VOLUMES.keys())
def test_an_unchanged_stack_runs_and_its_mount_is_the_job_s_output(
    compose_yard: Bench, bucket: Bucket, busybox: str, volumes: str
) -> None:
    """Its services are up, they reach each other by name, and what is written to the mount is handed over."""
    script = (
        "set -e; until nc -w 5 selenium 4444 </dev/null > /data/page.txt; do sleep 1; done; echo $TZ > /data/zone.txt;"
        " echo $MAYFLY_OUTPUT_DIR; echo 1 >> $MAYFLY_STATE_DIR/count; cat $MAYFLY_STATE_DIR/count"
    )
    compose_yard.release("v1", JOB, {"compose.yml": stack(busybox, script, volumes)})
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    manifest = sound(bucket, ran.run_id)
    files = bucket.files(ran.run_id)
    assert files["legacy/page.txt"] == b"page\n"
    assert files["legacy/zone.txt"] == b"Asia/Tokyo\n"
    assert set(files) == {"legacy/page.txt", "legacy/zone.txt", "_run/log.jsonl"}
    assert "/data" in [event["line"] for event in ran.events("job.output")]
    result = manifest.job("legacy")
    assert result["attempts"][0]["image"] == "compose.yml: python-scripts"
    assert result["state"]


def test_the_batch_service_s_exit_code_is_the_job_s(compose_yard: Bench, busybox: str) -> None:
    """75 asks for another attempt, which begins with a stack of its own."""
    script = "echo attempt $MAYFLY_ATTEMPT; ls /data; touch /data/x; [ $MAYFLY_ATTEMPT = 2 ] || exit 75; exit 9"
    compose_yard.release("v1", JOB, {"compose.yml": stack(busybox, script)})
    ran = compose_yard.run()
    result = ran.job("legacy")
    assert [attempt["exit_code"] for attempt in result["attempts"]] == [75, 9], ran.stderr
    assert "x" not in [event["line"] for event in ran.events("job.output")]


def test_an_env_file_that_git_does_not_have_is_replaced_by_the_job_s_secrets(
    compose_yard: Bench, busybox: str
) -> None:
    """With none named, the error says which file is missing and what to do; values are on no command line."""
    text = stack(busybox, "echo token $TOKEN; sleep 1").replace(
        "    restart: always\n    environment", "    env_file: [.env.production]\n    environment"
    )
    compose_yard.release("v1", JOB, {"compose.yml": text})
    ran = compose_yard.run()
    message = ran.job("legacy")["message"]
    assert "the stack's env_file .env.production is not in the release" in message, ran.outcome
    assert "secrets = [...]" in message
    secrets = compose_yard.folder / "secrets.env"
    secrets.touch(0o600)
    secrets.write_text("TOKEN=hush-hush-hush\n")
    compose_yard.release("v2", JOB + '    secrets = ["TOKEN"]\n')
    ran = compose_yard.run(secrets__source=str(secrets))
    assert ran.code == 0, ran.stderr
    assert "token [redacted:TOKEN]" in [event["line"] for event in ran.events("job.output")]


def test_a_stack_past_its_limit_is_told_and_then_removed(
    compose_yard: Bench, bucket: Bucket, busybox: str
) -> None:
    """SIGTERM reaches the batch service while the others still serve it."""
    script = (
        "trap 'echo late > /data/late.csv; exit 0' TERM; echo ready; while true; do sleep 0.1; done"
    )
    compose_yard.release(
        "v1", JOB + '    timeout = "25s"\n', {"compose.yml": stack(busybox, script)}
    )
    ran = compose_yard.run(limits__grace="8s")
    assert ran.job("legacy")["status"] == "timed_out", ran.stderr
    assert bucket.files(ran.run_id)["legacy/late.csv"] == b"late\n"


def test_the_stack_of_a_killed_agent_is_removed_at_the_next_start(
    compose_yard: Bench, docker_engine: DockerEngine, bucket: Bucket, busybox: str
) -> None:
    """Although its services restart always: containers, networks and volumes go, what was finished is kept."""
    script = "echo done > /data/a.csv; echo ready; sleep 300"
    compose_yard.release("v1", JOB, {"compose.yml": stack(busybox, script)})
    with compose_yard.running() as process:
        wait_until(
            lambda: '"ready"' in (compose_yard.folder / "stderr.log").read_text(),
            what="the job",
            seconds=90,
        )
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert len(remains(docker_engine, compose_yard)) >= 3
    compose_yard.release("v2", '[[job]]\nname = "a"\ncommand = ["true"]\n')
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    assert remains(docker_engine, compose_yard) == []
    dead, _ = bucket.entries()
    assert bucket.files(dead["run_id"])["legacy/a.csv"] == b"done\n"


FIXED = """
services:
  python-scripts:
    image: {image}
    container_name: mayfly-test-batch
    depends_on: [selenium]
    command: ["sh", "-c", "until nc -w 5 mayfly-test-chrome 4444 </dev/null; do sleep 1; done; sleep 2"]
  selenium:
    image: {image}
    container_name: mayfly-test-chrome
    ports: ["127.0.0.1:45671:4444"]
    command: ["sh", "-c", "while true; do echo page | nc -l -p 4444; done"]
"""


def test_fixed_names_and_ports_do_not_collide(
    compose_yard: Bench, docker_engine: DockerEngine, busybox: str
) -> None:
    """Two stacks at once: the plugin gives each its own, the old program says what is taken and what helps."""
    jobs = JOB + JOB.replace('"legacy"', '"twin"')
    compose_yard.release("v1", jobs, {"compose.yml": FIXED.format(image=busybox)})
    ran = compose_yard.run()
    if "no-plugins" not in compose_yard.environ["DOCKER_CONFIG"]:
        assert ran.code == 0, ran.stderr
        assert [event["line"] for event in ran.events("job.output")].count("page") == 2
        return
    assert ran.code == 3, ran.stderr
    (message,) = (job["message"] for job in ran.outcome["jobs"] if job["status"] == "failed")
    assert "did not start" in message
    assert "remove container_name" in message or "is taken: remove ports" in message


WISHES = {
    "privileged": "privileged: true",
    "network": "network_mode: host",
    "pid": "pid: host",
    "socket": 'volumes: ["/var/run/docker.sock:/s"]',
}


def test_a_stack_does_not_get_the_machine(compose_yard: Bench, busybox: str) -> None:
    """What would lead out of its containers is refused before anything of it starts."""
    head = f"services:\n  python-scripts:\n    image: {busybox}\n    command: echo ran\n    "
    jobs = "".join(
        JOB.replace('"legacy"', f'"{name}"').replace("compose.yml", f"{name}.yml")
        for name in WISHES
    )
    files = {f"{name}.yml": f"{head}{wish}\n" for name, wish in WISHES.items()}
    compose_yard.release("v1", jobs, files)
    ran = compose_yard.run()
    for name in WISHES:
        assert "which a job must not have" in ran.job(name)["message"], ran.outcome
    assert "ran" not in [event["line"] for event in ran.events("job.output")]


def test_what_compose_does_not_accept_is_quoted(compose_yard: Bench, busybox: str) -> None:
    """A service that is not there, an image that nobody has, a file that is no stack."""
    other = f"services:\n  other:\n    image: {busybox}\n# not python-scripts\n"
    compose_yard.release("v1", JOB, {"compose.yml": other})
    message = compose_yard.run().job("legacy")["message"]
    assert message == ('compose.yml has no service "python-scripts"; its services are other')
    absent = "services:\n  python-scripts:\n    image: mayfly.test/nobody/has-this:1\n"
    compose_yard.release("v2", JOB, {"compose.yml": absent})
    message = compose_yard.run().job("legacy")["message"]
    assert message.startswith("the stack of compose.yml did not start; ")
    broken = "services:\n  python-scripts:\n    imagination: 1\n"
    compose_yard.release("v3", JOB, {"compose.yml": broken})
    message = compose_yard.run().job("legacy")["message"]
    assert message.startswith("compose does not accept compose.yml: ")
    assert "imagination" in message


def test_without_compose_the_error_says_how_to_get_it(
    yard: Bench, busybox: str, tmp_path: Path
) -> None:
    """Neither the plugin nor the program: package, path and address."""
    path = path_without(tmp_path / "bin", "docker-compose")
    yard.environ |= {"PATH": path, "DOCKER_CONFIG": str(tmp_path)}
    yard.release("v1", JOB, {"compose.yml": stack(busybox, "true")})
    message = yard.run().job("legacy")["message"]
    assert message.startswith("a stack needs docker compose, which is not installed; install")
    assert "/usr/local/lib/docker/cli-plugins/docker-compose" in message
    assert "https://github.com/docker/compose/releases" in message
