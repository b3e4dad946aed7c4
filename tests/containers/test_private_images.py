"""Images out of a registry that wants a login: for jobs, stacks and the browser; no job sees anything of it."""

import asyncio
import base64
import json
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.base.engine import Engine, registry_meaning
from agent.base.errors import ContainerError, ReleaseRefused
from agent.base.logs import RunLogger
from agent.config.settings import Settings
from agent.release.images import have_image
from agent.secrets.keyring import Keyring
from agent.secrets.registries import client_config, host_of, needed
from tests.bucket.sound import all_sound
from tests.parts.docker_engine import DockerEngine
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.private_registry import USER, PrivateRegistry
from tests.parts.registry_tokens import LIFETIME, TokenService
from tests.run.bench import Bench

PASSWORD = f"cAnary-registry-password-{secrets.token_hex(4)}"
"""Of this process of the tests: another one may give it to docker's client while a job here looks at all processes."""
USUAL_PATH = "/usr/local/bin:/usr/bin:/bin"
ECR = "123456789012.dkr.ecr.ap-northeast-3.amazonaws.com"
JOB = """
    [[job]]
    name = "contained"
    image = "IMAGE"
    command = ["sh", "-c", "env; echo done > $MAYFLY_OUTPUT_DIR/done.txt"]
"""
STACK = """
    [[job]]
    name = "stack"
    compose = "compose.yml"
    service = "batch"
    output = "/data"
"""


@dataclass
class Private:
    """A registry with one image, and a file with the login to it."""

    registry: PrivateRegistry
    engine: DockerEngine
    image: str
    login: Path
    config: Path

    def forget(self) -> None:
        """Have the engine no longer have the image."""
        self.engine.docker("image", "rm", "--force", self.image)

    def remember(self, password: str) -> None:
        """Have the agent use a password."""
        self.login.write_text(f"username={USER}\npassword={password}\n")
        self.login.chmod(0o600)

    def settings(self) -> Settings:
        """The configuration that says where the login is."""
        entry = {self.registry.host: {"credentials": str(self.login)}}
        return Settings.model_validate({"registry": entry})


@pytest.fixture
def private(docker_engine: DockerEngine, busybox: str, tmp_path: Path) -> Iterator[Private]:
    """A registry that lets in whoever has the password."""
    with PrivateRegistry(tmp_path / "registry") as registry:
        registry.admit(PASSWORD)
        pushing = tmp_path / "pushing"
        image = registry.push(docker_engine, busybox, "team/box:1", pushing, PASSWORD)
        config = tmp_path / "agent.toml"
        login = tmp_path / "registry-login"
        config.write_text(f'[registry."{registry.host}"]\ncredentials = "{login}"\n')
        found = Private(registry, docker_engine, image, login, config)
        found.remember(PASSWORD)
        yield found
        found.forget()


@pytest.fixture
def knowing(compose_yard: Bench, private: Private) -> Bench:
    """A computer whose agent knows the registry."""
    (compose_yard.folder / "runtime").mkdir()
    compose_yard.environ["XDG_RUNTIME_DIR"] = str(compose_yard.folder / "runtime")
    compose_yard.environ["MAYFLY_CONFIG"] = str(private.config)
    return compose_yard


def left(bench: Bench) -> list[Path]:
    """What is left of the configurations of docker's client that its agent made."""
    return [*Path(bench.environ["XDG_RUNTIME_DIR"]).iterdir()]


PROWLS = """
import json, os, pathlib
sought = [text[::-1].encode() for text in os.environ["SOUGHT"].split()]
roots = [pathlib.Path(place) for place in (os.environ["STATE"], os.environ["CLIENTS"], "/run")]
files = [file for root in roots for file in root.rglob("config.json")]
files += [file for name in ("environ", "cmdline") for file in pathlib.Path("/proc").glob(f"[0-9]*/{name}")]
looked, found = 0, []
for file in files:
    try:
        content = file.read_bytes()
    except OSError:
        continue
    looked += 1
    found += [str(file) for text in sought if text in content]
pathlib.Path(os.environ["MAYFLY_OUTPUT_DIR"], "found.json").write_text(json.dumps([looked, found]))
"""
BUILT = """
    services:
      batch:
        build:
          context: .
          args: {{CLIENT: "${{DOCKER_CONFIG:-none}}"}}
        depends_on: [beside]
        environment: {{CLIENT: "${{DOCKER_CONFIG:-none}}"}}
        command: ["sh", "-c", "echo $$CLIENT > /data/client.txt; cat /built >> /data/client.txt"]
      beside:
        image: {image}
        command: ["sleep", "60"]
"""


