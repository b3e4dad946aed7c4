"""A builder of git repositories with fixed names and dates, whatever the user's own git is configured to do."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.parts.command import output_of
from tests.parts.missing import program

FIRST_COMMIT = 1_767_225_600  # 2026-01-01T00:00:00Z
SECONDS_BETWEEN = 60
# Nothing of the user's or the machine's configuration, no prompts, an identity of our own.
GIT_ENVIRON = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Ada Example",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada Example",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "LC_ALL": "C.UTF-8",
}


@dataclass(frozen=True)
class Signer:
    """A person who signs tags with an ssh key."""

    key: Path
    allowed_signers_line: str


def make_signer(folder: Path, principal: str = "ada@example.com") -> Signer:
    """Make a new ssh key pair for `principal` in `folder`."""
    key = folder / f"key-{principal}"
    _run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", principal, "-f", str(key)])
    public = key.with_name(key.name + ".pub").read_text().split()
    return Signer(key, f'{principal} namespaces="git" {public[0]} {public[1]}\n')


class Repo:
    """A work tree and the bare repository it is pushed to.

    Attributes:
        work: The work tree.
        bare: The bare repository, `<name>.git` in the folder that was given.
    """

    def __init__(
        self, folder: Path, name: str = "scrapers", *, object_format: str = "sha1"
    ) -> None:
        self.name = name
        self.bare = folder / f"{name}.git"
        self.work = folder / f"{name}-work"
        self._clock = FIRST_COMMIT
        init = ("init", "--quiet", "--initial-branch=main", f"--object-format={object_format}")
        self.git(*init, "--bare", str(self.bare), at=folder)
        self.git(*init, str(self.work), at=folder)
        self.git("remote", "add", "origin", str(self.bare))

    def git(self, *arguments: str, at: Path | None = None) -> str:
        """Run git in the work tree, or in `at`, and return its output without surrounding white space."""
        date = f"{self._clock} +0000"
        environ = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        return _run([program("git"), *arguments], cwd=at or self.work, environ=environ)

    def write(self, path: str, content: str | bytes, *, executable: bool = False) -> Path:
        """Write a file of the work tree, with the folders it needs."""
        file = self.work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(0o755 if executable else 0o644)
        return file

    def commit(self, message: str = "A change") -> str:
        """Commit everything in the work tree, a minute after the last commit, and return the commit id."""
        self._clock += SECONDS_BETWEEN
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def commit_signed(self, signer: Signer) -> str:
        """Commit everything with a signature, a minute after the last commit, and return the commit id."""
        self.commit()
        key = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={signer.key}")
        self.git(*key, "commit", "--quiet", "--amend", "--no-edit", "--gpg-sign")
        return self.git("rev-parse", "HEAD")

    def tag(
        self,
        name: str,
        *,
        at: str = "HEAD",
        signer: Signer | None = None,
        force: bool = False,
    ) -> str:
        """Tag a commit and return the commit id; `force` moves a tag that is there."""
        options = ["--force"] if force else []
        if signer is not None:
            options += ["--sign", "--message", f"Release {name}"]
        else:
            options += ["--annotate", "--message", f"Release {name}"]
        key = [] if signer is None else ["-c", f"user.signingKey={signer.key}"]
        self.git("-c", "gpg.format=ssh", *key, "tag", *options, name, at)
        return self.git("rev-parse", f"{name}^{{commit}}")

    def push(self) -> None:
        """Make the bare repository the same as the work tree's: branches and tags, moved and removed ones too."""
        self.git(
            *("push", "--quiet", "--force", "--prune", "origin"),
            *("refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"),
        )

    def release(self, name: str, files: dict[str, str], *, signer: Signer | None = None) -> str:
        """Write files, commit, tag and push in one step; returns the commit id."""
        for path, content in files.items():
            self.write(path, content)
        self.commit(f"Prepare {name}")
        commit = self.tag(name, signer=signer)
        self.push()
        return commit


def _run(
    command: list[str], *, cwd: Path | None = None, environ: dict[str, str] | None = None
) -> str:
    around = {**_without_git(), **GIT_ENVIRON, **(environ or {})}
    return output_of(command, environ=around, at=cwd).strip()


def _without_git() -> dict[str, str]:
    """The environment less git's own variables: tests may run inside a git hook, which sets GIT_DIR."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
