"""What a stack may ask for: what is known to be harmless, and nothing else."""

import posixpath
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.base.containers import Mount
from agent.jobs.containers.policy import (
    HARMLESS,
    Stack,
    dotenv_faults,
    file_fault,
    mounts_of_release,
    named_files,
    place_in_release,
    stack_faults,
    text_faults,
)

TREE = "/spool/run/stack"
OUTPUT = Mount("/spool/run/output", "/data")
STACK = Stack("compose.yml", "p", "a", TREE, (OUTPUT,), real=str)


def keys_of(document: dict[str, Any]) -> list[str]:
    """The keys at fault."""
    return [fault.key for fault in stack_faults(document, STACK)]


def one(**service: Any) -> dict[str, Any]:
    """A stack of one service."""
    return {"services": {"a": service}}


def build(**more: Any) -> dict[str, Any]:
    """A stack of one service, which is built."""
    return one(build={"context": TREE} | more)


def bind(source: str, target: str = "/x", **more: Any) -> dict[str, Any]:
    """A mount as compose writes it."""
    mount = {"type": "bind", "source": source, "target": target}
    return {**mount, "bind": {"create_host_path": True}, **more}


ORDINARY: dict[str, Any] = {
    "name": "p",
    "x-logging": {"driver": "syslog"},
    "services": {
        "batch": {
            "build": {
                "context": TREE,
                "dockerfile": "docker/Dockerfile",
                "args": {"A": "1"},
                "target": "x",
                "additional_contexts": {"base": "service:db", "more": f"{TREE}/more"},
            },
            "cap_add": ["CHOWN", "CAP_NET_BIND_SERVICE"],
            "cap_drop": ["ALL"],
            "command": None,
            "configs": [{"source": "c"}],
            "cpus": 1.5,
            "deploy": {
                "resources": {
                    "limits": {"cpus": 1, "memory": "1"},
                    "reservations": {"memory": "1"},
                },
                "placement": {},
            },
            "depends_on": {"db": {"condition": "service_healthy", "required": True}},
            "dns": ["1.1.1.1"],
            "environment": {"include": "x"},
            "extra_hosts": ["host.docker.internal=host-gateway"],
            "healthcheck": {"test": ["CMD", "true"]},
            "init": True,
            "ipc": "service:db",
            "logging": {"driver": "json-file", "options": {"max-size": "10m"}},
            "mem_limit": "1",
            "network_mode": "service:db",
            "post_start": [{"command": ["true"], "user": "root"}],
            "privileged": False,
            "restart": "no",
            "secrets": [{"source": "s"}],
            "security_opt": ["no-new-privileges:true"],
            "shm_size": "1",
            "sysctls": {"net.core.somaxconn": "1024"},
            "tmpfs": ["/tmp"],
            "ulimits": {"nofile": {"soft": 1, "hard": 2}},
            "volumes": [
                bind(f"{TREE}/data"),
                bind(OUTPUT.source, OUTPUT.target),
                bind("/etc/localtime", read_only=True),
                {"type": "volume", "source": "db", "target": "/v", "volume": {}},
                {"type": "volume", "target": "/anonymous", "volume": {}},
                {"type": "tmpfs", "target": "/dev/shm"},
            ],
            "x-anything": {"privileged": True},
        },
        "db": {"image": "postgres", "networks": {"default": None, "own": {"aliases": ["x"]}}},
    },
    "networks": {
        "default": {"name": "p_default", "ipam": {}},
        "own": {"name": "p_own", "driver": "bridge", "internal": True},
    },
    "volumes": {"db": {"name": "p_db"}},
    "configs": {"c": {"name": "p_c", "file": f"{TREE}/c.conf"}},
    "secrets": {"s": {"name": "p_s", "environment": "TOKEN"}},
}


def test_an_ordinary_stack_has_no_faults() -> None:
    """As compose writes what public stacks ask for."""
    assert stack_faults(ORDINARY, STACK) == ()


def test_the_documentation_has_what_is_allowed() -> None:
    """With the reason."""
    text = (Path(__file__).parents[2] / "docs" / "containers.md").read_text("utf-8")
    for reason, keys in HARMLESS.items():
        if reason != "files whose definitions are judged":
            assert f"| {', '.join(f'`{key}`' for key in sorted(keys))} | {reason} |" in text


