"""What became of jobs and runs. These models are written into the manifest as they are."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from agent.base.redact import Redactor

MAX_RESULT_FILE = 64 * 1024
"""Bytes of what a job may say of itself."""


class JobStatus(StrEnum):
    """How a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    EMPTY = "empty"
    SKIPPED = "skipped"


class JobCause(StrEnum):
    """Why a job did not succeed, so that an alert can say it."""

    PAGE_CHANGED = "page_changed"
    BLOCKED = "blocked"
    SITE_UNREACHABLE = "site_unreachable"
    BROWSER = "browser"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    INTERRUPTED = "interrupted"
    EXPECTATION = "expectation"
    RELEASE = "release"
    ERROR = "error"


class RunStatus(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


Message = Annotated[str, StringConstraints(max_length=2000)]


class Record(BaseModel):
    """A frozen value that is written as JSON; what a newer writer added survives."""

    # JSON has no NaN and no Infinity: what cannot be written is not accepted either.
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Attempt(Record):
    """One start of a job's program."""

    number: int = Field(ge=1)
    started: AwareDatetime
    finished: AwareDatetime
    status: JobStatus
    cause: JobCause | None = None
    message: Message = ""
    exit_code: int | None = None
    signal: int | None = Field(None, description="The signal that ended the program, if one did.")
    output_bytes: int = Field(0, ge=0, description="What it wrote to stdout and stderr.")
    image: str | None = Field(
        None,
        description="For a container: its image and that image's digest, or its stack's service.",
    )


class Reach(StrEnum):
    """Whether something can be reached."""

    UNREACHABLE = "unreachable"
    REACHABLE = "reachable"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class IsolationRecord(Record):
    """How the jobs of a run were kept apart, and what a probe found."""

    backend: Literal["systemd", "process"]
    metadata: Reach = Field(
        description="The metadata service from a job; absent: the machine has none."
    )
    containers: Reach = Field(description="The metadata service from a container.")


class RefusedFile(Record):
    """Something in a job's output that cannot be a result, such as a link."""

    path: str
    reason: str


Family = Annotated[
    str | None,
    Field(
        description="The job's name in jobs.toml, the same for all values of a matrix; null of an older agent."
    ),
]


RefusedFiles = Annotated[
    int,
    Field(
        ge=0,
        description="Entries of its output that could not be handed over, such as links: it is incomplete.",
    ),
]


class JobResult(Record):
    """What became of one job."""

    name: str
    family: Family = None
    status: JobStatus
    cause: JobCause | None = None
    message: Message = ""
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None
    attempts: tuple[Attempt, ...] = ()
    files: int = Field(0, ge=0)
    bytes: int = Field(0, ge=0)
    items: int | None = Field(None, ge=0, description="What the job says it collected.")
    metrics: dict[str, float] = Field(default_factory=dict)
    refused: tuple[RefusedFile, ...] = Field((), description="The first hundred of them.")
    refused_files: RefusedFiles = 0
    state: str | None = Field(None, description="Key of the memory it left for the next run.")
    release: str | None = Field(
        None, description="The commit that made it, where that is not the run's release."
    )
    notes: tuple[str, ...] = Field(
        (), description="What was odd without being a failure, such as an unreadable result file."
    )

    @property
    def incomplete(self) -> bool:
        """Whether it succeeded, and not all that it wrote could be handed over."""
        return self.status is JobStatus.SUCCEEDED and self.refused_files > 0

    @property
    def seconds(self) -> float:
        """Wall-clock seconds over all attempts."""
        if self.started is None or self.finished is None:
            return 0.0
        return (self.finished - self.started).total_seconds()


class ResultFile(BaseModel):
    """What a job may say of itself in `MAYFLY_RESULT_FILE`; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    cause: JobCause | None = None
    items: int | None = Field(None, ge=0, le=2**53)
    message: str = ""
    metrics: dict[
        Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$")], float
    ] = Field(default_factory=dict, max_length=32)


def read_result(text: bytes, redactor: Redactor) -> tuple[ResultFile, str]:
    """Return what a job says of itself, and why that could not be read; the text is the job's, so hostile."""
    try:
        if len(text) > MAX_RESULT_FILE:
            raise ValueError(f"it has more than {MAX_RESULT_FILE} bytes")  # noqa: TRY301
        data = redactor.value(json.loads(text))
        # JSON can escape half a character, which no file of ours could hold.
        json.dumps(data, ensure_ascii=False).encode()
        return ResultFile.model_validate(data), ""
    except (ValueError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        return ResultFile(), f"its result file could not be read: {reason[:200]}"


def tally(results: Any) -> dict[str, int]:
    """Return how many results have each status, in the order of `JobStatus`."""
    statuses = [result.status for result in results]
    return {status.value: statuses.count(status) for status in JobStatus if status in statuses}


Dollars = Annotated[float, Field(ge=0, le=1_000_000)]
"""US dollars. No run of ours costs a million: a larger number is a forgery or a mistake."""


class CostRecord(Record):
    """What a run cost, as the machine estimates it before it goes off; US dollars."""

    total_usd: Dollars = Field(description="The sum of the four parts.")
    billed_seconds: float = Field(
        ge=0, le=366 * 86400, description="From launch to the expected power-off."
    )
    market: Literal["on-demand", "spot"]
    rate_usd_hour: Dollars = Field(description="Of the instance.")
    rate_source: Literal["spot-history", "configured", "list"]
    rate_as_of: datetime | None = Field(None, description="Since when a spot price holds.")
    instance_usd: Dollars
    surplus_usd: Dollars = Field(0.0, description="CPU credits that a T instance bought.")
    volume_usd: Dollars = Field(0.0, description="A disk that exists only for this run.")
    address_usd: Dollars = Field(0.0, description="The public IPv4 address.")
    standing_usd_month: Dollars = Field(
        0.0, description="What is billed all month, run or no run; not in the total."
    )
