"""`mayfly secrets`: values come in unseen and never go out; every refusal says what would help."""

import json
import os
import pty
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from agent.base.errors import SecretsError, UsageError
from agent.config.settings import Secrets, Settings, Store
from agent.secrets.keyring import Keyring
from agent.secrets.parameters import JOBS, LONGEST_VALUE, check_name, check_value, parameter_path
from agent.secrets.sources import job_secrets, read_credentials, store_credentials
from agent.secrets.ssm import Parameters
from tests.parts.aws import Aws
from tests.parts.command import call
from tests.parts.sshd import make_key
from tests.parts.stalled import refused

CANARY = "hunter2 \u5bc6 'quoted' $x"


class Supervisor:
    """A person at a command line, whose secrets are below a path of this test's own."""

    def __init__(self, aws: dict[str, str]) -> None:
        self.path = f"/mayfly-{uuid.uuid4().hex[:8]}"
        self.environ = {
            **aws,
            "MAYFLY_CONFIG": os.devnull,
            "MAYFLY_SECRETS_SOURCE": f"ssm:{self.path}/jobs",
            "MAYFLY_STORE_CREDENTIALS": f"ssm:{self.path}/store",
            "MAYFLY_RELEASE_CREDENTIALS": f"ssm:{self.path}/git",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def say(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Call `mayfly secrets` in this process with a pipe for stdin: each program would import AWS's client."""
        done = call("secrets", *words, environ=self.environ, stdin=stdin)
        code, stdout, stderr = done.exit_code, done.stdout_bytes, done.stderr_bytes
        return subprocess.CompletedProcess(words, code, stdout, stderr or b"")


@pytest.fixture
def keeper(aws: dict[str, str]) -> Supervisor:
    """With an AWS that answers."""
    return Supervisor(aws)


async def test_what_is_set_is_what_a_job_gets_and_nobody_else_sees(keeper: Supervisor) -> None:
    """Set by stdin, changed, listed and, when asked for, removed; no output has the value, and the agent reads it."""
    first = keeper.say("set", "TOKEN", stdin=b"old\n")
    assert (first.returncode, first.stdout) == (0, f"{keeper.path}/jobs/TOKEN: set\n".encode())
    again = keeper.say("set", "TOKEN", stdin=f"{CANARY}\n".encode())
    assert again.stdout.endswith(b"changed, version 2\n")
    secrets = Secrets(source=f"ssm:{keeper.path}/jobs")
    assert await job_secrets(secrets, keeper.environ) == {"TOKEN": CANARY}
    unasked = keeper.say("rm", "TOKEN", stdin=b"y\n")
    assert (unasked.returncode, b"--yes" in unasked.stderr) == (2, True)
    table = keeper.say("list")
    assert re.search(rb"^TOKEN +\d{4}-\d\d-\d\d \d\d:\d\d +2$", table.stdout, re.MULTILINE)
    document = json.loads(keeper.say("list", "--json").stdout)
    assert [one["name"] for one in document["secrets"]] == ["TOKEN"]
    assert set(document["secrets"][0]) == {"name", "changed", "version"}
    for done in (first, again, table):
        assert b"hunter2" not in done.stdout + done.stderr
    assert keeper.say("rm", "TOKEN", "--yes").returncode == 0
    gone = keeper.say("rm", "TOKEN", "--yes")
    assert (gone.returncode, b"was not there" in gone.stderr) == (3, True)
    assert keeper.say("list").stderr == f"no secrets under {keeper.path}/jobs\n".encode()


async def test_keys_of_the_bucket_have_names_of_their_own(keeper: Supervisor) -> None:
    """With --bucket only the three names exist that the agent reads."""
    for name in ("access_key_id", "secret_access_key"):
        assert keeper.say("set", "--bucket", name, stdin=name.encode()).returncode == 0
    store = Store(url="s3://b", credentials=f"ssm:{keeper.path}/store")
    found = await store_credentials(store, keeper.environ)
    assert found is not None
    assert (found.access_key, found.secret_key) == ("access_key_id", "secret_access_key")


async def test_the_repositorys_are_kept_apart_and_checked(
    keeper: Supervisor, tmp_path: Path
) -> None:
    """With --git: a key of several lines arrives as it is; what could open nothing is refused, unsaid."""
    key = make_key(tmp_path / "deploy")
    stored = key.read_bytes()
    assert keeper.say("set", "--git", "key", stdin=stored).returncode == 0
    source = f"ssm:{keeper.path}/git"
    found = await read_credentials(source, "release.credentials", keeper.environ)
    assert found == {"key": stored.decode().removesuffix("\n")}
    public = key.with_name("deploy.pub").read_bytes()
    for name, value, problem in (
        ("key", public, b"public key"),
        ("token", b"two\nlines\n", b"several lines"),
        ("tokn", b"hunter2", b"token, username, key, known_hosts"),
    ):
        wrong = keeper.say("set", "--git", name, stdin=value)
        assert (wrong.returncode, problem in wrong.stderr) == (2, True), wrong.stderr
        assert value.strip() not in wrong.stderr
    assert b"key" in keeper.say("list", "--git").stdout


async def test_those_of_a_registry_are_named_by_its_host(
    keeper: Supervisor, tmp_path: Path
) -> None:
    """Each half below the path that the configuration has for the host; a half alone is no login."""
    config = tmp_path / "agent.toml"
    source = f"ssm:{keeper.path}/ghcr"
    config.write_text(f'[registry."ghcr.io"]\ncredentials = "{source}"\n')
    keeper.environ["MAYFLY_CONFIG"] = str(config)
    for name in ("username", "password"):
        done = keeper.say("set", "--registry", "ghcr.io", name, stdin=f"{name}-1".encode())
        assert done.returncode == 0, done.stderr
    settings = Settings.model_validate({"registry": {"ghcr.io": {"credentials": source}}})
    login = await Keyring(settings, keeper.environ).registry("ghcr.io")
    assert (login.username, login.password) == ("username-1", "password-1")
    keeper.say("rm", "--registry", "ghcr.io", "password", "--yes")
    with pytest.raises(SecretsError, match="has no password"):
        await Keyring(settings, keeper.environ).registry("ghcr.io")


def test_a_person_types_the_value_twice_and_does_not_see_it(keeper: Supervisor) -> None:
    """On a terminal there is a hidden prompt; it never shows what is typed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "secrets", "set", "TYPED"],
        env=keeper.environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        for prompt in (b"TYPED: ", b"confirmation: "):
            while prompt not in shown:
                shown += os.read(ours, 4096)
            os.write(ours, b"hunter2\n")
        while b": set" not in shown:
            shown += os.read(ours, 4096)
        assert process.wait(60) == 0
    os.close(ours)
    assert b"hunter2" not in shown


@pytest.mark.parametrize(
    ("words", "value", "says"),
    [
        (["set", "TOKEN", "hunter2"], b"", b"unexpected"),
        (["set", "TOKEN", "--value", "x"], b"", b"No such option"),
        (["set", "--bucket", "acces_key_id"], b"x", b"access_key_id"),
        (["list", "--git", "--bucket"], b"", b"one kind"),
        (["set", "--index", "shop", "password"], b"x", b'[index."shop"]'),
        (["set", "--registry", "quay.io", "password"], b"x", b'[registry."quay.io"]'),
        (["set", "TOKEN"], b"", b"empty"),
        (["set", "TOKEN"], b"\n", b"empty"),
        (["set", "TOKEN"], b"\xff\xfe", b"UTF-8"),
        (["set", "TOKEN"], b"a\0b", b"NUL"),
        (["set", "TOKEN"], b"x" * (LONGEST_VALUE + 1), b"free tier"),
    ],
)
def test_what_no_job_could_get_is_refused(
    keeper: Supervisor, words: list[str], value: bytes, says: bytes
) -> None:
    """Each refusal says what is wrong, and shows nothing of a value; a value is never an argument."""
    done = keeper.say(*words, stdin=value)
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"xxx" not in done.stderr


def test_without_a_path_the_command_says_which_key_to_set(keeper: Supervisor) -> None:
    """An agent.toml without secrets.source has nowhere to put a secret."""
    del keeper.environ["MAYFLY_SECRETS_SOURCE"]
    done = keeper.say("list")
    assert (done.returncode, b"secrets.source" in done.stderr) == (2, True)


def test_nobodys_keys_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    """No credentials, no region and no connection each end in one sentence and one remedy."""
    nobody = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    profile = {"AWS_PROFILE": "nobody", "AWS_REGION": "ap-northeast-3"}
    with refused() as address:
        unreachable = {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_REGION": "ap-northeast-3",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
        }
        cases = ((nobody, "AWS_REGION"), (profile, "AWS_PROFILE"), (unreachable, "AWS_PROFILE"))
        for environ, remedy in cases:
            with pytest.raises(SecretsError) as caught:
                Parameters("/mayfly/jobs", environ).all()
            assert remedy in caught.value.remedy


def test_what_iam_refuses_is_named(tmp_path: Path) -> None:
    """A person without the right is told the action to allow, for each of the three commands."""
    with Aws(tmp_path) as server:
        iam = server.client("iam")
        iam.create_user(UserName="me")
        key = iam.create_access_key(UserName="me")["AccessKey"]
        requests.post(f"{server.url}/moto-api/reset-auth", data=b"0", timeout=10)
        environ = {
            **server.environ,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
        parameters = Parameters("/mayfly/jobs", environ)
        acts: dict[str, Callable[[], object]] = {
            "ssm:PutParameter": lambda: parameters.set("A", "hunter2"),
            "ssm:GetParametersByPath": parameters.all,
            "ssm:DeleteParameters": lambda: parameters.remove("A"),
        }
        for action, act in acts.items():
            with pytest.raises(SecretsError) as caught:
                act()
            assert caught.value.remedy.startswith(f"allow {action} on ")
            assert "hunter2" not in str(caught.value) + caught.value.remedy


def test_only_a_path_of_ssm_and_a_name_of_the_environment_are_ones() -> None:
    """What could not be a path or an environment variable is refused before AWS is asked."""
    for source in (None, "", "/mayfly", "ssm:", "ssm:/a b", "ssm:/a\n", "ssm:/a//b"):
        with pytest.raises(UsageError):
            parameter_path(source, "secrets.source")
    for name in ("", "1A", "A-B", "A B", "A/B", "\u00c4", "A\n", "A" * 200):
        with pytest.raises(UsageError):
            check_name(name, JOBS)


def test_only_the_last_newline_is_not_the_values() -> None:
    """What a pipe adds is dropped, once; spaces and inner newlines belong to the value."""
    assert check_value(" a\nb \r\n") == " a\nb "
    assert check_value("a\n\n") == "a\n"