SERVICE_WISHES: tuple[tuple[str, Any], ...] = (
    ("annotations", {"run.oci.handler": "x"}),
    ("cap_add", ["SYS_ADMIN"]),
    ("cap_add", ["ALL"]),
    ("cgroup", "host"),
    ("cgroup_parent", "system.slice"),
    ("cpu_rt_runtime", "1s"),
    ("credential_spec", {"file": "x"}),
    ("device_cgroup_rules", ["a *:* rwm"]),
    ("devices", [{"source": "/dev/sda", "target": "/dev/sda"}]),
    ("external_links", ["x"]),
    ("gpus", [{"count": -1}]),
    ("ipc", "host"),
    ("ipc", "container:x"),
    ("isolation", "process"),
    ("models", {"m": None}),
    ("network_mode", "host"),
    ("network_mode", "container:x"),
    ("network_mode", "prod_default"),
    ("oom_kill_disable", True),
    ("oom_score_adj", -1000),
    ("pid", "host"),
    ("pid", "container:x"),
    ("ports", [{"target": 80, "published": "80"}]),
    ("privileged", True),
    ("provider", {"type": "x"}),
    ("runtime", "crun"),
    ("security_opt", ["seccomp:unconfined"]),
    ("security_opt", ["no-new-privileges:false"]),
    ("sysctls", {"kernel.core_pattern": "|/x"}),
    ("ulimits", {"rtprio": 99}),
    ("use_api_socket", True),
    ("userns_mode", "host"),
    ("uts", "host"),
    ("volumes_from", ["container:x"]),
)
INNER_WISHES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("build.additional_contexts.x", build(additional_contexts={"x": "/etc"})),
    ("build.cache_to", build(cache_to=["type=local,dest=/etc/cron.d"])),
    ("build.context", build(context="https://example.org/x.git", dockerfile_inline="x")),
    ("build.dockerfile", build(dockerfile="/etc/passwd")),
    ("build.dockerfile", build(dockerfile="../x")),
    ("build.entitlements", build(entitlements=["security.insecure"])),
    ("build.network", build(network="host")),
    ("build.privileged", build(privileged=True)),
    ("build.ssh", build(ssh=["default"])),
    ("build.tags", build(tags=["postgres"])),
    (
        "deploy.resources.reservations.devices",
        one(deploy={"resources": {"reservations": {"devices": [{}]}}}),
    ),
    ("deploy.restart_policy", one(deploy={"restart_policy": {"condition": "any"}})),
    ("logging.driver", one(logging={"driver": "syslog"})),
    ("networks.n.driver_opts", one(networks={"n": {"driver_opts": {"x": "y"}}})),
    ("post_start.privileged", one(post_start=[{"command": ["x"], "privileged": True}])),
    ("storage_opt.x", one(storage_opt={"x": "y"})),
    ("volumes", one(volumes=[bind("/etc/localtime")])),
    ("volumes", one(volumes=[bind("/dev/shm/x")])),
    ("volumes", one(volumes=[bind(OUTPUT.source, "/other")])),
    ("volumes", one(volumes=[bind(f"{TREE}/../output")])),
    ("volumes", one(volumes=[bind(f"{TREE}-other")])),
    ("volumes", one(volumes=[{"type": "npipe", "source": "x", "target": "/x"}])),
    ("volumes.bind.propagation", one(volumes=[bind(TREE, bind={"propagation": "rshared"})])),
)
OUTER_WISHES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("configs.c.external", {"configs": {"c": {"external": True}}}),
    ("configs.c.file", {"configs": {"c": {"file": "/etc/shadow"}}}),
    ("include", {"include": ["x"]}),
    ("models", {"models": {"m": {"model": "x"}}}),
    ("networks.n.driver", {"networks": {"n": {"name": "p_n", "driver": "macvlan"}}}),
    ("networks.n.driver_opts", {"networks": {"n": {"driver_opts": {"x": "docker0"}}}}),
    ("networks.n.ipam", {"networks": {"n": {"name": "p_n", "ipam": {"config": [{}]}}}}),
    ("networks.n.name", {"networks": {"n": {"name": "host"}}}),
    ("secrets.s.driver", {"secrets": {"s": {"driver": "x"}}}),
    ("secrets.s.file", {"secrets": {"s": {"file": "/etc/mayfly/agent.toml"}}}),
    ("volumes.v.driver", {"volumes": {"v": {"name": "p_v", "driver": "rclone"}}}),
    ("volumes.v.driver_opts", {"volumes": {"v": {"name": "p_v", "driver_opts": {"o": "bind"}}}}),
    ("volumes.v.external", {"volumes": {"v": {"name": "p_v", "external": True}}}),
    ("volumes.v.name", {"volumes": {"v": {"name": "prod"}}}),
)
WISHES = (
    *((f"services.a.{key}", one(**{key: value})) for key, value in SERVICE_WISHES),
    *((f"services.a.{key}", document) for key, document in INNER_WISHES),
    *OUTER_WISHES,
)


