"""Private repositories: a token over HTTPS, a deploy key over SSH; right, wrong, expired, revoked."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.base.errors import ReleaseError, SecretsError, UsageError
from agent.release.repository import login_mismatch, parse_repository
from agent.release.ssh import large_hosts
from agent.secrets.private import GitLogin, check_git_value, git_login, parse_git_file
from tests.parts.certificate import make_certificate
from tests.parts.gitserver import GitServer
from tests.parts.missing import program
from tests.parts.sshd import SshServer, make_key
from tests.release.conftest import Computer, reason_of

TOKEN = "cAnary-git-token-1f3"
USER = "x-access-token"


@pytest.fixture
def https(computer: Computer, tmp_path: Path) -> Iterator[GitServer]:
    """A server that lets in whoever has the token, in front of a repository with one release."""
    computer.publish("v1.0")
    certificate = make_certificate(tmp_path)
    computer.environ["GIT_SSL_CAINFO"] = str(certificate.file)
    root = computer.repo.bare.parent
    with GitServer(root, user=USER, password=TOKEN, certificate=certificate) as server:
        computer.repository = server.url()
        computer.settings["credentials"] = kept(tmp_path, f"token={TOKEN}\n")
        yield server


@pytest.fixture
def ssh(computer: Computer, tmp_path: Path) -> Iterator[SshServer]:
    """A server that lets in whoever has the key `deploy`, in front of a repository with one release."""
    computer.publish("v1.0")
    key = make_key(tmp_path / "deploy")
    with SshServer(tmp_path / "sshd") as server:
        server.admit(key, computer.repo.bare)
        computer.repository = server.url(computer.repo.bare)
        text = f"{key.read_text()}\n{server.known_hosts}\n"
        computer.settings["credentials"] = kept(tmp_path, text)
        yield server


def kept(folder: Path, text: str, mode: int = 0o600) -> str:
    """Write a file of credentials; return its path."""
    file = folder / "git-credentials"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


async def test_a_token_opens_a_repository_and_is_nowhere(
    computer: Computer, https: GitServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """No process has it in its arguments or its environment, no file below the state, no log line, no record."""
    seen: list[bytes] = []

    def look() -> None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                seen.extend((process / name).read_bytes() for name in ("cmdline", "environ"))
            except OSError:
                continue

    https.watch = look
    obtained = await computer.run_well()
    assert obtained.release.ref == "v1.0"
    assert any(b"ls-remote" in command for command in seen)
    assert any(b"MAYFLY_GIT_LOGIN" in environ for environ in seen)
    seen += [
        repr(computer.events).encode(),
        repr(obtained).encode(),
        "".join(capfd.readouterr()).encode(),
    ]
    seen += [file.read_bytes() for file in computer.state.rglob("*") if file.is_file()]
    assert [text[:200] for text in seen if TOKEN.encode() in text] == []


async def test_a_token_is_read_from_ssm(
    computer: Computer, https: GitServer, aws: dict[str, str], parameters: Callable[..., None]
) -> None:
    """With the name that belongs to it; without it, with what hosts take beside any token."""
    computer.environ |= aws
    computer.settings["credentials"] = "ssm:/private/git"
    parameters("/private/git", token=TOKEN)
    assert (await computer.run_well()).stale is None
    https.admit("deployer", TOKEN)
    parameters("/private/git", username="deployer")
    assert (await computer.run_well()).stale is None


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("who are you?", "wrong, expired or revoked"),
        ("the token expired", "the token has expired"),
        # Of every refusal.
        ("it was either incorrect, expired, or improperly scoped.", "wrong, expired or revoked"),
    ],
)
async def test_a_token_that_is_revoked_between_two_runs_leaves_the_last_good_release(
    computer: Computer, https: GitServer, said: str, meaning: str
) -> None:
    """The second run says in words what is wrong, what the server said, and never the token."""
    await computer.run_well()
    https.admit(USER, "another")
    https.refusal = f"{said} ({TOKEN})"
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    assert reason_of(obtained).startswith("refused: git ls-remote: the ")
    assert meaning in reason_of(obtained)
    assert said in reason_of(obtained)
    assert TOKEN not in repr(obtained) + repr(computer.events)


async def test_a_wrong_token_is_refused_with_a_remedy(
    computer: Computer, https: GitServer, tmp_path: Path
) -> None:
    """It is asked once: another attempt would not help."""
    kept(tmp_path, "token=wr0ng-wr0ng\n")
    with pytest.raises(ReleaseError, match="rejected the token") as raised:
        await computer.obtain()
    assert "mayfly secrets set --git token" in raised.value.remedy
    assert computer.told("release.retry") == []
    assert len(https.requests) == 2  # without the token, which git tries first, and with it


@pytest.mark.parametrize("with_token", [True, False])
async def test_a_certificate_that_is_not_trusted_is_not_the_tokens_fault(
    computer: Computer, https: GitServer, *, with_token: bool
) -> None:
    """Though git's complaint may have the word expired in it; and the token was not sent."""
    del computer.environ["GIT_SSL_CAINFO"]
    if not with_token:
        del computer.settings["credentials"]
    with pytest.raises(ReleaseError, match="refused: git ls-remote: the host's certificate is not"):
        await computer.obtain()
    assert https.requests == []


