"""Jobs that are an existing compose stack."""

import signal
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.containers.conftest import remains
from tests.parts.docker_engine import DockerEngine
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
    command: [nc, -ll, -p, "4444", -e, echo, page]
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
    assert manifest.files == {
        "legacy/page.txt": b"page\n",
        "legacy/zone.txt": b"Asia/Tokyo\n",
    }
    assert "/data" in [event["line"] for event in ran.events("job.output")]
    result = manifest.job("legacy")
    image = result["attempts"][0]["image"]
    assert image.startswith(f"compose.yml: python-scripts={busybox} (sha256:")
    assert f", selenium={busybox} (sha256:" in image
    assert "state" in manifest.told["legacy"]


def test_the_batch_service_s_exit_code_is_the_job_s(compose_yard: Bench, busybox: str) -> None:
    """75 asks for another attempt, which begins with a stack of its own."""
    script = "echo attempt $MAYFLY_ATTEMPT; ls /data; touch /data/x; [ $MAYFLY_ATTEMPT = 2 ] || exit 75; exit 9"
    compose_yard.release("v1", JOB, {"compose.yml": stack(busybox, script)})
    ran = compose_yard.run()
    result = compose_yard.bucket.newest.job("legacy")
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
    assert "env_file: .env.production: is not in the release" in message, ran.outcome
    assert "secrets = [...]" in message
    secrets = compose_yard.folder / "secrets.env"
    secrets.touch(0o600)
    secrets.write_text("TOKEN=hush-hush-hush\n")
    compose_yard.release("v2", JOB + '    secrets = ["TOKEN"]\n')
    ran = compose_yard.run(secrets__source=str(secrets))
    assert ran.code == 0, ran.stderr
    assert "token [redacted:TOKEN]" in [event["line"] for event in ran.events("job.output")]


@pytest.mark.long
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
    assert bucket.run(ran.run_id).files["legacy/late.csv"] == b"late\n"


def test_the_stack_of_a_killed_agent_is_removed_at_the_next_start(
    compose_yard: Bench, docker_engine: DockerEngine, bucket: Bucket, busybox: str
) -> None:
    """Although its services restart always: containers, networks and volumes go, what was finished is kept."""
    script = "echo done > /data/a.csv; echo ready; sleep 300"
    compose_yard.release("v1", JOB, {"compose.yml": stack(busybox, script)})
    with compose_yard.running() as process:
        compose_yard.log.wait_for("job.output", line="ready", seconds=120)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert len(remains(docker_engine, compose_yard)) >= 3
    compose_yard.release("v2", '[[job]]\nname = "a"\ncommand = ["true"]\n')
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    assert remains(docker_engine, compose_yard) == []
    dead, _ = bucket.runs.values()
    assert dead.files["legacy/a.csv"] == b"done\n"


ORDINARY = """
name: shop
x-common: &common
  restart: unless-stopped
  logging: {{ driver: json-file, options: {{ max-size: 10m }} }}
  labels: {{ org.example.team: data }}
services:
  python-scripts:
    <<: *common
    image: {image}
    container_name: shop-batch
    hostname: batch
    user: "0:0"
    working_dir: /work
    entrypoint: [sh, -c]
    command:
      - id -u; hostname; cat note.txt /run/secrets/token /greeting; df /dev/shm | tail -n 1; date +%Z; ulimit -n
    environment: [TZ=UTC]
    volumes: ["./:/work:ro", "../data:/data", "scraped:/scraped", "/etc/localtime:/etc/localtime:ro", /cache]
    depends_on: {{ db: {{ condition: service_healthy }} }}
    networks: [default, back]
    extra_hosts: ["host.docker.internal:host-gateway"]
    dns: [1.1.1.1]
    expose: ["8080"]
    ports: ["127.0.0.1:45672:80"]
    profiles: [batch]
    read_only: true
    tmpfs: [/tmp]
    shm_size: 32m
    cap_drop: [ALL]
    cap_add: [CHOWN]
    security_opt: ["no-new-privileges:true"]
    ulimits: {{ nofile: 4096 }}
    mem_limit: 64m
    cpus: 0.5
    pids_limit: 100
    init: true
    tty: false
    stdin_open: true
    stop_grace_period: 5s
    secrets: [token]
    configs: [{{ source: greeting, target: /greeting }}]
    develop: {{ watch: [{{ path: ., action: rebuild }}] }}
  db:
    <<: *common
    image: {image}
    command: sleep 60
    healthcheck: {{ test: ["CMD", "true"], interval: 1s }}
    deploy: {{ resources: {{ limits: {{ memory: 64M, cpus: "0.5" }} }} }}
    volumes: ["/dev/shm:/dev/shm"]
    networks: {{ back: {{ aliases: [database] }} }}
networks: {{ back: {{ driver: bridge, internal: true }} }}
volumes: {{ scraped: {{}} }}
secrets: {{ token: {{ file: ./token.txt }} }}
configs: {{ greeting: {{ file: ./greeting.txt }} }}
"""