@pytest.mark.parametrize(
    ("key", "document"), WISHES, ids=[f"{n}-{key}" for n, (key, _) in enumerate(WISHES)]
)
def test_what_reaches_the_machine_is_refused_with_a_remedy(
    key: str, document: dict[str, Any]
) -> None:
    """The key is named, and what to do instead."""
    faults = stack_faults(document, STACK)
    assert key in [fault.key for fault in faults]
    assert all(fault.problem and fault.remedy for fault in faults)


def test_all_faults_are_told_at_once() -> None:
    """One for each value."""
    mounts = [bind("/")]
    document = one(privileged=True, cap_add=["SYS_ADMIN", "CHOWN", "SYS_PTRACE"], volumes=mounts)
    assert keys_of(document) == [
        f"services.a.{key}" for key in ("privileged", "cap_add", "cap_add", "volumes")
    ]


KNOWN = frozenset(key for keys in HARMLESS.values() for key in keys)
JUDGED = (
    frozenset(ORDINARY["services"]["batch"])
    | {key for key, _ in SERVICE_WISHES}
    | {"networks", "pre_stop"}
)
texts = st.text()
values = st.booleans() | st.integers() | texts | st.lists(texts) | st.dictionaries(texts, texts)


@given(st.text(min_size=1), values)
def test_a_key_that_nobody_has_looked_at_is_refused(key: str, value: Any) -> None:
    """Unless it asks for nothing, or is an extension, which compose passes over."""
    assume(key not in KNOWN | JUDGED)
    expected = [f"services.a.{key}"] if value and not key.startswith("x-") else []
    assert keys_of(one(**{key: value})) == expected


@given(st.sampled_from(sorted(JUDGED - KNOWN)), values)
def test_a_key_that_is_judged_never_breaks_the_judge(key: str, value: Any) -> None:
    """Whatever compose lets through."""
    stack_faults(one(**{key: value}), STACK)


@given(st.lists(st.sampled_from(["a", "..", ".", "stack", "etc", "run"]), max_size=8))
def test_a_folder_is_mounted_if_it_is_the_release_s(parts: list[str]) -> None:
    """However its path is written."""
    source = posixpath.join(TREE, *parts)
    plain = posixpath.normpath(source)
    inside = plain == TREE or plain.startswith(f"{TREE}/")
    real = Stack("compose.yml", "p", "a", TREE, (), real=posixpath.normpath)
    assert (stack_faults(one(volumes=[bind(source)]), real) == ()) is inside


def test_a_link_in_the_release_is_not_followed() -> None:
    """It may lead anywhere, or be changed by the service that mounts the folder in which it is."""
    real = {f"{TREE}/link": "/etc", TREE: TREE}.__getitem__
    stack = Stack("compose.yml", "p", "a", TREE, (), real=real)
    assert stack_faults(one(volumes=[bind(f"{TREE}/link")]), stack)
    assert file_fault("a", "env_file", f"{TREE}/link", stack)


def two(writer: dict[str, Any], **reader: Any) -> list[str]:
    """What is wrong with two services that mount something."""
    configs = {"c": {"name": "p_c", "file": f"{TREE}/data/c.conf"}}
    return keys_of({"services": {"w": {"volumes": [writer]}, "r": reader}, "configs": configs})


def test_a_mount_that_another_service_can_replace_is_refused() -> None:
    """It would put a link there, which the engine follows on the machine."""
    inner = bind(f"{TREE}/data/x")
    assert two(bind(f"{TREE}/data"), volumes=[inner]) == ["services.r.volumes"]
    assert two(bind(TREE), configs=[{"source": "c"}]) == ["services.r.volumes"]
    assert two(bind(f"{TREE}/data", read_only=True), volumes=[inner]) == []
    assert two(bind(f"{TREE}/data/x"), volumes=[inner]) == []
    assert two(bind(f"{TREE}/dat"), volumes=[inner]) == []


def test_a_mount_that_its_own_service_can_replace_is_refused_but_for_the_job_s() -> None:
    """Of the others compose may start several containers, or one again, and meet the link that the first put there."""
    both = {"volumes": [bind(TREE), bind(f"{TREE}/data")]}
    assert keys_of(one(**both)) == []
    assert keys_of({"services": {"a": {}, "w": both}}) == ["services.w.volumes"]
    once = [bind(TREE, read_only=True), bind(f"{TREE}/data")]
    assert keys_of({"services": {"a": {}, "w": {"volumes": once}}}) == []


