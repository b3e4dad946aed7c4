"""What containers and stacks are told, and what is made of what engines and composes say."""

import json

import pytest
from hypothesis import given as values
from hypothesis import strategies as st

from agent.core.containers import (
    Mount,
    given,
    is_clients_own,
    missing_env_file,
    output_problem,
    override,
    plain_override,
    project_name,
    remedy_for,
    stack_problem,
    told,
)

ENVIRONMENT = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "TZ": "Asia/Tokyo", "TOKEN": "hush"}
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def test_a_container_gets_all_but_what_only_its_image_knows() -> None:
    """PATH, HOME and LANG of this machine mean nothing inside."""
    assert given(ENVIRONMENT, []).arguments == ("--env", "TZ=Asia/Tokyo", "--env", "TOKEN=hush")


@values(st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), texts))
def test_a_secret_is_on_no_command_line(environment: dict[str, str]) -> None:
    """Its name is, and the client's environment has its value; unless the client itself would obey it."""
    way = given(environment, list(environment))
    assert not any("=" in argument for argument in way.arguments)
    for name in set(way.arguments) - {"--env"}:
        assert is_clients_own(name) or way.environ[name] == environment[name]


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "DOCKER_HOST", "COMPOSE_FILE", "PATH", "PYTHONPATH"]
)
def test_what_the_engine_s_client_obeys_is_kept_from_it(name: str) -> None:
    """The client runs as the agent does; a release's variable must not lead it elsewhere."""
    way = given({name: "value"}, [])
    assert name not in way.environ


@pytest.mark.parametrize("path", ["/", "/a/../b", "/a:b", "/a,b", "/a//b", "/a/", '/a"b', "/a\nb"])
def test_odd_output_paths_are_refused(path: str) -> None:
    """Mounts are written with commas and colons between their parts."""
    assert output_problem(path)
    assert output_problem("/data/out-1") is None


@pytest.mark.parametrize(
    "config",
    [
        "services:\n  a:\n    privileged: true\n",
        '{\n  "services": {\n    "a": {\n      "network_mode": "host",\n      "image": "x"\n',
        "    pid: host\n",
        "    - /var/run/docker.sock:/var/run/docker.sock:rw\n",
        '          "source": "/var/run/docker.sock",\n',
        "      source: /run/user/1000/podman/podman.sock\n",
    ],
)
def test_a_stack_that_wants_the_machine_is_found_out(config: str) -> None:
    """In compose's own YAML and in its JSON."""
    assert stack_problem(config)


def test_an_ordinary_stack_wants_nothing_of_it() -> None:
    """Names and texts that only look like it are no reason."""
    text = "    privileged: false\n    network_mode: bridge\n    command: echo docker.sock privileged: true\n"
    assert stack_problem(text) is None


CONFIG = {
    "services": {
        "batch": {
            "build": {"context": "."},
            "networks": {"default": None, "b": {"aliases": ["x"]}},
        },
        "selenium": {"image": "s", "container_name": "chrome", "networks": {"default": None}},
    }
}


def test_the_second_file_maps_folders_and_takes_what_collides() -> None:
    """Ports, fixed names and restarts go; a fixed name stays a name in the stack's network."""
    text = override(CONFIG, "batch", [Mount("/spool/o$1", "/data")], "built-1")
    batch, selenium = text.split('  "selenium":')
    assert '{"type": "bind", "source": "/spool/o$$1", "target": "/data"}' in batch
    assert 'image: "built-1-batch"' in batch
    assert "container_name" not in batch
    assert "container_name: !reset null" in selenium
    assert '"default": {"aliases": ["chrome"]}' in selenium
    assert "volumes" not in selenium
    assert text.count("ports: !reset []") == text.count('restart: "no"') == 2


@pytest.mark.parametrize(
    ("first", "version"),
    [('version: "3.8"', "3.8"), ("version: '2.4' # old", "2.4"), ("version: 3", "3"), ("", None)],
)
def test_for_compose_1_the_second_file_has_the_version_of_the_first(
    first: str, version: str | None
) -> None:
    """It refuses to mix versions."""
    text = plain_override(f"{first}\nservices: {{}}\n", "batch", [Mount("/o", "/data")])
    data = json.loads(text)
    assert data.get("version") == version
    assert data["services"] == {"batch": {"volumes": ["/o:/data"]}}


@pytest.mark.parametrize(
    ("complaint", "path"),
    [
        ("Couldn't find env file: /x/stack/.env", "/x/stack/.env"),
        ("level=warning\nenv file /x/.env not found: stat /x/.env: no such file", "/x/.env"),
        ("services.a.imagination is not allowed", None),
    ],
)
def test_a_missing_env_file_is_recognised(complaint: str, path: str | None) -> None:
    """In the words of compose 1.29 and of 2.26."""
    assert missing_env_file(complaint) == path


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ('Conflict. The container name "/chrome" is already in use by container "1"', '"chrome"'),
        ("Bind for 0.0.0.0:4444 failed: port is already allocated", "port 4444"),
        ("listen tcp4 127.0.0.1:4444: bind: address already in use", "port 4444"),
        ("manifest unknown: manifest unknown", "check the image's name"),
    ],
)
def test_a_collision_is_explained(said: str, remedy: str) -> None:
    """What is taken, and what helps."""
    assert remedy in remedy_for(said)
    assert told("it did not start", ["level=warning x", said]).startswith("it did not start; ")


def test_what_is_not_known_is_quoted_without_advice() -> None:
    """The last line that says something."""
    assert told("it did not start", ["one", "two", " "]) == "it did not start; two"
    assert told("it did not start", []) == "it did not start"


def test_a_project_has_small_letters() -> None:
    """Compose takes no others, and run ids have some."""
    assert project_name("20261122T064205Z-3f9a1c", "a-1") == "mayfly-20261122t064205z-3f9a1c-a-1"
