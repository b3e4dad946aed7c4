"""Jobs that are an existing compose stack."""

import signal
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.containers.conftest import remains, said
from tests.parts.docker_engine import DockerEngine
from tests.run.bench import Bench, job

CANARY = "a-line-of-the-machine-s-own"
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
VOLUMES = {"bind": '"./data:/data"', "volume": '"scraped:/data"', "anonymous": '"/data"'}


def named(name: str, compose: str) -> str:
    """The seed's job, with another name and another file."""
    return JOB.replace('"legacy"', f'"{name}"').replace("compose.yml", compose)


def stack(image: str, script: str, volumes: str = VOLUMES["bind"]) -> str:
    """The seed's `compose.yml`, with a script for the batch service."""
    quoted = '"' + script.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'
    return STACK.format(image=image, script=quoted, volumes=volumes)


def test_an_unchanged_stack_runs_and_its_mount_is_the_job_s_output(
    compose_yard: Bench, bucket: Bucket, busybox: str
) -> None:
    """Its services are up, they reach each other by name, and what is written to the mount is handed over."""
    script = (
        "set -e; until nc -w 5 selenium 4444 </dev/null > /data/page.txt; do sleep 1; done; echo $TZ > /data/zone.txt;"
        " echo $MAYFLY_OUTPUT_DIR; echo 1 >> $MAYFLY_STATE_DIR/count; cat $MAYFLY_STATE_DIR/count"
    )
    jobs = "".join(named(kind, f"{kind}.yml") for kind in VOLUMES)
    files = {f"{kind}.yml": stack(busybox, script, text) for kind, text in VOLUMES.items()}
    compose_yard.release("v1", jobs, files)
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    manifest = sound(bucket, ran.run_id)
    for kind in VOLUMES:
        assert manifest.files[f"{kind}/page.txt"] == b"page\n"
        assert manifest.files[f"{kind}/zone.txt"] == b"Asia/Tokyo\n"
        assert "/data" in said(ran, kind)
        image = manifest.job(kind)["attempts"][0]["image"]
        assert image.startswith(f"{kind}.yml: python-scripts={busybox} (sha256:")
        assert f", selenium={busybox} (sha256:" in image
        assert "state" in manifest.told[kind]
    assert len(manifest.files) == 2 * len(VOLUMES)


BESIDE = """
services:
  python-scripts:
    image: {image}
    volumes: ["${{APP:-./app}}:/app"]
    command: ["sh", "/app/run.sh"]
"""


def test_code_in_the_output_is_found_where_the_mount_has_a_variable(
    compose_yard: Bench, bucket: Bucket, busybox: str
) -> None:
    """It stays in its place, and what is new beside it is the job's output."""
    files = {"compose.yml": BESIDE.format(image=busybox), "app/run.sh": "echo 1 > /app/new.csv\n"}
    compose_yard.release("v1", JOB.replace('"/data"', '"/app"'), files)
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    assert bucket.run(ran.run_id).files == {"legacy/new.csv": b"1\n"}


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


def test_the_containers_of_a_killed_agent_are_removed_at_the_next_start(
    compose_yard: Bench, docker_engine: DockerEngine, bucket: Bucket, busybox: str
) -> None:
    """Containers, networks and volumes go, although a stack's services restart always; what was finished is kept.

    A container no longer writes into what is handed over.
    """
    script = "echo done > /data/a.csv; echo ready; sleep 300"
    image = job("image", script, image=busybox, output="/data")
    compose_yard.release("v1", JOB + image, {"compose.yml": stack(busybox, script)})
    with compose_yard.running() as process:
        for name in ("legacy", "image"):
            compose_yard.log.wait_for("job.output", line="ready", job=name, seconds=120)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    left = remains(docker_engine, compose_yard)
    assert len([name for name in left if "-image-1" in name]) == 2
    assert len(left) >= 5
    compose_yard.release("v2", job("a", "true", image=busybox))
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    assert remains(docker_engine, compose_yard) == []
    dead, alive = bucket.runs.values()
    assert (dead.status, alive.status) == ("interrupted", "succeeded")
    assert (dead.files["legacy/a.csv"], dead.files["image/a.csv"]) == (b"done\n", b"done\n")


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


READS = """
services:
  python-scripts:
    image: {image}
    environment: [{names}]
    secrets: [s]
    command: ["sh", "-c", "env; cat /run/secrets/s"]
secrets: {{s: {{environment: MINE}}}}
"""


def with_env_file(image: str) -> str:
    """The seed's stack, with an env file that git does not have."""
    keys = "    env_file: [.env.production]\n    environment"
    return stack(image, "echo token $TOKEN; sleep 1").replace("    environment", keys, 1)


