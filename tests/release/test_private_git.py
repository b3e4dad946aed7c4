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
from tests.parts.repo import Repo
from tests.parts.sshd import SshServer, make_key
from tests.release.conftest import JOBS, Computer, reason_of

pytestmark = pytest.mark.usefixtures("git_server")

TOKEN = "cAnary-git-token-1f3"
USER = "x-access-token"


@pytest.fixture
def https(computer: Computer, repo_builder: Repo, tmp_path: Path) -> Iterator[GitServer]:
    """A server that lets in whoever has the token, in front of a repository with one release."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    certificate = make_certificate(tmp_path)
    computer.environ["GIT_SSL_CAINFO"] = str(certificate.file)
    root = repo_builder.bare.parent
    with GitServer(root, user=USER, password=TOKEN, certificate=certificate) as server:
        computer.repository = server.url()
        yield server


@pytest.fixture
def ssh(computer: Computer, repo_builder: Repo, tmp_path: Path) -> Iterator[SshServer]:
    """A server that lets in whoever has the key `deploy`, in front of a repository with one release."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    key = make_key(tmp_path / "deploy")
    with SshServer(tmp_path / "sshd") as server:
        server.admit(key, repo_builder.bare)
        computer.repository = server.url(repo_builder.bare)
        yield server


def kept(folder: Path, text: str, mode: int = 0o600) -> str:
    """Write a file of credentials; return its path."""
    file = folder / "git-credentials"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def with_key(folder: Path, *known_hosts: str) -> str:
    """Write a file with the deploy key and what is known of hosts; return its path."""
    return kept(folder, "\n".join(((folder / "deploy").read_text(), *known_hosts, "")))


async def test_a_token_opens_a_repository_and_is_nowhere(
    computer: Computer, https: GitServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
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
    obtained = await computer.run_well(credentials=kept(tmp_path, f"token={TOKEN}\n"))
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
    parameters("/private/git", token=TOKEN)
    assert (await computer.run_well(credentials="ssm:/private/git")).stale is None
    https.admit("deployer", TOKEN)
    parameters("/private/git", username="deployer")
    assert (await computer.run_well(credentials="ssm:/private/git")).stale is None


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
    computer: Computer, https: GitServer, tmp_path: Path, said: str, meaning: str
) -> None:
    """The second run says in words what is wrong, what the server said, and never the token."""
    source = kept(tmp_path, f"token={TOKEN}\n")
    await computer.run_well(credentials=source)
    https.admit(USER, "another")
    https.refusal = f"{said} ({TOKEN})"
    obtained = await computer.obtain(credentials=source)
    assert obtained.release.ref == "v1.0"
    assert reason_of(obtained).startswith("refused: git ls-remote: the ")
    assert meaning in reason_of(obtained)
    assert said in reason_of(obtained)
    assert TOKEN not in repr(obtained) + repr(computer.events)


async def test_a_wrong_token_is_refused_with_a_remedy(
    computer: Computer, https: GitServer, tmp_path: Path
) -> None:
    """It is asked once: another attempt would not help."""
    with pytest.raises(ReleaseError, match="rejected the token") as raised:
        await computer.obtain(credentials=kept(tmp_path, "token=wr0ng-wr0ng\n"))
    assert "mayfly secrets set --git token" in raised.value.remedy
    assert computer.told("release.retry") == []
    assert len(https.requests) == 2  # without the token, which git tries first, and with it


async def test_a_certificate_that_is_not_trusted_is_not_the_tokens_fault(
    computer: Computer, https: GitServer, tmp_path: Path
) -> None:
    """Though git's complaint may have the word expired in it; and the token was not sent."""
    del computer.environ["GIT_SSL_CAINFO"]
    with pytest.raises(ReleaseError, match="the host's certificate is not trusted"):
        await computer.obtain(credentials=kept(tmp_path, f"token={TOKEN}\n"))
    assert https.requests == []


async def test_a_deploy_key_opens_a_repository_and_is_in_no_file_of_ours(
    computer: Computer, ssh: SshServer, tmp_path: Path
) -> None:
    """It reads what the key may read, from the host whose key is known."""
    obtained = await computer.run_well(credentials=with_key(tmp_path, ssh.known_hosts))
    assert obtained.release.ref == "v1.0"
    secret = (tmp_path / "deploy").read_text().splitlines()[2].encode()
    found = [
        file for file in computer.state.rglob("*") if file.is_file() and secret in file.read_bytes()
    ]
    assert found == []


async def test_a_deploy_key_is_read_from_ssm(
    computer: Computer,
    ssh: SshServer,
    tmp_path: Path,
    aws: dict[str, str],
    parameters: Callable[..., None],
) -> None:
    """As `mayfly secrets set --git` stores it: without the newline at its end."""
    computer.environ |= aws
    key = (tmp_path / "deploy").read_text().removesuffix("\n")
    parameters("/private/deploy", key=key, known_hosts=ssh.known_hosts)
    assert (await computer.run_well(credentials="ssm:/private/deploy")).stale is None


KEY_REFUSED = ("the server rejected the key", "read-only is enough")


def _another_key(ssh: SshServer, folder: Path, repository: Path) -> None:
    ssh.admit(make_key(folder / "another"), repository)


