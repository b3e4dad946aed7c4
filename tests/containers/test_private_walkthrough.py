"""Private repository, private image, the stack as it is: from nothing to manifests, by the README alone.

Its files are written and its commands typed as they stand there, with this machine's addresses in the place of the
world's. What is not here is AWS itself: SSM and CloudFormation are stand-ins, and a machine is its unit's own command.
"""

import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.aws.stack import Stack
from tests.bucket.bucket import Bucket, Run
from tests.bucket.sound import all_sound
from tests.corpus.standins import ensure_all
from tests.parts.aws import KEYS, PERSON, REGION, Aws
from tests.parts.certificate import make_certificate
from tests.parts.command import surroundings
from tests.parts.compose import with_plugin
from tests.parts.docker_engine import DockerEngine
from tests.parts.gitserver import GitServer
from tests.parts.metadata import Metadata
from tests.parts.private_registry import USER, PrivateRegistry
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.parts.sshd import SshServer

ROOT = Path(__file__).parents[2]
README, PRIVATE = ROOT / "README.md", ROOT / "docs/private.md"
SECTION = "Private, and tried before production"
UNIT = ROOT / "systemd/mayfly.service"
COMMAND_SECONDS = 240

TOKEN, PASSWORD = "cAnary-walk-token-e1", "cAnary-walk-password-7d"
IMAGE = "ghcr.io/me/prices:1.4"
COMPOSE = f"""\
version: "3"
services:
  chrome:
    image: mayfly.test/selenium/node-chrome:4.27.0
    shm_size: 2gb
    depends_on:
      - selenium-hub
    environment:
      - SE_EVENT_BUS_HOST=selenium-hub
      - SE_EVENT_BUS_PUBLISH_PORT=4442
      - SE_EVENT_BUS_SUBSCRIBE_PORT=4443
  selenium-hub:
    image: mayfly.test/selenium/hub:4.27.0
    container_name: selenium-hub
    ports:
      - "4442:4442"
      - "4443:4443"
      - "4444:4444"
  scraper:
    image: {IMAGE}
    volumes:
      - ./results:/results
    depends_on:
      - selenium-hub
"""
SCRAPER = """\
import json, urllib.request
hub = "http://selenium-hub:4444"
with urllib.request.urlopen(f"{hub}/status") as answer:
    print("ready:", json.load(answer)["value"]["ready"])
session = urllib.request.Request(f"{hub}/session", b'{"capabilities": {}}', {"Content-Type": "application/json"})
with urllib.request.urlopen(session) as answer:
    browser = json.load(answer)["value"]["capabilities"]["browserName"]
with open("/results/prices.csv", "w") as file:
    print("browser", browser, sep=",", file=file)
"""
DOCKERFILE = 'FROM mayfly.test/python:3.12-slim\nCOPY prices.py /\nCMD ["python", "/prices.py"]\n'


def blocks(page: Path, heading: str, *languages: str) -> list[str]:
    """Return the code blocks of a page's section."""
    section = re.split(r"^## ", page.read_text("utf-8"), flags=re.MULTILINE)
    (text,) = (one for one in section if one.startswith(heading))
    return re.findall(rf"```(?:{'|'.join(languages)})\n(.*?)```", text, re.DOTALL)


def lines(block: str) -> list[str]:
    """Return a block's commands."""
    return [line for line in block.splitlines() if line and not line.startswith("#")]