def test_what_public_stacks_ask_for_still_works(compose_yard: Bench, busybox: str) -> None:
    """Nothing of it reaches the machine, and nothing of the agent's environment reaches a stack.

    Proxies and registries have passwords there; what a job names, it gets, also in the place of a missing env file.
    The batch service's exit code is the job's: 75 asks for another attempt, which begins with a stack of its own.
    """
    exits = "echo attempt $MAYFLY_ATTEMPT; ls /data; touch /data/x; [ $MAYFLY_ATTEMPT = 2 ] || exit 75; exit 9"
    agents = {"HTTPS_PROXY": CANARY, "DOCKER_AUTH_CONFIG": CANARY, "AWS_PROFILE": CANARY}
    compose_yard.environ |= agents
    files = {
        "deploy/compose.yml": ORDINARY.format(image=busybox),
        "deploy/note.txt": "a note\n",
        "deploy/token.txt": "a token\n",
        "deploy/greeting.txt": "good day\n",
        "reads.yml": READS.format(
            image=busybox, names=", ".join((*agents, "MINE", "X=$HTTPS_PROXY"))
        ),
        "compose.yml": with_env_file(busybox),
        "exits.yml": stack(busybox, exits),
    }
    jobs = named("exits", "exits.yml") + named("ordinary", "deploy/compose.yml")
    jobs += named("reads", "reads.yml") + '    env = { MINE = "its own" }\n'
    compose_yard.release("v1", jobs + JOB + '    secrets = ["TOKEN"]\n', files)
    secrets = compose_yard.folder / "secrets.env"
    secrets.touch(0o600)
    secrets.write_text("TOKEN=hush-hush-hush\n")
    ran = compose_yard.run(secrets__source=str(secrets))
    assert ran.code == 3, ran.stderr
    record = compose_yard.bucket.newest.job("exits")
    assert [attempt["exit_code"] for attempt in record["attempts"]] == [75, 9], ran.stderr
    assert "x" not in said(ran, "exits")
    printed = [" ".join(line.split()) for line in said(ran, "ordinary")]
    found = printed[printed.index("0") :]
    expected = ["0", "batch", "a note", "a token", "good day", "UTC", "4096"]
    assert [*found[:5], *found[6:]] == expected
    assert found[5].startswith("shm 32768 ")
    assert CANARY not in ran.stderr + str(ran.outcome)
    assert {"MINE=its own", "its own"} <= {*said(ran, "reads")}, ran.stderr
    assert "token [redacted:TOKEN]" in said(ran, "legacy")