def test_jobs_and_stacks_run_in_private_images_until_the_login_is_revoked(
    knowing: Bench, private: Private
) -> None:
    """A stack gets the images that it names and builds from, before anything of it runs.

    No job and no reader sees the password, neither as it is nor as docker's client writes it: in no file, process,
    object of the bucket, or log. When it is revoked, both jobs say so, and so does the doctor.
    """
    written = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    jobs = f"""
        {JOB.replace("IMAGE", private.image)}
        {STACK}
        [[job]]
        name = "prowls"
        command = ["python3", "prowls.py"]
        needs = ["contained", "stack"]
        env.SOUGHT = "{PASSWORD[::-1]} {written[::-1]}"
        env.STATE = "{knowing.state}"
        env.CLIENTS = "{knowing.environ["XDG_RUNTIME_DIR"]}"
    """
    dockerfile = f"FROM {private.image}\nARG CLIENT\nRUN echo $CLIENT > /built\n"
    files = {"compose.yml": BUILT.format(image=private.image), "Dockerfile": dockerfile}
    knowing.release("v1.0", jobs, {"prowls.py": PROWLS, **files})
    ran = knowing.run()
    assert ran.outcome["status"] == "succeeded", ran.stderr
    (run,) = all_sound(knowing.bucket)
    results = knowing.bucket.run(run).files
    looked, found = json.loads(results["prowls/found.json"])
    assert (looked > 20, found) == (True, [])
    assert "mayfly-docker" not in results["stack/client.txt"].decode()
    built = [event["action"] for event in ran.events("job.images_wanted")]
    assert built == ["compose pull", "compose build"]
    assert "logged in to" in knowing.mayfly("doctor").stdout

    private.forget()
    private.registry.admit("another")
    refused = knowing.run()
    for name in ("contained", "stack"):
        assert refused.job(name)["status"] == "failed"
        assert "the registry denied access" in refused.job(name)["message"]
    alarmed = knowing.mayfly("doctor")
    told = alarmed.stdout + alarmed.stderr
    assert f"{private.registry.host}: docker login failed: the registry denied access" in told

    places = {key: knowing.bucket.objects.get(key) for key in knowing.bucket.objects.stamps()}
    places |= {str(path): path.read_bytes() for path in knowing.state.rglob("*") if path.is_file()}
    places["printed"] = (ran.stderr + refused.stderr + told).encode()
    texts = (PASSWORD.encode(), written.encode())
    assert [name for name, content in places.items() for text in texts if text in content] == []
    assert left(knowing) == []


def test_preparing_an_image_of_the_machine_fetches_what_is_private(
    knowing: Bench, private: Private
) -> None:
    """The images of jobs and of stacks, with the same login."""
    stack = f"services: {{batch: {{image: {private.image}}}}}"
    jobs = JOB.replace("IMAGE", private.image) + STACK
    knowing.release("v1.0", jobs, {"compose.yml": stack})
    pairs = (f"release.repository={knowing.repo.bare}", f"paths.state={knowing.state}")
    done = knowing.mayfly("prepare", *(text for pair in pairs for text in ("--set", pair)))
    assert done.returncode == 0, done.stderr
    assert private.engine.has(private.image)
    assert "stack.incomplete" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert left(knowing) == []


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("Get https://r/v2/: x509: certificate has expired or is not yet valid", "certificate"),
        ("pull access denied for me/x, repository does not exist or may require", "denied access"),
        ("no basic auth credentials", "denied access"),
        ("manifest for me/x:9 not found: manifest unknown", "has no such image"),
        ("dial tcp: lookup ghcr.io: no such host", ""),
    ],
)
def test_what_registries_say_is_understood(said: str, meaning: str) -> None:
    """Complaints as docker, Docker Hub, ECR and the registry of Debian word them."""
    found, remedy = registry_meaning(said.lower())
    assert (meaning in found, bool(remedy)) == (True, bool(meaning))


