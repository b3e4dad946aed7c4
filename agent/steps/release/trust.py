"""Whether a release is signed by somebody who may. git and ssh-keygen check signatures; nothing of a repository does.

What was signed is kept with the release, so that it is looked at again before every run, also without a network: who
is taken out of the file is out with the next run.
"""

from dataclasses import dataclass
from pathlib import Path

from agent.core.errors import ReleaseRefused
from agent.core.settings import Release
from agent.core.trust import (
    Signed,
    Signer,
    claim_problem,
    signer_of,
    signers_problem,
    unsigned_reason,
)
from agent.steps.release.mirror import Mirror

MAX_SIGNERS_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class Trust:
    """How releases are trusted.

    Attributes:
        signers: The allowed_signers file; None when whatever the repository holds may run.
        stated: Whether an operator said so, one way or the other.
    """

    signers: Path | None
    stated: bool

    @classmethod
    def of(cls, settings: Release) -> "Trust":
        """Return what the configuration says."""
        stated = settings.trust is not None or settings.allowed_signers is not None
        return cls(settings.allowed_signers, stated)

    def problem(self) -> str | None:
        """Return why the file that names the signers is of no use, or None."""
        if self.signers is None:
            return None
        try:
            with self.signers.open("rb") as stream:
                found = signers_problem(stream.read(MAX_SIGNERS_BYTES))
        except OSError as error:
            return f"release.allowed_signers: {self.signers} cannot be read: {error.strerror}"
        return f"release.allowed_signers: {self.signers} {found}" if found else None

    def insist(self) -> None:
        """Refuse to go on when nobody can be verified.

        Raises:
            ReleaseRefused: The file that names the signers is of no use.
        """
        problem = self.problem()
        if problem is not None:
            raise ReleaseRefused(
                "unverified",
                problem,
                remedy='put the file there, one line a signer (docs/releases.md), or set release.trust = "none"',
            )

    async def verified(
        self, signed: Signed | None, name: str, commit: str, mirror: Mirror
    ) -> Signer | None:
        """Return who signed a release; None when nobody has to.

        Args:
            signed: What carries the signature, if it is known.
            name: The tag or branch that was asked for.
            commit: The commit that would run.
            mirror: Where git looks.

        Raises:
            ReleaseRefused: It is not signed by anybody who may.
            GitError: git could not be asked.
        """
        if self.signers is None:
            return None
        self.insist()
        if signed is None:
            raise ReleaseRefused("unverified", "it was installed without a look at its signature")
        problem = claim_problem(signed, name, commit)
        good, said = (False, "") if problem else await mirror.verify(signed, self.signers)
        signer = signer_of(said) if good else None
        if signer is None:
            raise ReleaseRefused(
                "unverified",
                problem or unsigned_reason(signed.kind, said),
                remedy="publish it with mayfly release new, or name its signer in release.allowed_signers",
            )
        return signer
