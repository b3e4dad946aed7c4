"""What a check is, and how all of them run."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.base.errors import MayflyError
from agent.base.logs import Log
from agent.base.redact import Redactor
from agent.base.urlsecrets import environment_secrets
from agent.config.faults import Fault
from agent.config.jobsfile import JobsFile
from agent.config.locate import Locations
from agent.config.settings import Settings


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check.

    Attributes:
        state: How it ended.
        detail: What was seen, or why it was skipped.
        remedy: What a person can do about a failure.
        name: The check's.
    """

    state: State
    detail: str
    remedy: str = ""
    name: str = ""


def ok(detail: str) -> Finding:
    """The part works."""
    return Finding(State.OK, detail)


def failed(detail: str, remedy: str) -> Finding:
    """The part does not work."""
    return Finding(State.FAILED, detail, remedy)


def skipped(reason: str) -> Finding:
    """The part is not used here."""
    return Finding(State.SKIPPED, reason)


@dataclass(frozen=True, slots=True)
class Installation:
    """The agent as it is set up here.

    Attributes:
        settings: The configuration; the defaults if it has faults.
        source: Where it came from.
        faults: Its faults.
        places: Where things are.
        environ: The environment.
        machine: Whether this is a machine that runs Mayfly and switches itself off.
        log: Gets the parts' own messages.
        jobs: The jobs that count while no release has run here; None if none are known.
    """

    settings: Settings
    source: str
    faults: tuple[Fault, ...]
    places: Locations
    environ: Mapping[str, str]
    machine: bool
    log: Log
    jobs: JobsFile | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: In words.
        seconds: Its limit.
        ask: Does it; an expected error is a failure with the error's remedy.
    """

    name: str
    seconds: float
    ask: Callable[[Installation], Awaitable[Finding]]


async def examine(installation: Installation, checks: Sequence[Check]) -> list[Finding]:
    """Run all checks at once; return their findings in this order and without secrets."""
    redactor = Redactor(
        installation.settings.sensitive() | environment_secrets(installation.environ)
    )
    findings = await asyncio.gather(*(_one(check, installation) for check in checks))
    return [
        replace(
            finding,
            name=check.name,
            detail=redactor.text(finding.detail),
            remedy=redactor.text(finding.remedy),
        )
        for check, finding in zip(checks, findings, strict=True)
    ]


async def _one(check: Check, installation: Installation) -> Finding:
    try:
        async with asyncio.timeout(check.seconds):
            return await check.ask(installation)
    except TimeoutError:
        return failed(f"no answer within {check.seconds:g} s", "check the network")
    except MayflyError as error:
        return failed(str(error), error.remedy or "check this part's section of the configuration")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return failed(f"{where}{error.strerror or error}", "check the disk and its permissions")
    except Exception as error:  # noqa: BLE001 -- a defect in one check must not hide what the others found
        return failed(f"the check itself broke: {error!r}", "report it as a defect of Mayfly")
