"""What containers and stacks are told, and what is made of what engines and composes say."""

import copy
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from agent.base.containers import (
    Mount,
    adapted,
    as_yaml,
    container_environment,
    is_clients_own,
    output_problem,
    project_name,
    remedy_for,
    start_failure,
)

ENVIRONMENT = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "TZ": "Asia/Tokyo", "TOKEN": "hush"}
characters = st.characters(codec="utf-8", exclude_characters="\0")
texts, names = st.text(characters), st.text(characters, max_size=50)


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
    "name",
    [
        *(
            "LD_PRELOAD",
            "DOCKER_HOST",
            "DOCKER_X1",
            "COMPOSE_FILE",
            "PATH",
            "PYTHONPATH",
            "GODEBUG",
        ),
        *("GIT_DIR", "GIT_CONFIG_KEY_0", "BUILDX_GIT_INFO"),
    ],
)
def test_what_the_engine_s_client_obeys_is_kept_from_it(name: str) -> None:
    """The client runs as the agent does; a release's variable must not lead it elsewhere."""
    way = container_environment({name: "value"}, [])
    assert name not in way.environ


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "GOOGLE_API_KEY", "LDAP_PASSWORD", "SSLKEY"])
def test_names_that_only_begin_alike_reach_it(name: str) -> None:
    """They are ordinary names of secrets."""
    assert container_environment({name: "value"}, [name]).environ == {name: "value"}


@pytest.mark.parametrize("path", ["/", "/a/../b", "/a:b", "/a,b", "/a//b", "/a/", '/a"b', "/a\nb"])
def test_odd_output_paths_are_refused(path: str) -> None:
    """Mounts are written with commas and colons between their parts."""
    assert output_problem(path)
    assert output_problem("/data/out-1") is None


DOCUMENT: dict[str, Any] = {
    "name": "p",
    "services": {
        "batch": {
            "build": {"context": "."},
            "pull_policy": "build",
            "restart": "always",
            "ports": [{"target": 80, "published": "80"}],
            "networks": {"default": None, "b": {"aliases": ["x"]}},
            "volumes": [{"type": "bind", "source": "/srv/data", "target": "/data/"}],
        },
        "selenium": {
            "image": "s",
            "container_name": "chrome",
            "develop": {"watch": []},
            "deploy": {"replicas": 2, "restart_policy": {"condition": "any"}},
            "networks": {"default": None, "b": {"aliases": ["x"], "priority": 1}},
            "volumes": [{"type": "bind", "source": "/dev/shm", "target": "/dev/shm"}],
        },
        "alone": {"image": "s", "container_name": "a", "network_mode": "none"},
    },
    "networks": {"default": {"name": "web", "internal": True}, "b": {"name": "p_b"}},
    "volumes": {"db": {"name": "prod"}, "theirs": {"name": "prod", "external": True}},
}


def test_a_stack_gets_the_job_s_folders_and_loses_what_collides() -> None:
    """Fixed names, ports and restarts go; a fixed name stays a name in the stack's network. The rest is as it was."""
    before = copy.deepcopy(DOCUMENT)
    found = adapted(DOCUMENT, service="batch", mounts=[Mount("/spool/o$1", "/data")], built="b")
    assert before == DOCUMENT
    assert found["services"] == {
        "batch": {
            "build": {"context": "."},
            "image": "b-batch",
            "networks": {"default": None, "b": {"aliases": ["x"]}},
            "volumes": [{"type": "bind", "source": "/spool/o$1", "target": "/data"}],
        },
        "selenium": {
            "image": "s",
            "deploy": {"replicas": 2},
            "networks": {
                "default": {"aliases": ["chrome"]},
                "b": {"aliases": ["x", "chrome"], "priority": 1},
            },
            # Browsers' images ask for shared memory by mounting the machine's.
            "volumes": [{"type": "tmpfs", "target": "/dev/shm"}],
        },
        "alone": {"image": "s", "network_mode": "none", "volumes": []},
    }
    assert found["networks"] == {
        "default": {"name": "p_default", "internal": True},
        "b": {"name": "p_b"},
    }
    # An external one stays what it is, and is refused.
    assert found["volumes"] == {"db": {"name": "p_db"}, "theirs": DOCUMENT["volumes"]["theirs"]}


def test_a_built_image_carries_the_release_whatever_the_stack_calls_it() -> None:
    """Also for the other services that name it: else they would run what an earlier release left under that name."""
    services = {
        "app": {"build": {"context": "."}, "image": "shop:1"},
        "batch": {"image": "shop:1"},
        "db": {"image": "postgres:16"},
    }
    found = adapted({"services": services}, service="batch", mounts=[], built="b")
    assert {name: own["image"] for name, own in found["services"].items()} == {
        "app": "b-app",
        "batch": "b-app",
        "db": "postgres:16",
    }


@given(st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(names, inner)))
@example({"\U0001f577": "\x7f\x85 \u2028 \ufeff $"})
def test_yaml_takes_what_is_written_for_what_was_meant(value: object) -> None:
    """As it stands: neither are lines folded, nor are there characters that it does not take."""
    assert yaml.safe_load(as_yaml(value)) == value


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