@dataclass
class Person:
    """Who follows the page in a folder: types its commands, and answers what they ask.

    Attributes:
        folder: The current directory.
        world: What stands for the page's addresses.
        answers: What is typed at a prompt, by the secret's group and name.
        environ: The shell's environment.
        said: All that was printed.
    """

    folder: Path
    world: dict[str, str]
    answers: dict[str, str]
    environ: dict[str, str]
    said: str = ""
    exports: list[str] = field(default_factory=list)

    def here(self, text: str) -> str:
        """Return a text of the page as it reads here."""
        for public, own in self.world.items():
            text = text.replace(public, own)
        return text

    def write(self, block: str) -> None:
        """Write a file of the page, which its first line names; jobs.toml goes into the checkout."""
        named = re.match(r"# (\w+\.toml):", block)
        assert named is not None, block
        place = "scrapers" if named[1] == "jobs.toml" else "."
        (self.folder / place / named[1]).write_text(self.here(block))

    def type(self, line: str) -> str:
        """Type a command, which must succeed; return what it printed."""
        if line.startswith("export "):
            self.exports.append(line)
            return ""
        asked = re.fullmatch(r"mayfly secrets set (.*?)\s*(?:#.*)?", line)
        piped = asked is None or "<" in line
        answer = "" if piped or asked is None else self.answers[self.here(asked[1])]
        done = subprocess.run(
            ["/bin/sh", "-ec", "\n".join([*self.exports, self.here(line)])],
            cwd=self.folder,
            env=self.environ,
            input=answer,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@dataclass
class World:
    """What the page takes for granted: a host of repositories, a registry, a bucket, an AWS."""

    folder: Path
    aws: Aws
    engine: DockerEngine
    registry: PrivateRegistry
    server: S3Server
    name: str
    repo: Repo
    person: Person

    def bucket(self, namespace: str) -> Bucket:
        """Return what is below a namespace of the bucket."""
        return Bucket.on_s3(self.server, self.name, namespace)

    def launch(self, stack: Stack, home: str) -> None:
        """Do what a new machine of a stack does: the unit's command, with the launch's user data and a role's keys."""
        said = stack.user_data
        assert [secret for secret in (TOKEN, PASSWORD) if secret in said] == []
        (command,) = re.findall(r"^ExecStart=\S+/(mayfly .*)$", UNIT.read_text(), re.MULTILINE)
        self.engine.docker("image", "rm", "--force", self.person.here(IMAGE))
        disk = self.folder / home
        disk.mkdir()
        # The machine's network and fence are up.
        (gate := disk / "begin").touch()
        command = command.replace("/run/mayfly/begin", shlex.quote(str(gate)))
        with Metadata(credentials=KEYS, zone=f"{REGION}a") as metadata:
            metadata.said["user-data"] = said
            machine = {
                **self.person.environ,
                "HOME": str(disk),
                "MAYFLY_CONFIG": str(self.person.folder / "agent.toml"),
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url,
                "AWS_EC2_METADATA_DISABLED": "false",
            }
            mine = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
            environ = {name: value for name, value in machine.items() if name not in mine}
            Person(disk, {}, {}, environ).type(command)


@pytest.fixture
def world(
    tmp_path: Path,
    aws_stand_in: Aws,
    docker_engine: DockerEngine,
    s3_server: S3Server,
    s3_bucket: str,
) -> Iterator[World]:
    """With the image in the registry, and an empty folder for the person."""
    (laptop := tmp_path / "laptop").mkdir()
    (git := tmp_path / "git").mkdir()
    (programs := tmp_path / "bin").mkdir()
    shim = programs / "mayfly"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m agent "$@"\n')
    shim.chmod(0o755)
    repo = Repo(git)
    (laptop / "scrapers").symlink_to(repo.work)
    with PrivateRegistry(tmp_path / "registry") as registry:
        registry.admit(PASSWORD)
        prefix = f"walk-{uuid.uuid4().hex[:8]}"
        around = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(laptop),
            "AWS_ENDPOINT_URL": aws_stand_in.url,
            **PERSON,
            # Several runs at once would contend for the usual one.
            "MAYFLY_BROWSER_PORT": "0",
            **docker_engine.environ,
        }
        person = Person(
            laptop,
            {
                "ghcr.io": registry.host,
                "s3://scraped": f"s3://{s3_bucket}",
                "https://s3.ap-northeast-2.wasabisys.com": s3_server.url,
                "ssm:/mayfly/": f"ssm:/{prefix}/",
            },
            {
                f"--registry {registry.host} username": USER,
                f"--registry {registry.host} password": PASSWORD,
                "--bucket access_key_id": s3_server.access_key,
                "--bucket secret_access_key": s3_server.secret_key,
                "--git token": TOKEN,
            },
            with_plugin(surroundings(around)),
        )
        found = World(
            tmp_path,
            aws_stand_in,
            docker_engine,
            registry,
            s3_server,
            s3_bucket,
            repo,
            person,
        )
        _push_image(found)
        yield found
        docker_engine.docker("image", "rm", "--force", person.here(IMAGE))


