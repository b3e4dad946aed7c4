"""What a job may say of itself in `MAYFLY_RESULT_FILE`; the text is the job's, so hostile. Decisions only."""

import json
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from agent.base.redact import Redactor
from agent.contract.results import Count, JobCause

MAX_BYTES = 64 * 1024


def _known(cause: JobCause) -> JobCause:
    """Reject unknown causes: the contract is open for newer agents, not for jobs."""
    if cause.known is not cause:
        raise ValueError(f"{cause.value!r} is no cause")
    return cause


class ResultFile(BaseModel):
    """What a job says of itself; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    cause: Annotated[JobCause, AfterValidator(_known)] | None = None
    items: Count | None = None
    message: str = ""
    metrics: dict[
        Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$")], float
    ] = Field(default_factory=dict, max_length=32)


def read_result(text: bytes, redactor: Redactor) -> tuple[ResultFile, str]:
    """Return what a job says of itself, and why that could not be read."""
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")  # noqa: TRY301
        data = redactor.value(json.loads(text))
        # JSON can escape half a character, which no file of ours could hold.
        json.dumps(data, ensure_ascii=False).encode()
        return ResultFile.model_validate(data), ""
    except (ValueError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        return ResultFile(), f"its result file could not be read: {reason[:200]}"