def test_a_stack_that_cannot_run_says_why(compose_yard: Bench, busybox: str) -> None:
    """Each in a way of its own, in the words of compose where it does not accept the file."""
    service = "services:\n  python-scripts:\n    "
    jobs = "".join(named(name, f"{name}.yml") for name in ("lacks", "absent", "broken", "env"))
    files = {
        "lacks.yml": f"services:\n  other:\n    image: {busybox}\n# not python-scripts\n",
        "absent.yml": f"{service}image: mayfly.test/nobody/has-this:1\n",
        "broken.yml": f"{service}imagination: 1\n",
        "env.yml": with_env_file(busybox),
        "folder/compose.yml": stack(busybox, "true"),
        "folder/compose.override.yml/file": "",
    }
    compose_yard.release("v1", jobs + named("folder", "folder/compose.yml"), files)
    ran = compose_yard.run()
    messages = {job["name"]: job["message"] for job in ran.outcome["jobs"]}
    assert 'has no "python-scripts" (its services are other)' in messages["lacks"]
    assert messages["absent"].startswith("the stack of absent.yml did not start; ")
    assert messages["broken"].startswith("compose does not accept broken.yml: ")
    assert "imagination" in messages["broken"]
    assert "env_file: .env.production: is not in the release" in messages["env"], ran.outcome
    assert "secrets = [...]" in messages["env"]
    # It has no command of its own that could be named; that it cannot be read is no defect of the agent.
    unread = ran.job("folder")
    assert (unread["status"], unread["cause"]) == ("failed", "release")
    assert unread["message"].startswith("its container could not be started: ")


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
    "own-link": (
        "put a link to any folder in its place",
        LINKER.replace("'./deep:/deep'", "'./deep:/deep', './deep/data:/host'").replace(
            "rm -rf /deep/data;", "cat /host/secret.env; mv /deep/data /deep/x;"
        ),
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
    jobs = ""
    files = {"scripts/x": "", "deep/data/x": "", "client/.env": "DOCKER_HOST=tcp://nobody\n"}
    for name, (_, lines) in WAYS.items():
        jobs += named(name, f"{name}/compose.yml") + f'    env = {{ HERE = "{folder}" }}\n'
        files[f"{name}/compose.yml"] = (HEAD + lines).format(image=busybox, folder=folder) + "\n"
        files[f"{name}/other.yml"] = "services: {x: {image: x, labels: {l: $CANARY}}}\n"
    compose_yard.release("v1", jobs, files)
    ran = compose_yard.run()
    assert CANARY not in ran.stderr + str(ran.outcome)
    told = {name: ran.job(name)["message"] for name in WAYS}
    assert {name: told[name] for name, (key, _) in WAYS.items() if key not in told[name]} == {}
    assert ran.events("job.output") == []


TRAP = """[core]
repositoryformatversion = 1
bare = false
worktree = sub
[extensions]
partialClone = origin
[remote "origin"]
url = .
promisor = true
uploadpack = "touch {marker};"
"""
"""Of a repository whose one commit is missing: whoever asks git for it has the program run that would fetch it."""


def test_a_build_does_not_ask_git_for_a_commit(compose_yard: Bench, busybox: str) -> None:
    """The client would, as the agent's user: what it builds lies in the release, and git obeys what lies there."""
    marker = compose_yard.folder / "marker"
    build = f'build: {{context: data/sub, dockerfile_inline: "FROM {busybox}\\nCOPY x /x"}}'
    files = {
        "trap/compose.yml": f"services: {{python-scripts: {{{build}, command: [cat, /x]}}}}\n",
        "trap/data/HEAD": "ref: refs/heads/main\n",
        "trap/data/objects/keep": "",
        "trap/data/refs/heads/main": f"{'1' * 40}\n",
        "trap/data/config": TRAP.format(marker=marker),
        "trap/data/sub/x": "built\n",
    }
    compose_yard.release("v1", named("trap", "trap/compose.yml"), files)
    ran = compose_yard.run()
    assert "built" in said(ran, "trap"), ran.job("trap")
    assert not marker.exists()


ONCE = """
services:
  python-scripts:
    image: {image}
    command: ["sh", "-c", "cat /deep/n"]
    network_mode: service:db
    volumes: ["./deep:/deep:ro"]
    depends_on:
      fills: {{condition: service_completed_successfully}}
      db: {{condition: service_healthy}}
  fills:
    image: {image}
    volumes: ["./deep:/deep"]
    command: ["sh", "-c", "echo filled >> /deep/n; {then}"]
  db:
    image: {image}
    command: sleep 300
    healthcheck: {{test: ["CMD", "true"], interval: 1s}}
"""


def test_what_a_job_waits_for_runs_once(compose_yard: Bench, busybox: str) -> None:
    """A service that does its work and ends is awaited and not started again; when it fails, the job does not begin."""
    then = {"once": "exit 0", "late": "sleep 3; echo late >> /deep/n", "fails": "sleep 3; exit 7"}
    files = {f"{name}/deep/n": "begun\n" for name in then}
    for name, end in then.items():
        files[f"{name}/compose.yml"] = ONCE.format(image=busybox, then=end)
    compose_yard.release("v1", "".join(named(name, f"{name}/compose.yml") for name in then), files)
    ran = compose_yard.run()
    assert said(ran, "once")[-2:] == ["begun", "filled"], ran.stderr
    assert said(ran, "late")[-3:] == ["begun", "filled", "late"]
    assert "exit code 7" in ran.job("fails")["message"]
    assert "begun" not in said(ran, "fails")


CHANGED = """
services:
  python-scripts:
    init: true
    command: ["sh", "-c", "env; cat /host/secret.env"]
    depends_on: {{w: {{condition: service_completed_successfully}}}}
    {lines}
  w:
    image: {image}
    volumes: ["./:/tree"]
    command: ["sh", "-c", "cd /tree && {script}"]
"""
CHANGES = {
    "file": (
        "image: {image}\n    environment: [X=file]",
        "sed -e 's#environment.*f[i]le.*#volumes: [{folder}:/host]#' -i compose.yml",
    ),
    "env-file": (
        "image: {image}\n    env_file: [x.env]",
        "rm x.env && ln -s {folder}/secret.env x.env",
    ),
    "dotenv": (
        "image: {image}\n    environment: ['X=${{X}}']",
        "rm .env && ln -s {folder}/x.env .env",
    ),
    "context": (
        'build: {{context: data, dockerfile_inline: "FROM {image}\\nCOPY . /host/\\nENV X=context"}}',
        "rm -r data && ln -s {folder} data",
    ),
}
"""For each file of the release that compose reads: the batch service's line, and what another service does to it."""


def test_a_stack_cannot_change_what_was_judged(compose_yard: Bench, busybox: str) -> None:
    """Its services may write to the release's copy; compose reads nothing there once one of them runs."""
    folder = compose_yard.folder / "machine"
    folder.mkdir()
    (folder / "secret.env").write_text(f"CANARY={CANARY}\n")
    (folder / "x.env").write_text(f"X={CANARY}\n")
    jobs = ""
    files: dict[str, str] = {}
    for name, (lines, script) in CHANGES.items():
        jobs += named(name, f"{name}/compose.yml")
        files |= {f"{name}/{path}": f"X={name}\n" for path in (".env", "x.env", "data/x")}
        files[f"{name}/compose.yml"] = CHANGED.format(
            image=busybox,
            lines=lines.format(image=busybox),
            script=script.format(folder=folder),
        )
    compose_yard.release("v1", jobs, files)
    ran = compose_yard.run()
    assert CANARY not in ran.stderr + str(ran.outcome)
    assert [name for name in CHANGES if f"X={name}" not in said(ran, name)] == [], ran.stderr
