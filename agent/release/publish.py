"""`mayfly release new`: a version of the scrapers is checked, tagged, signed, and verified as a machine would."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.base import processes
from agent.base.errors import ProcessTimeout, ReleaseError, UsageError
from agent.base.versions import Track
from agent.config.faults import ConfigurationError
from agent.config.jobsfile import parse_jobs
from agent.contract.facts import Signer
from agent.release.advice import release_faults
from agent.release.git import action_of
from agent.release.trust import signer_of, unsigned_reason

GIT_SECONDS = 60.0
PUSH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A release to publish: the commit of the working tree `folder`, under the tag `version`.

    Attributes:
        jobs: Path of the jobs file in it.
        track: The pattern of the tags that machines follow.
        key: The ssh key to sign with; None for git's configured one.
        signers: The allowed_signers file; None for git's configured one.
        message: The tag's message; empty for a plain one.
        remote: Where it is pushed; None for nowhere.
    """

    folder: Path
    version: str
    jobs: str
    track: str
    key: str | None = None
    signers: Path | None = None
    message: str = ""
    remote: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A tag that was made.

    Attributes:
        signer: Who signed it; None if there was no allowed_signers file.
        line: The key's line for an allowed_signers file; empty if the key could not be read.
    """

    commit: str
    signer: Signer | None
    line: str


async def publish(plan: Plan, *, environ: Mapping[str, str], version: str) -> Published:
    """Check the working tree's jobs, tag its commit, sign, verify, and push if that is wanted.

    git runs with its user's own configuration here: it is their repository. `version` is this agent's, which the jobs
    may require.

    Raises:
        UsageError: The working tree is not clean, or the version is not a new one.
        ConfigurationError: The jobs have faults.
        ReleaseError: It could not be signed, verified or pushed. A tag that does not verify is removed again.
    """
    git = _Git(plan.folder, environ)
    top = Path(await git.line("rev-parse", "--show-toplevel"))
    await _refuse_changes(git)
    _check_jobs(top, plan, version)
    await _refuse_version(git, plan)
    key = plan.key or await git.setting("user.signingKey")
    if not key:
        raise UsageError(
            "no key to sign with",
            remedy="give --key ~/.ssh/id_ed25519, or: git config user.signingKey ~/.ssh/id_ed25519",
        )
    message = plan.message or f"Release {plan.version}"
    await git.line(
        *("-c", "gpg.format=ssh", "-c", f"user.signingKey={key}"),
        *("tag", "--sign", "--message", message, plan.version),
        remedy="a key with a passphrase has to be in ssh-agent: ssh-add",
    )
    try:
        signer = await _verify(git, plan)
    except ReleaseError:
        await git.line("tag", "--delete", plan.version)
        raise
    if plan.remote is not None:
        ref = f"refs/tags/{plan.version}"
        await git.line(
            *("push", plan.remote, f"{ref}:{ref}"),
            seconds=PUSH_SECONDS,
            remedy=f"the tag is made, and only has to be pushed: git push {plan.remote} {plan.version}",
        )
    return Published(
        commit=await git.line("rev-parse", f"{plan.version}^{{commit}}"),
        signer=signer,
        line=await _signers_line(git, key),
    )


class _Git:
    """The user's git, in the user's repository."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = {**environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}

    async def run(
        self, *arguments: str, seconds: float = GIT_SECONDS, remedy: str = ""
    ) -> processes.Finished:
        """Run git to its end."""
        try:
            return await processes.run(
                ("git", *arguments), environ=self._environ, seconds=seconds, cwd=self._folder
            )
        except (ProcessTimeout, OSError) as error:
            raise ReleaseError(f"{action_of(arguments)}: {error}", remedy=remedy) from error

    async def line(self, *arguments: str, seconds: float = GIT_SECONDS, remedy: str = "") -> str:
        """Return git's output."""
        done = await self.run(*arguments, seconds=seconds, remedy=remedy)
        if done.code != 0:
            raise ReleaseError(f"{action_of(arguments)}: {done.complaint}", remedy=remedy)
        return done.stdout.decode(errors="replace").strip()

    async def setting(self, name: str) -> str:
        """Return a key of git's configuration; empty if it is not set."""
        done = await self.run("config", "--get", "--type=path", name)
        return done.stdout.decode(errors="replace").strip() if done.code == 0 else ""


async def _refuse_changes(git: _Git) -> None:
    changes = (await git.line("status", "--porcelain")).splitlines()
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""  # noqa: PLR2004
        raise UsageError(
            f"the working tree has changes: {', '.join(line[3:] for line in changes[:3])}{more}",
            remedy="commit them, or put them aside: git stash --include-untracked",
        )


def _check_jobs(top: Path, plan: Plan, version: str) -> None:
    name = plan.jobs
    try:
        text = (top / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{name} cannot be read: {error}") from error
    jobs, faults = parse_jobs(text, name, version)
    if jobs is not None:
        signed = plan.signers is not None
        faults = release_faults(top, jobs, name, source=name, signed=signed)
    if faults:
        raise ConfigurationError(faults)


async def _refuse_version(git: _Git, plan: Plan) -> None:
    name = plan.version
    valid = await git.run("check-ref-format", f"refs/tags/{name}")
    if valid.code != 0 or name.startswith("-"):
        raise UsageError(f'"{name}" cannot be the name of a tag')
    tags = (await git.line("tag", "--list")).splitlines()
    if name in tags:
        raise UsageError(
            f"there is a {name} already", remedy="a tag never moves: take the next number"
        )
    track = Track(plan.track)
    if track.version(name) is None and name != plan.track:
        raise UsageError(
            f'"{name}" does not match "{plan.track}", which machines follow',
            remedy="take the pattern's own shape: with v*, a v and a version, such as v1.4 or v1.4rc1",
        )
    before = track.newest_first(tags)
    if before and track.order(name) < track.order(before[0]):
        raise UsageError(f"{name} is older than {before[0]}, so that no machine would run it")


async def _verify(git: _Git, plan: Plan) -> Signer | None:
    """Return who signed the new tag, as a machine with the same allowed_signers would see it."""
    signers = str(plan.signers or "") or await git.setting("gpg.ssh.allowedSignersFile")
    if not signers:
        return None
    if not Path(signers).is_file():
        raise ReleaseError(f"there is no allowed_signers file {signers}")
    done = await git.run(
        *("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}"),
        *("-c", "gpg.minTrustLevel=fully", "verify-tag", "--raw", plan.version),
    )
    said = done.stderr.decode(errors="replace")
    signer = signer_of(said) if done.code == 0 else None
    if signer is None:
        raise ReleaseError(
            f"machines would reject it: {unsigned_reason('tag', said)}",
            remedy=f"add the key to {signers}, or sign with one that is in it: --key",
        )
    return signer


async def _signers_line(git: _Git, key: str) -> str:
    """Return the line for allowed_signers: the user's address, and the public key."""
    who = await git.setting("user.email") or "me@example.com"
    literal = key.removeprefix("key::")
    if not literal.startswith(("ssh-", "ecdsa-", "sk-")):
        public = Path(key if key.endswith(".pub") else f"{key}.pub").expanduser()
        try:
            literal = public.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return ""
    return f'{who} namespaces="git" {" ".join(literal.split()[:2])}'