def _push_image(world: World) -> None:
    ensure_all(world.engine, COMPOSE + DOCKERFILE, world.folder)
    (context := world.folder / "prices").mkdir()
    (context / "prices.py").write_text(SCRAPER)
    (context / "Dockerfile").write_text(DOCKERFILE)
    local = f"mayfly.test/prices-{uuid.uuid4().hex[:8]}"
    world.engine.build(local, context)
    name = world.person.here(IMAGE).partition("/")[2]
    world.registry.push(world.engine, local, name, world.folder / "pushing", PASSWORD)
    world.engine.docker("image", "rm", "--force", local)


def _token(world: World, ended: ExitStack) -> list[str]:
    """Serve the repository over HTTPS to a token; return the page's commands that store it."""
    certificate = make_certificate(world.folder)
    root = world.repo.bare.parent
    server = GitServer(root, user="x-access-token", password=TOKEN, certificate=certificate)
    git = ended.enter_context(server)
    world.person.environ["GIT_SSL_CAINFO"] = str(certificate.file)
    world.person.world["https://github.com/me/scrapers.git"] = git.url()
    return ["mayfly secrets set --git token"]


def _deploy_key(world: World, ended: ExitStack) -> list[str]:
    """Serve it over SSH to a deploy key; return the commands of docs/private.md that make and store one."""
    git = ended.enter_context(SshServer(world.folder / "sshd"))
    world.person.world["https://github.com/me/scrapers.git"] = git.url(world.repo.bare)
    world.person.world["git.example.org"] = f"-p {git.port} 127.0.0.1"
    made, stored, scanned, *_ = blocks(PRIVATE, "1. The repository", "sh")
    (make,) = lines(made)
    world.person.type(make)
    git.admit(world.person.folder / "deploy_key", world.repo.bare)
    return [line for line in lines(scanned) + lines(stored) if not line.startswith("mayfly doctor")]


@pytest.mark.long
@pytest.mark.parametrize("opened_by", [_token, _deploy_key])
def test_the_readme_leads_from_nothing_to_manifests(
    world: World, opened_by: Callable[[World, ExitStack], list[str]]
) -> None:
    """First into the test namespace from the laptop, then each stack of one image into its own."""
    person = world.person
    agent, launch, jobs, laptop, deploy, home = blocks(README, SECTION, "toml", "sh")
    world.repo.work.mkdir(exist_ok=True)
    with ExitStack() as ended:
        store_git = opened_by(world, ended)
        for text in (agent, launch, jobs):
            person.write(text)
        (world.repo.work / "compose.yml").write_text(person.here(COMPOSE))
        world.repo.commit()
        world.repo.tag("v1.0")
        world.repo.push()
        for line in lines(laptop):
            for typed in store_git if line == "mayfly secrets set --git token" else [line]:
                said = person.type(typed)
                if typed.startswith("mayfly doctor"):
                    assert "v1.0" in said
                    assert f"logged in to: {world.registry.host}" in said
        _delivered(world.bucket("test"))

        stacks = []
        for line in lines(deploy):
            words = shlex.split(person.here(line))
            if words[:2] == ["make", "deploy"]:
                options = dict(word.split("=", 1) for word in words[2:])
                form = dict(word.split("=", 1) for word in options["PARAMETERS"].split())
                stacks.append((options["STACK"], Stack(world.aws, **form)))
        assert [name for name, _ in stacks] == ["mayfly-test", "mayfly"]
        for name, stack in stacks:
            world.launch(stack, f"disk of {name}")
        _delivered(world.bucket("test"), runs=2)
        _delivered(world.bucket("prod"))

        person.environ |= world.server.environ
        for line in lines(home):
            person.said += person.type(line)
    kept = [path for path in person.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    texts = {str(path): path.read_bytes() for path in kept} | {"said": person.said.encode()}
    for namespace in ("test", "prod"):
        objects = world.bucket(namespace).objects
        texts |= {f"{namespace}/{key}": objects.get(key) for key in objects.stamps()}
    secrets = [TOKEN.encode(), PASSWORD.encode(), world.server.secret_key.encode()]
    assert [name for name, text in texts.items() if any(one in text for one in secrets)] == []


def _delivered(bucket: Bucket, runs: int = 1) -> None:
    """Expect so many runs, each with the file that the scraper wrote through the hub's browser."""
    found = all_sound(bucket)
    assert len(found) == runs
    run: Run = bucket.run(found[-1])
    assert (run.status, run.statuses) == ("succeeded", {"prices": "succeeded"})
    assert run.files == {"prices/prices.csv": b"browser,chrome\n"}
    assert run.release["ref"] == "v1.0"