async def test_a_deploy_key_opens_a_repository_and_is_in_no_file_of_ours(
    computer: Computer,
    ssh: SshServer,
    tmp_path: Path,
    aws: dict[str, str],
    parameters: Callable[..., None],
) -> None:
    """Out of a file, or as `mayfly secrets set --git` stores it in SSM, without the newline at its end."""
    key = (tmp_path / "deploy").read_text()
    computer.environ |= aws
    parameters("/private/deploy", key=key.removesuffix("\n"), known_hosts=ssh.known_hosts)
    for source in (computer.settings["credentials"], "ssm:/private/deploy"):
        obtained = await computer.run_well(credentials=source)
        assert (obtained.release.ref, obtained.stale) == ("v1.0", None), source
    files = [file for file in computer.state.rglob("*") if file.is_file()]
    assert not any(key.splitlines()[2].encode() in file.read_bytes() for file in files)


KEY_REFUSED = ("the server rejected the key", "read-only is enough")
EXPIRED = 'expiry-time="20200101"'
HOST_CHANGED = ("the host key changed", "mayfly secrets set --git known_hosts")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ssh, deploy, bare: ssh.admit(make_key(deploy.parent / "new"), bare), KEY_REFUSED),
        (lambda ssh, deploy, bare: ssh.admit(deploy, bare, EXPIRED), KEY_REFUSED),
        (lambda ssh, *_: ssh.revoke(), KEY_REFUSED),
        (lambda ssh, *_: ssh.change_host_key(), HOST_CHANGED),
    ],
    ids=["another key", "expired", "revoked", "another host key"],
)
async def test_what_happens_to_a_deploy_key_between_two_runs_is_said(
    computer: Computer,
    ssh: SshServer,
    tmp_path: Path,
    change: Callable[[SshServer, Path, Path], None],
    words: tuple[str, str],
) -> None:
    """The last good release runs; where there is none, the error has a remedy."""
    meaning, remedy = words
    await computer.run_well()
    change(ssh, tmp_path / "deploy", computer.repo.bare)
    obtained = await computer.obtain()
    assert (obtained.release.ref, obtained.stale is not None) == ("v1.0", True)
    assert meaning in reason_of(obtained)
    computer.state = tmp_path / "new-state"
    with pytest.raises(ReleaseError, match=meaning) as raised:
        await computer.obtain()
    assert remedy in raised.value.remedy


async def test_a_host_that_nobody_knows_is_refused(
    computer: Computer, ssh: SshServer, tmp_path: Path
) -> None:
    """Whatever the user's own ssh trusts, and whatever the key opens: an impostor would get nothing."""
    home = Path(computer.environ["HOME"], ".ssh")
    home.mkdir()
    (home / "known_hosts").write_text(ssh.known_hosts)
    kept(tmp_path, (tmp_path / "deploy").read_text())
    with pytest.raises(ReleaseError, match="no host key is known for the server") as raised:
        await computer.obtain()
    assert "ssh-keyscan" in raised.value.remedy


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        ("tokn=abc\n", 0o600, "neither a token nor a key"),
        ("token=abc\nkey=def\n", 0o600, "both a token and a key"),
        ("token abc\n", 0o600, "is not NAME=value"),
        ("key='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5'\n", 0o600, "is a public key"),
        ("key=abc\n", 0o600, "is not a private key"),
        (f"token={TOKEN}\n", 0o644, "others than its owner can read .*0644"),
        # It is put into a pipe before anybody reads it: a longer one would be waited for without end.
        (f"token={'a' * 200_000}\n", 0o600, "is longer than any server's"),
    ],
    ids=[
        "no name",
        "both",
        "no value",
        "public key",
        "no key",
        "not private",
        "longer than a pipe",
    ],
)
async def test_a_file_that_opens_nothing_is_refused_before_anybody_is_asked(
    computer: Computer, https: GitServer, tmp_path: Path, text: str, *, mode: int, problem: str
) -> None:
    """With what is wrong, and without any of it."""
    kept(tmp_path, text, mode)
    with pytest.raises(ReleaseError, match=problem):
        await computer.obtain()
    assert https.requests == []