async def test_the_browsers_image_may_be_private(private: Private) -> None:
    """A release that pins one is refused when the login is wrong, with what would help."""
    environ = {"PATH": USUAL_PATH, **private.engine.environ}
    for password in (PASSWORD, "wr0ng-wr0ng"):
        private.forget()
        private.remember(password)
        login = Keyring(private.settings(), private.engine.environ).docker
        pulling = have_image(private.image, environ, RunLogger().log, login)
        if password == PASSWORD:
            assert await pulling
            continue
        with pytest.raises(ReleaseRefused, match="denied access") as raised:
            await pulling
        assert "revoked" in raised.value.remedy


async def test_a_login_is_in_a_file_of_ours_for_one_command(
    private: Private, tmp_path: Path
) -> None:
    """Beside what the user's own client has; a killed agent's is removed by the next."""
    own = tmp_path / "docker"
    (own / "contexts").mkdir(parents=True)
    (own / "config.json").write_text(
        '{"auths": {"other": {"auth": "eA=="}}, "credsStore": "desktop"}'
    )
    (tmp_path / "run").mkdir()
    dead = tmp_path / "run" / "mayfly-docker-4194305-x"  # above the largest number of a process
    dead.mkdir()
    environ = {"DOCKER_CONFIG": str(own), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    hidden: dict[str, str] = {}
    keyring = Keyring(private.settings(), environ, hidden.update)
    async with keyring.docker([private.image]) as folder:
        assert folder is not None
        assert not dead.exists()
        file = folder / "config.json"
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)] == [0o700, 0o600]
        found = json.loads(file.read_text())
        assert set(found["auths"]) == {"other", private.registry.host}
        assert found["credHelpers"] == {private.registry.host: ""}
        assert (folder / "contexts").is_dir()
    assert not folder.exists()
    assert list(hidden.values()) == [PASSWORD]
    async with keyring.docker(["public.example/other:1"]) as none:
        assert none is None


async def test_ecr_asks_the_role_and_needs_no_entry(aws: dict[str, str], tmp_path: Path) -> None:
    """The login is the role's, for the registry's own region."""
    environ = {**aws, "HOME": str(tmp_path)}
    keyring = Keyring(Settings(), environ)
    async with keyring.docker([f"{ECR}/team/box:1"]) as folder:
        assert folder is not None
        auth = json.loads((folder / "config.json").read_text())["auths"][ECR]["auth"]
        assert base64.b64decode(auth).startswith(b"AWS:")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("AccessDeniedException", "ecr:GetAuthorizationToken"),
        ("UnrecognizedClientException", "log in again"),
        ("ExpiredTokenException", "log in again"),
    ],
)
async def test_what_ecr_says_of_a_role_is_said(
    aws: dict[str, str], tmp_path: Path, code: str, remedy: str
) -> None:
    """A login that one run got is of no use to the next: revoked in between, denied, unknown, expired."""

    class Denies(QuietHandler):
        def do_POST(self) -> None:  # noqa: N802 -- the name is the library's
            self.read_body()
            self.answer(400, json.dumps({"__type": code, "message": "no"}).encode())

    environ = {**aws, "HOME": str(tmp_path)}
    assert (await Keyring(Settings(), environ).registry(ECR)).username == "AWS"
    with LoopbackHttp(Denies) as denies:
        environ["AWS_ENDPOINT_URL"] = denies.url
        engine = Engine(environ, Keyring(Settings(), environ).docker)
        with pytest.raises(ContainerError, match=f"ECR answered {code}") as raised:
            await engine.pull(f"{ECR}/team/box:1")
    assert remedy in raised.value.remedy


def errors(code: str, message: str) -> bytes:
    """Return a body as registries send it."""
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


DENIED, EXPIRED = "the registry denied access", "the registry's login has expired"
LIMIT = "the registry's limit on pulls is reached"
ECR_EXPIRED = "Your authorization token has expired. Reauthenticate and try again."
HUB_EXPIRED = "personal access token is expired"
HUB_LIMIT = "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"
GITLAB = (
    "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or"
    " you're required to use a token instead of a password. If a token was provided, it was either incorrect,"
    " expired, or improperly scoped."
)


