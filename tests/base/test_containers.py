"""What containers and stacks are told, and what is made of what engines and composes say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.containers import (
    Mount,
    container_environment,
    is_clients_own,
    output_problem,
    override,
    project_name,
    remedy_for,
    start_failure,
)

ENVIRONMENT = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "TZ": "Asia/Tokyo", "TOKEN": "hush"}
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def test_a_container_gets_all_but_what_only_its_image_knows() -> None:
    """PATH, HOME and LANG of this machine mean nothing inside."""
    assert container_environment(ENVIRONMENT, []).arguments == (
        "--env",
        "TZ=Asia/Tokyo",
        "--env",
        "TOKEN=hush",
    )


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), texts))
def test_a_secret_is_on_no_command_line(environment: dict[str, str]) -> None:
    """Its name is, and the client's environment has its value; unless the client itself would obey it."""
    way = container_environment(environment, list(environment))
    assert not any("=" in argument for argument in way.arguments)
    for name in set(way.arguments) - {"--env"}:
        assert is_clients_own(name) or way.environ[name] == environment[name]


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "DOCKER_HOST", "COMPOSE_FILE", "PATH", "PYTHONPATH"]
)
def test_what_the_engine_s_client_obeys_is_kept_from_it(name: str) -> None:
    """The client runs as the agent does; a release's variable must not lead it elsewhere."""
    way = container_environment({name: "value"}, [])
    assert name not in way.environ


@pytest.mark.parametrize("path", ["/", "/a/../b", "/a:b", "/a,b", "/a//b", "/a/", '/a"b', "/a\nb"])
def test_odd_output_paths_are_refused(path: str) -> None:
    """Mounts are written with commas and colons between their parts."""
    assert output_problem(path)
    assert output_problem("/data/out-1") is None


CONFIG = {
    "services": {
        "batch": {
            "build": {"context": "."},
            "networks": {"default": None, "b": {"aliases": ["x"]}},
            "env_file": [{"path": "/t/a.env"}, {"path": "/t/b.env"}],
        },
        "selenium": {
            "image": "s",
            "container_name": "chrome",
            "develop": {"watch": []},
            "deploy": {"restart_policy": {"condition": "any"}},
            "networks": {"default": None},
            "volumes": [{"type": "bind", "source": "/dev/shm", "target": "/dev/shm"}],
        },
    },
    "networks": {"default": {"name": "web"}, "b": {"name": "p_b"}},
    "volumes": {"db": {"name": "prod"}, "theirs": {"name": "prod", "external": True}},
}


def test_the_second_file_maps_folders_and_takes_what_collides() -> None:
    """Ports, fixed names and restarts go; a fixed name stays a name in the stack's network."""
    text = override(
        CONFIG,
        project="p",
        service="batch",
        mounts=[Mount("/spool/o$1", "/data")],
        files={"batch": {"env_file": ("/t/a.env",)}},
        built="built-1",
    )
    batch, selenium = text.split('  "selenium":')
    assert '{"type": "bind", "source": "/spool/o$$1", "target": "/data"}' in batch
    assert 'image: "built-1-batch"' in batch
    assert 'env_file: !override ["/t/a.env"]' in batch
    assert "container_name" not in batch
    assert "container_name: !reset null" in selenium
    assert "develop: !reset null" in selenium
    assert "deploy: {restart_policy: !reset null}" in selenium
    assert '"default": {"aliases": ["chrome"]}' in selenium
    assert text.count("ports: !reset []") == text.count('restart: "no"') == 2
    assert text.endswith(
        'networks:\n  "default": {name: !reset null}\nvolumes:\n  "db": {name: !reset null}\n'
    )


def test_the_machine_s_shared_memory_becomes_the_container_s_own() -> None:
    """Its programs keep what they share there; browsers' images ask for it by mounting /dev/shm."""
    text = override(CONFIG, project="p", service="batch", mounts=[], files={}, built="b")
    batch, selenium = text.split('  "selenium":')
    assert "volumes" not in batch
    assert '    volumes:\n      - {"type": "tmpfs", "target": "/dev/shm"}\n' in selenium


def test_a_built_image_carries_the_release_whatever_the_stack_calls_it() -> None:
    """Also for the other services that name it: else they would run what an earlier release left under that name."""
    services = {
        "app": {"build": {"context": "."}, "image": "shop:${TAG}"},
        "batch": {"image": "shop:${TAG}"},
        "db": {"image": "postgres:16"},
    }
    text = override(
        {"services": services}, project="p", service="batch", mounts=[], files={}, built="b"
    )
    app, rest = text.split('  "batch":')
    batch, db = rest.split('  "db":')
    assert 'image: "b-app"' in app
    assert 'image: "b-app"' in batch
    assert "image" not in db


def test_a_service_without_its_env_file_gets_what_the_job_names() -> None:
    """By name, so that no value is in a file; what the service sets itself stays."""
    services = {"db": {"environment": {"A": "1"}}, "batch": {"environment": ["B=2"]}}
    text = override(
        {"services": services},
        project="p",
        service="batch",
        mounts=[],
        files={},
        built="b",
        variables={"db": ("A", "TOKEN")},
    )
    batch, db = text.split('  "db":')
    assert 'environment: ["TOKEN"]' in db
    assert "environment" not in batch


def test_a_missing_image_is_explained() -> None:
    """What helps comes last."""
    said = "manifest unknown: manifest unknown"
    assert "check the image's name" in remedy_for(said)
    assert start_failure("it did not start", ["level=warning x", said]).startswith(
        "it did not start; "
    )


def test_what_is_not_known_is_quoted_without_advice() -> None:
    """The last line that says something."""
    assert start_failure("it did not start", ["one", "two", " "]) == "it did not start; two"
    assert start_failure("it did not start", []) == "it did not start"


def test_a_project_has_small_letters() -> None:
    """Compose takes no others, and run ids have some."""
    assert project_name("20261122T064205Z-3f9a1c", "a-1") == "mayfly-20261122t064205z-3f9a1c-a-1"


OLD_BUILD = [
    "#5 0.141 stand-in for apk update",
    "0.142 /bin/sh: can't create /etc/apk/repositories: nonexistent directory",
    "------",
    "failed to solve: executor failed running [/bin/sh -c apk update && apk add --no-cache nmap]: exit code: 1",
]
NEW_BUILD = [
    "#7 12.41 ERROR: Could not find a version that satisfies the requirement selenum",
    "------",
    'failed to solve: process "/bin/sh -c pip install -r requirements.txt" did not complete successfully: exit code: 1',
]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ([], "it did not start"),
        (
            ["Error response from daemon: no such image"],
            "Error response from daemon: no such image",
        ),
        (
            OLD_BUILD,
            "can't create /etc/apk/repositories: nonexistent directory (the build's step apk update &&",
        ),
        (
            NEW_BUILD,
            "ERROR: Could not find a version that satisfies the requirement selenum (the build's step pip install -r",
        ),
        (OLD_BUILD[-1:], "failed to solve: executor failed running"),
    ],
)
def test_a_build_that_failed_is_told_by_what_its_step_said(tail: list[str], expected: str) -> None:
    """The last line repeats the whole step, which may be a page, and says nothing of the reason."""
    assert expected in start_failure("it did not start", tail)