def test_what_public_stacks_ask_for_still_works(compose_yard: Bench, busybox: str) -> None:
    """Nothing of it reaches the machine."""
    files = {
        "deploy/compose.yml": ORDINARY.format(image=busybox),
        "deploy/note.txt": "a note\n",
        "deploy/token.txt": "a token\n",
        "deploy/greeting.txt": "good day\n",
    }
    compose_yard.release("v1", JOB.replace("compose.yml", "deploy/compose.yml"), files)
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    said = [" ".join(event["line"].split()) for event in ran.events("job.output")]
    found = said[said.index("0") :]
    assert [*found[:5], *found[6:]] == [
        "0",
        "batch",
        "a note",
        "a token",
        "good day",
        "UTC",
        "4096",
    ]
    assert found[5].startswith("shm 32768 ")


def test_what_compose_does_not_accept_is_quoted(compose_yard: Bench, busybox: str) -> None:
    """A service that is not there, an image that nobody has, a file that is no stack."""
    other = f"services:\n  other:\n    image: {busybox}\n# not python-scripts\n"
    compose_yard.release("v1", JOB, {"compose.yml": other})
    message = compose_yard.run().job("legacy")["message"]
    assert 'has no "python-scripts" (its services are other)' in message
    absent = "services:\n  python-scripts:\n    image: mayfly.test/nobody/has-this:1\n"
    compose_yard.release("v2", JOB, {"compose.yml": absent})
    message = compose_yard.run().job("legacy")["message"]
    assert message.startswith("the stack of compose.yml did not start; ")
    broken = "services:\n  python-scripts:\n    imagination: 1\n"
    compose_yard.release("v3", JOB, {"compose.yml": broken})
    message = compose_yard.run().job("legacy")["message"]
    assert message.startswith("compose does not accept compose.yml: ")
    assert "imagination" in message


def test_a_stack_does_not_read_the_agent_s_environment(compose_yard: Bench, busybox: str) -> None:
    """Proxies and registries have passwords there; what the job names, it gets."""
    agents = {"HTTPS_PROXY": CANARY, "DOCKER_AUTH_CONFIG": CANARY, "AWS_PROFILE": CANARY}
    compose_yard.environ |= agents
    names = ", ".join((*agents, "MINE", "X=$HTTPS_PROXY"))
    file = f"""
services:
  python-scripts:
    image: {busybox}
    environment: [{names}]
    secrets: [s]
    command: ["sh", "-c", "env; cat /run/secrets/s"]
secrets: {{s: {{environment: MINE}}}}
"""
    jobs = JOB + '    env = { MINE = "its own" }\n'
    compose_yard.release("v1", jobs, {"compose.yml": file})
    ran = compose_yard.run()
    said = [event["line"] for event in ran.events("job.output")]
    assert CANARY not in ran.stderr + str(ran.outcome)
    assert {"MINE=its own", "its own"} <= {*said}, ran.stderr


def test_without_compose_the_error_says_how_to_get_it(
    yard: Bench, busybox: str, tmp_path: Path
) -> None:
    """Package, path and address; the program of old does not count."""
    yard.environ |= {"DOCKER_CONFIG": str(tmp_path)}
    yard.release("v1", JOB, {"compose.yml": stack(busybox, "true")})
    message = yard.run().job("legacy")["message"]
    assert message.startswith(
        "a stack needs docker compose 2.26.0 or newer, which is not installed"
    )
    assert "/usr/local/lib/docker/cli-plugins/docker-compose" in message
    assert "https://github.com/docker/compose/releases" in message