async def test_ssm_that_is_away_is_asked_again(computer: Computer, https: GitServer) -> None:
    """And in the end it is the network that was to blame, not the repository."""
    computer.environ |= {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "ap-northeast-3",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.raises(ReleaseError, match="unreachable: "):
        await computer.obtain(credentials="ssm:/private/git", timeout=3.0)
    assert https.requests == []


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    """Nobody is there to type it; said when it is stored, and when it is read."""
    key = make_key(tmp_path / "locked", passphrase="hunter2").read_text()
    with pytest.raises(UsageError, match="has a passphrase"):
        check_git_value("key", key)
    with pytest.raises(SecretsError, match="has a passphrase"):
        git_login({"key": key}, "here")
    check_git_value("key", make_key(tmp_path / "open").read_text())


def test_a_file_may_be_a_key_with_known_hosts_after_it(tmp_path: Path) -> None:
    """As ssh-keygen and ssh-keyscan write them."""
    key = make_key(tmp_path / "key").read_text()
    found, faults = parse_git_file(f"{key}\n# mine\nhost ssh-ed25519 AAAA\n", "here")
    assert faults == []
    assert git_login(found, "here") == GitLogin(
        key=key.strip(), known_hosts="# mine\nhost ssh-ed25519 AAAA"
    )


@pytest.mark.parametrize(
    ("address", "login", "problem"),
    [
        ("git@host.example:me/it.git", GitLogin(token="t"), "is an ssh address"),
        ("ssh://git@host.example/it.git", GitLogin(token="t"), "is an ssh address"),
        ("https://host.example/it.git", GitLogin(key="k"), "is not an ssh address"),
        ("http://host.example/it.git", GitLogin(token="t"), "not sent over http"),
        ("https://host.example/it.git", GitLogin(token="t"), None),
        ("git@host.example:me/it.git", GitLogin(key="k"), None),
    ],
)
def test_credentials_must_fit_the_address(
    address: str, login: GitLogin, problem: str | None
) -> None:
    """A key has nothing to say over HTTPS, a token nothing over SSH, and nothing is said in the clear."""
    found = login_mismatch(parse_repository(address, None), login)
    assert (found is None) if problem is None else (found is not None and problem in found[0])


PUBLISHED = {
    "github.com +DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
    "github.com p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
    "gitlab.com eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
    "gitlab.com HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
    "bitbucket.org ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
    "bitbucket.org FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
    "codeberg.org mIlxA9k46MmM6qdJOdMnAQpzGxF4WIVVL+fj+wZbw0g",
    "codeberg.org T9FYDEHELhVkulEKKwge5aVhVTbqCW0MIRwAfpARs/E",
}
"""What the hosts' own pages say; their addresses are in agent/secrets/known_hosts."""


def test_the_hosts_that_come_with_mayfly_have_their_published_keys(tmp_path: Path) -> None:
    """ssh-keygen computes the same fingerprints."""
    file = tmp_path / "known_hosts"
    file.write_text(large_hosts())
    command = [program("ssh-keygen"), "-l", "-f", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    found = [line.split() for line in done.stdout.splitlines()]
    assert {f"{host} {key.removeprefix('SHA256:')}" for _, key, host, _ in found} == PUBLISHED


async def test_a_temporary_folder_that_takes_nothing_leaves_the_last_good_release(
    computer: Computer, ssh: SshServer, tmp_path: Path
) -> None:
    """The key's agent needs one for its socket; without it git has no key, and the run goes on."""
    await computer.run_well()
    usual = tempfile.gettempdir()
    tempfile.tempdir = str(tmp_path / "nowhere")
    try:
        obtained = await computer.obtain()
    finally:
        tempfile.tempdir = usual
    assert obtained.release.ref == "v1.0"
    assert "the deploy key cannot be used" in reason_of(obtained)
