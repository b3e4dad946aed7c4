"""Whether a release is signed by somebody who may. git and ssh-keygen check signatures; nothing of a repository does.

What was signed is kept with the release, so that it is looked at again before every run, also without a network: who
is taken out of the file is out with the next run.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.base.errors import ReleaseRefused
from agent.config.faults import Fault
from agent.config.settings import Release
from agent.contract.facts import Signer
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


def signers_faults(settings: Release) -> list[Fault]:
    """Return what is wrong with the file that names the signers; nothing where none is configured."""
    if settings.allowed_signers is None:
        return []
    file = settings.allowed_signers
    try:
        text = _read(file)
    except OSError as error:
        return [Fault(str(file), KEY, f"cannot be read: {error.strerror}", REMEDY)]
    problem = signers_problem(text)
    if problem is not None:
        return [Fault(str(file), KEY, problem, REMEDY)]
    return [
        Fault(str(file), KEY, f"line {number} has no key", "mayfly release new prints such a line")
        for number in keyless_lines(text)
    ]


def _read(file: Path) -> bytes:
    """Return a file's text; a pipe or a device, on which a read could wait for ever, is an error at once."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:  # noqa: PTH123 -- a descriptor
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, "Is a directory" if stat.S_ISDIR(mode) else "it is no file")
        return stream.read(MAX_SIGNERS_BYTES)


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
            found = signers_problem(_read(self.signers))
        except OSError as error:
            return f"{KEY}: {self.signers} cannot be read: {error.strerror}"
        return f"{KEY}: {self.signers} {found}" if found else None

    def insist(self) -> None:
        """Refuse to go on when nobody can be verified.

        Raises:
            ReleaseRefused: The file that names the signers is of no use.
        """
        problem = self.problem()
        if problem is not None:
            raise ReleaseRefused("unverified", problem, remedy=REMEDY)

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
