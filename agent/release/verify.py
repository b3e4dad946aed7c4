"""Whether a release is signed by somebody who may. git and ssh-keygen check signatures; nothing of a repository does.

The signed object is kept with the release and verified again before every run, also without a network: who is removed
from the file is out with the next run.
"""

from dataclasses import dataclass
from pathlib import Path

from agent.base.errors import ReleaseRefused
from agent.base.regular import open_regular
from agent.config.faults import Fault
from agent.contract.facts import Signer
from agent.contract.releases import Version
from agent.release.mirror import Mirror
from agent.release.trust import (
    Signed,
    claim_problem,
    keyless_lines,
    signer_of,
    signers_problem,
    unsigned_reason,
)

MAX_SIGNERS_BYTES = 1024**2
KEY = "release.allowed_signers"
REMEDY = 'put the file there, one line a signer (docs/releases.md), or set release.trust = "none"'


def signers_faults(file: Path | None, remedy: str = REMEDY) -> list[Fault]:
    """Return the faults of the file that names the signers; none if no file is configured.

    `remedy` is what to do about one that is unusable.
    """
    if file is None:
        return []
    text, problem = _read(file)
    if problem is not None:
        return [Fault(str(file), KEY, problem, remedy)]
    return [
        Fault(str(file), KEY, f"line {number} has no key", "mayfly release new prints such a line")
        for number in keyless_lines(text)
    ]


def _read(file: Path) -> tuple[bytes, str | None]:
    """Return the content of a file of signers, and why it is unusable, or None."""
    try:
        with open_regular(file) as stream:
            text = stream.read(MAX_SIGNERS_BYTES)
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"
    return text, signers_problem(text)


@dataclass(frozen=True, slots=True)
class Trust:
    """How releases are trusted: `signers` is the allowed_signers file; None if anything in the repository may run."""

    signers: Path | None

    def problem(self) -> str | None:
        """Return why the file that names the signers is unusable, or None."""
        if self.signers is None:
            return None
        _, found = _read(self.signers)
        return f"{KEY}: {self.signers} {found}" if found else None

    def insist(self) -> None:
        """Stop if nobody can be verified.

        Raises:
            ReleaseRefused: The file that names the signers is unusable.
        """
        problem = self.problem()
        if problem is not None:
            raise ReleaseRefused("unverified", problem, remedy=REMEDY)

    async def verified(
        self, signed: Signed | None, version: Version, mirror: Mirror
    ) -> Signer | None:
        """Return who signed `version`, which would run, by the signed object; None if nobody has to.

        Raises:
            ReleaseRefused: It is not signed by anybody who may.
            GitError: git could not be asked.
        """
        if self.signers is None:
            return None
        self.insist()
        if signed is None:
            raise ReleaseRefused(
                "unverified", "its signature was not verified when it was installed"
            )
        problem = claim_problem(signed, version.ref, version.commit)
        good, said = (False, "") if problem else await mirror.verify(signed, self.signers)
        signer = signer_of(said) if good else None
        if signer is None:
            raise ReleaseRefused(
                "unverified",
                problem or unsigned_reason(signed.kind, said),
                remedy="publish it with mayfly release new, or name its signer in release.allowed_signers",
            )
        return signer