def _expired(ssh: SshServer, folder: Path, repository: Path) -> None:
    ssh.admit(folder / "deploy", repository, 'expiry-time="20200101"')


def _revoked(ssh: SshServer, _folder: Path, _repository: Path) -> None:
    ssh.revoke()


def _other_host_key(ssh: SshServer, _folder: Path, _repository: Path) -> None:
    ssh.change_host_key()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_another_key, KEY_REFUSED),
        (_expired, KEY_REFUSED),
        (_revoked, KEY_REFUSED),
        (_other_host_key, ("the host key changed", "mayfly secrets set --git known_hosts")),
    ],
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
    source = with_key(tmp_path, ssh.known_hosts)
    await computer.run_well(credentials=source)
    change(ssh, tmp_path, Path(computer.repository.partition(str(ssh.port))[2]))
    obtained = await computer.obtain(credentials=source)
    assert (obtained.release.ref, obtained.stale is not None) == ("v1.0", True)
    assert meaning in reason_of(obtained)
    computer.state = tmp_path / "new"
    with pytest.raises(ReleaseError, match=meaning) as raised:
        await computer.obtain(credentials=source)
    assert remedy in raised.value.remedy


async def test_a_host_that_nobody_knows_is_refused(
    computer: Computer, ssh: SshServer, tmp_path: Path
) -> None:
    """Whatever the user's own ssh trusts, and whatever the key opens: an impostor would get nothing."""
    home = Path(computer.environ["HOME"], ".ssh")
    home.mkdir()
    (home / "known_hosts").write_text(ssh.known_hosts)
    with pytest.raises(ReleaseError, match="no host key is known for the server") as raised:
        await computer.obtain(credentials=with_key(tmp_path))
    assert "ssh-keyscan" in raised.value.remedy


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tokn=abc\n", "neither a token nor a key"),
        ("token=abc\nkey=def\n", "both a token and a key"),
        ("token abc\n", "is not NAME=value"),
        ("key='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5'\n", "is a public key"),
        ("key=abc\n", "is not a private key"),
    ],
)
async def test_a_file_that_opens_nothing_is_refused_before_anybody_is_asked(
    computer: Computer, https: GitServer, tmp_path: Path, text: str, problem: str
) -> None:
    """With what is wrong, and without any of it."""
    with pytest.raises(ReleaseError, match=problem):
        await computer.obtain(credentials=kept(tmp_path, text))
    assert https.requests == []


async def test_a_file_that_others_can_read_is_refused(
    computer: Computer, https: GitServer, tmp_path: Path
) -> None:
    """As for every file of secrets."""
    with pytest.raises(ReleaseError, match=r"others than its owner can read .*0644"):
        await computer.obtain(credentials=kept(tmp_path, f"token={TOKEN}\n", 0o644))
    assert https.requests == []


async def test_ssm_that_is_away_is_asked_again(computer: Computer, https: GitServer) -> None:
    """And in the end it is the network that was to blame, not the repository."""
    computer.timeout = 3.0
    computer.environ |= {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "ap-northeast-3",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.raises(ReleaseError, match="unreachable: "):
        await computer.obtain(credentials="ssm:/private/git")
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
    "github.com": {
        "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
        "SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
    },
    "gitlab.com": {
        "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
        "SHA256:HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
    },
    "bitbucket.org": {
        "SHA256:ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
        "SHA256:FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
    },
    "codeberg.org": {
        "SHA256:mIlxA9k46MmM6qdJOdMnAQpzGxF4WIVVL+fj+wZbw0g",
        "SHA256:T9FYDEHELhVkulEKKwge5aVhVTbqCW0MIRwAfpARs/E",
    },
}
"""What the hosts' own pages say; their addresses are in agent/secrets/known_hosts."""


def test_the_hosts_that_come_with_mayfly_have_their_published_keys(tmp_path: Path) -> None:
    """ssh-keygen computes the same fingerprints."""
    file = tmp_path / "known_hosts"
    file.write_text(large_hosts())
    command = [program("ssh-keygen"), "-l", "-f", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        _, fingerprint, host, _ = line.split()
        found.setdefault(host, set()).add(fingerprint)
    assert found == PUBLISHED


async def test_a_temporary_folder_that_takes_nothing_leaves_the_last_good_release(
    computer: Computer, ssh: SshServer, tmp_path: Path
) -> None:
    """The key's agent needs one for its socket; without it git has no key, and the run goes on."""
    source = with_key(tmp_path, ssh.known_hosts)
    await computer.run_well(credentials=source)
    usual = tempfile.gettempdir()
    tempfile.tempdir = str(tmp_path / "nowhere")
    try:
        obtained = await computer.obtain(credentials=source)
    finally:
        tempfile.tempdir = usual
    assert obtained.release.ref == "v1.0"
    assert "the deploy key cannot be used" in reason_of(obtained)


async def test_a_token_that_no_pipe_holds_is_refused(
    computer: Computer, https: GitServer, tmp_path: Path
) -> None:
    """It is put into a pipe before anybody reads it: a longer one would be waited for without end."""
    source = kept(tmp_path, f"token={'a' * 200_000}\n")
    with pytest.raises(ReleaseError, match="is longer than any server's"):
        await computer.obtain(credentials=source)