def test_files_of_variables_are_the_release_s_own() -> None:
    """Compose reads them with the agent's rights; a variable in the path may lead anywhere."""
    files = [{"path": f"{TREE}/a.env", "required": False}, "/etc/mayfly/secrets.env"]
    service = {"env_file": files, "label_file": f"{TREE}/${{X}}.labels"}
    assert dict(named_files(service)) == {**service, "label_file": [f"{TREE}/${{X}}.labels"]}
    assert file_fault("a", "env_file", f"{TREE}/a.env", STACK) is None
    assert file_fault("a", "env_file", "/etc/mayfly/secrets.env", STACK)
    assert file_fault("a", "label_file", f"{TREE}/${{X}}.labels", STACK)


HIDING = (
    "services: {a: {extends: {file: /x}}}",
    "services:\n  a:\n    extends :\n      service: b",
    'services: {a: {"extends":{file: /x}}}',
    "include: [/x]",
    "'include': [/x]",
    "? include\n: [/x]",
    "? |-\n  include\n: [/x]",
    "{? !!binary aW5jbHVkZQ== : [/x]}",
    "!!binary aW5jbHVkZQ==: [/x]",
    "!<tag:yaml.org,2002:binary> aW5jbHVkZQ==: [/x]",
    "%TAG !x! tag:yaml.org,2002:\n---\n!x!binary aW5jbHVkZQ==: [/x]",
    "x-a: &a include\n*a : [/x]",
    'a: "text\n  # end", include: [/x]',
)


@pytest.mark.parametrize("text", HIDING)
def test_a_stack_is_one_file(text: str) -> None:
    """However YAML lets one write the key that names another."""
    assert text_faults(text.encode(), STACK)


@given(st.sampled_from(["extends", "include"]), st.data())
def test_a_key_is_seen_with_its_letters_as_numbers(word: str, data: st.DataObject) -> None:
    """Any of them, in each way that YAML has."""
    forms = [
        (letter, f"\\x{ord(letter):02x}", f"\\u{ord(letter):04X}", f"\\U{ord(letter):08x}")
        for letter in word
    ]
    key = "".join(data.draw(st.sampled_from(form)) for form in forms)
    assert text_faults(f'services: {{a: {{"{key}": x}}}}'.encode(), STACK)
    assert text_faults(word.encode("utf-16") + b": x", STACK)


@pytest.mark.parametrize(
    "text",
    [
        "# this may include: anything\nservices: {a: {command: [x, --include, y]}}",
        'services: {a: {environment: {NAME: "caf\\u00e9", WHY: "what? *all*: !"}}}',
        "x-common: &common {restart: always}\nservices: {a: {<<: *common, image: x}}",
        "services:\n  a:\n    command: >\n      sh -c 'find . -name *.py \\\n      && echo done!'",
        "services: {a: {ports: !reset [], image: !!str 1}}",
        "x-include: 1\nservices: {a: {labels: {cron: '* * * * *'}}}",
    ],
)
def test_an_ordinary_file_hides_nothing(text: str) -> None:
    """Words, escapes, anchors and marks where they mean something else."""
    assert text_faults(text.encode(), STACK) == ()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("DOCKER_HOST=tcp://x", "DOCKER_HOST"),
        ("  export DOCKER_CONFIG = x", "DOCKER_CONFIG"),
        ("COMPOSE_ENV_FILES: /x", "COMPOSE_ENV_FILES"),
        ("B='x' DOCKER_HOST=tcp://x", "DOCKER_HOST"),
        ("COMPOSE_PROJECT_NAME=x", None),
        ("# DOCKER_HOST=x", None),
        ("MY_DOCKER_HOST=x", None),
    ],
)
def test_env_beside_the_stack_does_not_lead_compose_elsewhere(line: str, name: str | None) -> None:
    """Compose takes what it sets for its own environment."""
    faults = dotenv_faults(f"A=b\n{line}\n", ".env")
    assert [fault.key for fault in faults] == ([name] if name else [])


def test_where_a_service_has_folders_of_the_release() -> None:
    """What it may write to, below the release."""
    service = {
        "volumes": [
            bind(f"{TREE}/app", "/app/"),
            bind(TREE, "/src"),
            bind(f"{TREE}/notes", "/notes", read_only=True),
            bind("/elsewhere", "/other"),
            {"type": "volume", "source": "data", "target": "/data"},
        ]
    }
    assert mounts_of_release(service, TREE) == {"/app": "app", "/src": "."}
    assert mounts_of_release({}, TREE) == {}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *(("/app", "app"), ("/app/out/deep", "app/out/deep"), ("/src", "."), ("/src/app", "other")),
        *(("/src/data", "data"), ("/application", None), ("/", None)),
    ],
)
def test_a_path_in_a_service_is_a_folder_of_the_release(path: str, expected: str | None) -> None:
    """The nearest mount above it counts."""
    mounted = {"/app": "app", "/src": ".", "/src/app": "other"}
    assert place_in_release(path, mounted) == expected
