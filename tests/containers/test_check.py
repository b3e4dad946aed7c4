"""What `mayfly check` sees of container jobs, without an engine."""

import json
import subprocess
from pathlib import Path

from agent.base.engine import Engine
from agent.jobs.containers.compose import compose_environ
from tests.parts.command import mayfly, surroundings
from tests.parts.compose import with_plugin

UNIT = Path(__file__).parents[2] / "systemd/mayfly.service"
JOBS = """
[[job]]
name = "legacy"
compose = "deploy/compose.yml"
service = "python-scripts"

[[job]]
name = "contained"
image = "hoge:1.4"
command = ["--all"]
"""


def check(
    folder: Path, *options: str, compose: bool = True, jobs: str = JOBS
) -> subprocess.CompletedProcess[str]:
    """Run `mayfly check` on a folder with a jobs file."""
    (folder / "jobs.toml").write_text(jobs)
    around = surroundings({"DOCKER_CONFIG": str(folder)})
    environ = with_plugin(surroundings({})) if compose else around
    return mayfly("check", *options, str(folder), environ=environ)


def compose_file(folder: Path, text: str) -> Path:
    """Write the stack."""
    file = folder / "deploy" / "compose.yml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_a_compose_file_must_be_there_and_have_the_service(tmp_path: Path) -> None:
    """A name that it nowhere has is a fault also where compose is not installed."""
    missing = check(tmp_path)
    assert missing.returncode == 4
    assert "job[legacy].compose: deploy/compose.yml cannot be read" in missing.stdout
    compose_file(tmp_path, "services:\n  other:\n    image: x\n")
    wrong = check(tmp_path, compose=False)
    assert 'job[legacy].service: deploy/compose.yml has no service "python-scripts"' in wrong.stdout
    compose_file(tmp_path, "services:\n  other:\n    image: x # no python-scripts\n")
    wrong = check(tmp_path)
    assert 'services: has no "python-scripts" (its services are other)' in wrong.stdout
    compose_file(tmp_path, "services:\n  python-scripts:\n    image: x\n")
    assert check(tmp_path).returncode == 0


GREEDY = """
services:
  python-scripts:
    image: x
    privileged: true
    env_file: [/etc/hostname, ../missing.env]
    volumes: [/:/host, ../data:/data, ../link:/link]
    depends_on: [other]
  other:
    image: x
    profiles: [sometimes]
    network_mode: host
"""


def test_check_says_what_the_machine_will_say(tmp_path: Path) -> None:
    """All faults at once, each with service, key, value and remedy; also those of profiles that are off."""
    compose_file(tmp_path, GREEDY)
    (tmp_path / "link").symlink_to("/etc")
    checked = check(tmp_path, "--json")
    assert checked.returncode == 4, checked.stderr
    faults = json.loads(checked.stdout)["faults"]
    assert [(fault["key"], fault["problem"].partition(": ")[0]) for fault in faults] == [
        ("services.python-scripts.env_file", "/etc/hostname"),
        ("services.python-scripts.env_file", "missing.env"),
        ("services.other.network_mode", "host"),
        ("services.python-scripts.privileged", "true"),
        ("services.python-scripts.volumes", "/:/host"),
        ("services.python-scripts.volumes", f"{tmp_path}/link:/link"),
    ]
    assert all(fault["source"] == "deploy/compose.yml" and fault["remedy"] for fault in faults)
    assert not (tmp_path / "missing.env").exists()


def test_what_a_stack_lacks_hides_nothing_else_of_it(tmp_path: Path) -> None:
    """Neither a service that is not there, nor another job's missing file, each with its own remedy."""
    compose_file(
        tmp_path, "services:\n  other:\n    image: x\n    privileged: true # python-scripts\n"
    )
    jobs = JOBS + '\n[[job]]\nname = "gone"\ncompose = "gone.yml"\nservice = "x"\n'
    checked = check(tmp_path, "--json", jobs=jobs)
    faults = json.loads(checked.stdout)["faults"]
    assert [(fault["key"], fault["remedy"].partition(" ")[0]) for fault in faults] == [
        ("job[gone].compose", "commit"),
        ("services", "its"),
        ("services.other.privileged", "remove"),
    ]


def test_compose_reads_no_file_that_the_release_does_not_have(tmp_path: Path) -> None:
    """Neither the stack nor the variables beside it may be a link; compose would quote what is there."""
    (tmp_path / "secret").write_text("hush-hush\n")
    release = tmp_path / "release"
    release.mkdir()
    file = compose_file(release, "services: {python-scripts: {image: x}}\n")
    (release / "deploy" / ".env").symlink_to(tmp_path / "secret")
    variables = check(release)
    assert "deploy/.env: is not a file of the release, or a link" in variables.stdout
    (release / "deploy" / ".env").unlink()
    (tmp_path / "secret").write_text("python-scripts: hush-hush\n")
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    linked = check(release)
    assert "deploy/compose.yml: is not a file of the release, or a link" in linked.stdout
    assert "hush" not in variables.stdout + variables.stderr + linked.stdout + linked.stderr


def test_without_compose_check_says_what_it_has_not_looked_at(tmp_path: Path) -> None:
    """That is no fault of the stack."""
    compose_file(tmp_path, GREEDY)
    checked = check(tmp_path, compose=False)
    assert checked.returncode == 0
    assert "not checked: deploy/compose.yml: a stack needs docker compose" in checked.stderr


def test_builds_keep_their_state_where_the_unit_may_write() -> None:
    """Compose has buildx build, which writes beside docker's configuration unless it is told another place."""
    unit = UNIT.read_text().splitlines()
    lines = [line.removeprefix("Environment=") for line in unit if line.startswith("Environment=")]
    environ = dict(pair.split("=", 1) for line in lines for pair in line.split())
    (state,) = [
        line.removeprefix("StateDirectory=") for line in unit if line.startswith("StateDirectory=")
    ]
    environment = compose_environ(Engine(environ), {"BUILDX_GIT_INFO": "true"})
    assert environment["BUILDX_GIT_INFO"] == environment["BUILDX_GIT_LABELS"] == "false"
    place = Path(environment["BUILDX_CONFIG"])
    assert place.is_relative_to(Path("/var/lib", state))