CANARY = "a-line-of-the-machine-s-own"
HEAD = """
services:
  python-scripts:
    image: {image}
    command: ["sh", "-c", "env; cat /host/secret.env /host{folder}/secret.env /run/secrets/s /c; ls -l /host"]
"""
LINKER = """
    depends_on: {{linker: {{condition: service_completed_successfully}}}}
  linker:
    image: {image}
    volumes: ['./deep:/deep']
    command: ['sh', '-c', 'rm -rf /deep/data; ln -s {folder} /deep/data']
"""
WAYS = {
    "root": ("volumes", "    volumes: ['/:/host']"),
    "folder": ("volumes", "    volumes: ['{folder}:/host:ro']"),
    "up": ("volumes", "    volumes: ['./../../../../../../../../../../../..{folder}:/host']"),
    "variable": ("volumes", "    volumes: ['${{HERE}}:/host']"),
    "socket": ("volumes", "    volumes: ['/var/run:/host']"),
    "configuration": ("volumes", "    volumes: ['/etc/mayfly:/host']"),
    "spread": (
        "volumes.bind.propagation",
        "    volumes: [{{type: bind, source: ./scripts, target: /host, bind: {{propagation: shared}}}}]",
    ),
    "options": (
        "volumes.disk.driver_opts",
        "    volumes: ['disk:/host']\nvolumes: {{disk: {{driver_opts: {{type: none, o: bind, device: '{folder}'}}}}}}",
    ),
    "others": (
        "volumes.disk.external",
        "    volumes: ['disk:/host']\nvolumes: {{disk: {{external: true}}}}",
    ),
    "secret": (
        "secrets.s.file",
        "    secrets: [s]\nsecrets: {{s: {{file: '{folder}/secret.env'}}}}",
    ),
    "config": (
        "configs.c.file",
        "    configs: [c]\nconfigs: {{c: {{file: '{folder}/secret.env'}}}}",
    ),
    "env-file": ("env_file", "    env_file: ['{folder}/secret.env']"),
    "extends": ("extends", "    extends: {{file: '{folder}/base.yml', service: base}}"),
    "written-otherwise": (
        "hide a key",
        '    "ext\\x65nds": {{file: "{folder}/base.yml", service: base}}',
    ),
    "include": (
        "include",
        "    environment: {{X: y}}\ninclude: [{{path: other.yml, env_file: '{folder}/secret.env'}}]",
    ),
    "link": (
        "put a link to any folder in its place",
        "    volumes: ['./deep/data:/host']" + LINKER,
    ),
    "build": (
        "build.context",
        "    build: {{context: '{folder}', dockerfile_inline: 'FROM {image}\\nCOPY secret.env /host/'}}",
    ),
    "capability": ("cap_add", "    cap_add: [SYS_ADMIN]"),
    "devices": ("devices", "    devices: ['/dev/null:/dev/sda']"),
    "ipc": ("ipc", "    ipc: host"),
    "users": ("userns_mode", "    userns_mode: host"),
    "pid": ("pid", "    pid: host"),
    "uts": ("uts", "    uts: host"),
    "network": ("network_mode", "    network_mode: host"),
    "named-network": (
        "networks.n.external",
        "    networks: [n]\nnetworks: {{n: {{external: true, name: host}}}}",
    ),
    "seccomp": ("security_opt", "    security_opt: ['seccomp:unconfined']"),
    "parent": ("cgroup_parent", "    cgroup_parent: system.slice"),
    "hidden-service": (
        "services.python-scripts.privileged",
        "    privileged: true\n    profiles: [batch]",
    ),
    "client": ("DOCKER_HOST", ""),
}
"""For each way to the machine: what the message must name, and the lines of the stack."""


def test_a_stack_does_not_get_the_machine(compose_yard: Bench, busybox: str) -> None:
    """Whatever leads out of its containers is refused before anything of it starts, and named."""
    folder = compose_yard.folder / "machine"
    folder.mkdir()
    (folder / "secret.env").write_text(f"CANARY={CANARY}\n")
    (folder / "base.yml").write_text(f"services: {{base: {{environment: [CANARY={CANARY}]}}}}\n")
    jobs, files = (
        "",
        {"scripts/x": "", "deep/data/x": "", "client/.env": "DOCKER_HOST=tcp://nobody\n"},
    )
    for name, (_, lines) in WAYS.items():
        jobs += JOB.replace('"legacy"', f'"{name}"').replace("compose.yml", f"{name}/compose.yml")
        jobs += f'    env = {{ HERE = "{folder}" }}\n'
        files[f"{name}/compose.yml"] = (HEAD + lines).format(image=busybox, folder=folder) + "\n"
        files[f"{name}/other.yml"] = "services: {x: {image: x, labels: {l: $CANARY}}}\n"
    compose_yard.release("v1", jobs, files)
    ran = compose_yard.run()
    assert CANARY not in ran.stderr + str(ran.outcome)
    said = {name: ran.job(name)["message"] for name in WAYS}
    assert {name: said[name] for name, (key, _) in WAYS.items() if key not in said[name]} == {}
    assert ran.events("job.output") == []


def test_a_stack_whose_file_cannot_be_read_says_so(compose_yard: Bench, busybox: str) -> None:
    """It has no command of its own that could be named; that it has none is no defect of the agent."""
    files = {"compose.yml": stack(busybox, "true"), "compose.override.yml/file": ""}
    compose_yard.release("v1", JOB, files)
    job = compose_yard.run().job("legacy")
    assert (job["status"], job["cause"]) == ("failed", "release")
    assert job["message"].startswith("its container could not be started: ")
