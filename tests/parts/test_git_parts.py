"""The git server, the builder of repositories and the addresses that do not answer."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from tests.parts.certificate import make_certificate
from tests.parts.command import CommandError, output_of
from tests.parts.gitserver import GitServer
from tests.parts.missing import program
from tests.parts.repo import GIT_ENVIRON, Repo, make_signer
from tests.parts.stalled import refused, silent, stalled_connect


def clone(
    url: str, into: Path, *, seconds: float = 60, environ: Mapping[str, str] | None = None
) -> str:
    """`git clone` with a limit; returns the commit that was checked out."""
    settings = {**GIT_ENVIRON, "PATH": "/usr/bin:/bin", **(environ or {})}
    git = program("git")
    output_of([git, "clone", "--quiet", url, str(into)], environ=settings, seconds=seconds)
    return output_of([git, "-C", str(into), "rev-parse", "HEAD"], environ=settings).strip()


class TestGit:
    """The builder of repositories and the servers of them."""

    def test_commits_are_the_same_everywhere(self, tmp_path: Path) -> None:
        """The same steps give the same commit id, whoever runs them and whenever."""
        commits = []
        for folder in (tmp_path / "one", tmp_path / "two"):
            folder.mkdir()
            repo = Repo(folder)
            repo.write("a/b.sh", "#!/bin/sh\n", executable=True)
            commits.append(repo.commit("First"))
        assert commits[0] == commits[1]

    def test_a_release_is_cloned_over_http(
        self, git_server: GitServer, repo_builder: Repo, tmp_path: Path
    ) -> None:
        """What was pushed is served, tags included, and the requests are recorded."""
        commit = repo_builder.release("v1.0", {"jobs.toml": "x = 1\n"})
        assert clone(git_server.url(), tmp_path / "clone") == commit
        assert (tmp_path / "clone" / "jobs.toml").read_text() == "x = 1\n"
        assert git_server.requests[0][0] == "GET"

    def test_a_tag_moves_by_force_only(self, repo_builder: Repo) -> None:
        """Moving a tag is refused unless it is forced; then the bare repository follows."""
        first = repo_builder.release("v1.0", {"a": "1"})
        repo_builder.write("a", "2")
        second = repo_builder.commit()
        with pytest.raises(CommandError):
            repo_builder.tag("v1.0")
        assert repo_builder.tag("v1.0", annotated=False, force=True) == second != first
        repo_builder.push()
        assert repo_builder.git("rev-parse", "v1.0^{commit}", at=repo_builder.bare) == second

    def test_a_signed_tag_verifies_against_its_signer(
        self, repo_builder: Repo, tmp_path: Path
    ) -> None:
        """A tag signed by one person is accepted with that person's line and refused with another's."""
        ada, eve = (make_signer(tmp_path, f"{name}@example.com") for name in ("ada", "eve"))
        repo_builder.release("v1.0", {"a": "1"}, signer=ada)
        signers = tmp_path / "allowed_signers"
        verify = ("-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-tag", "v1.0")
        signers.write_text(ada.allowed_signers_line)
        repo_builder.git(*verify)
        signers.write_text(eve.allowed_signers_line)
        with pytest.raises(CommandError):
            repo_builder.git(*verify)

    def test_tls_and_a_password(self, tmp_path: Path) -> None:
        """Over HTTPS with basic authentication, the right password is let in and none is not."""
        repo = Repo(tmp_path)
        commit = repo.release("v1.0", {"a": "1"})
        certificate = make_certificate(tmp_path)
        trust = {"GIT_SSL_CAINFO": str(certificate.file)}
        with GitServer(tmp_path, user="u", password="p", certificate=certificate) as server:
            with pytest.raises(CommandError):
                clone(server.url(), tmp_path / "a", environ=trust)
            with_password = server.url().replace("://", "://u:p@")
            assert clone(with_password, tmp_path / "b", environ=trust) == commit

    @pytest.mark.parametrize("fault", ["stall", "drip"])
    def test_a_pack_that_stops_or_drips(
        self, git_server: GitServer, repo_builder: Repo, tmp_path: Path, fault: str
    ) -> None:
        """A clone hangs until its own limit, and works when the server has recovered."""
        repo_builder.release("v1.0", {"a": "1" * 5000})
        git_server.pack_limit = 60 if fault == "stall" else None
        git_server.drip = fault == "drip"
        with pytest.raises(subprocess.TimeoutExpired):
            clone(git_server.url(), tmp_path / "a", seconds=1.5)
        git_server.pack_limit, git_server.drip = None, False
        clone(git_server.url(), tmp_path / "b")


class TestStalled:
    """Addresses that do not answer."""

    def test_refused(self) -> None:
        """A connection is refused at once."""
        with refused() as address, pytest.raises(requests.ConnectionError, match="refused"):
            requests.get(f"http://{address}", timeout=5)

    def test_stalled_connect(self) -> None:
        """A connection is never established."""
        with stalled_connect() as address, pytest.raises(requests.ConnectTimeout):
            requests.get(f"http://{address}", timeout=0.5)

    @pytest.mark.parametrize("words", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty"])
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_silent(self, scheme: str, words: bytes) -> None:
        """The connection stands and the answer, or the handshake, never comes to an end."""
        with (
            silent(b"" if scheme == "https" else words) as address,
            pytest.raises((requests.ConnectionError, requests.ReadTimeout)),
        ):
            requests.get(f"{scheme}://{address}", timeout=0.5)