@pytest.mark.parametrize(
    ("status", "body", "meaning", "remedy"),
    [
        # aws/aws-cli#6580, awslabs/amazon-ecr-credential-helper#118 and #286
        pytest.param(403, errors("DENIED", ECR_EXPIRED), EXPIRED, "role", id="ECR, expired"),
        # aws/aws-lambda-web-adapter#429
        pytest.param(429, errors("TOOMANYREQUESTS", "Rate exceeded"), LIMIT, "log in", id="ECR"),
        # docker/hub-feedback#2464
        pytest.param(429, errors("TOOMANYREQUESTS", HUB_LIMIT), LIMIT, "log in", id="Hub, limit"),
        # docker/hub-feedback#1907: against floods, for everybody, and no JSON
        pytest.param(429, b"Too Many Requests (HAP429).\n", LIMIT, "wait", id="Hub, flood"),
        # riverqueue/riverui#182: the owner's token had expired, which GitHub does not say
        pytest.param(403, errors("DENIED", "denied"), DENIED, "expired or", id="GitHub"),
        # basecamp/kamal#1498: said of every refusal
        pytest.param(401, errors("UNAUTHORIZED", GITLAB), DENIED, "expired or", id="GitLab"),
    ],
)
async def test_what_hosts_answer_is_said_in_words(
    docker_engine: DockerEngine, status: int, body: bytes, meaning: str, remedy: str
) -> None:
    """Through the real client, which words each answer in its own way; the issues that quote it are named above."""

    class Refuses(QuietHandler):
        def _refuse(self) -> None:
            kind = "application/json" if body.startswith(b"{") else "text/plain"
            self.answer(status, body, {"Content-Type": kind})

        do_GET = do_HEAD = _refuse  # noqa: N815 -- the library's names

    environ = {"PATH": USUAL_PATH, **docker_engine.environ}
    with LoopbackHttp(Refuses) as host:
        name = f"127.0.0.1:{host.port}/team/box:1"
        with pytest.raises(ContainerError, match=meaning) as raised:
            await asyncio.wait_for(Engine(environ).pull(name), 120)
    assert remedy in raised.value.remedy


async def test_a_token_of_a_registry_is_right_wrong_revoked_expired_or_used_up(
    docker_engine: DockerEngine, busybox: str, tmp_path: Path
) -> None:
    """With a token service as Docker Hub has one: the words are those of the service, where it has any."""
    with (
        TokenService(tmp_path / "tokens") as tokens,
        PrivateRegistry(tmp_path / "registry", tokens) as registry,
    ):
        tokens.admit(USER, PASSWORD)
        image = registry.push(docker_engine, busybox, "team/box:1", tmp_path / "push", PASSWORD)
        login = tmp_path / "login"
        private = Private(registry, docker_engine, image, login, tmp_path / "agent.toml")
        environ = {"PATH": USUAL_PATH, **docker_engine.environ}

        async def said(password: str = PASSWORD) -> str:
            private.remember(password)
            private.forget()
            try:
                await Engine(environ, Keyring(private.settings(), environ).docker).pull(image)
            except ContainerError as error:
                return str(error)
            return "pulled"

        assert await said() == "pulled"
        assert DENIED in await said("wr0ng-wr0ng")
        tokens.lifetime = -200
        assert DENIED in await said()  # the registry does not say why
        tokens.lifetime = LIFETIME
        tokens.admit(USER, "another")
        assert DENIED in await said()
        tokens.refusal = (401, errors("UNAUTHORIZED", HUB_EXPIRED))  # sailor-sh/CK-X#60
        assert EXPIRED in await said()
        tokens.refusal = (429, errors("TOOMANYREQUESTS", HUB_LIMIT))
        assert LIMIT in await said()
        private.forget()


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("busybox", "docker.io"),
        ("me/hoge:1.4", "docker.io"),
        ("docker.io/me/hoge", "docker.io"),
        ("localhost/hoge", "localhost"),
        ("ghcr.io/me/hoge@sha256:00", "ghcr.io"),
        ("registry.example.org:5000/hoge", "registry.example.org:5000"),
    ],
)
def test_the_registry_of_an_image(image: str, host: str) -> None:
    """As docker reads names."""
    assert host_of(image) == host


def test_only_the_logins_that_are_needed_are_read() -> None:
    """For a single image its registry's; for a build those that its Dockerfile names, and Docker Hub's."""
    known = {"docker.io", "ghcr.io", "quay.io"}
    assert needed(["ghcr.io/me/x"], [], known) == ["ghcr.io"]
    assert needed(["other.example/me/x"], [], known) == []
    assert needed([], ["FROM quay.io/me/x\n"], known) == ["docker.io", "quay.io"]
    assert needed([], [f"FROM {ECR}/x\n"], ()) == [ECR]
    keys = client_config({}, {})
    assert keys == {"auths": {}, "credHelpers": {}}
