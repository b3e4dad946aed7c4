"""Statuses and causes of jobs and runs, to which a newer writer may add. Decisions only."""

import re
from enum import Enum, StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from agent.contract.ids import EARLIEST, LATEST

_WORD = r"^[a-z][a-z0-9_]{0,31}$"


class OpenEnum(StrEnum):
    """An enum that is open: an unknown word of a newer writer keeps its text, and is treated as the last member.

    A new member therefore goes before the last one.
    """

    @property
    def known(self) -> Self:
        """The member to decide by: itself, or the last one for an unknown word."""
        return self if self.name in type(self).__members__ else [*type(self)][-1]

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str) or re.fullmatch(_WORD, value) is None:
            return None
        word = str.__new__(cls, value)
        word._name_ = word._value_ = value
        return word

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(max_length=32, pattern=_WORD),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "examples": [member.value for member in cls]}


class Fault(Enum):
    """Whose fault it is that a job did not succeed: a release on trial is judged by it."""

    SITE = "site"
    MACHINE = "machine"
    RELEASE = "release"
    UNKNOWN = "unknown"  # a rerun on the last good release tells


class JobCause(OpenEnum):
    """Why a job did not succeed."""

    fault: Fault

    PAGE_CHANGED = "page_changed", Fault.UNKNOWN
    BLOCKED = "blocked", Fault.SITE
    SITE_UNREACHABLE = "site_unreachable", Fault.SITE
    BROWSER = "browser", Fault.MACHINE
    TIMEOUT = "timeout", Fault.UNKNOWN
    OUT_OF_MEMORY = "out_of_memory", Fault.UNKNOWN
    OUT_OF_DISK = "out_of_disk", Fault.MACHINE
    INTERRUPTED = "interrupted", Fault.MACHINE
    EXPECTATION = "expectation", Fault.UNKNOWN
    RELEASE = "release", Fault.RELEASE
    ERROR = "error", Fault.UNKNOWN

    def __new__(cls, value: str, fault: Fault = Fault.UNKNOWN) -> Self:
        """Make a member: its word, and whose fault it is."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.fault = fault
        return member

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        word = super()._missing_(value)
        if word is not None:
            word.fault = cls.ERROR.fault
        return word


class JobStatus(OpenEnum):
    """How a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    EMPTY = "empty"  # it exited 0 but broke its own `expect`, or each of its files was refused
    SKIPPED = "skipped"
    UNKNOWN = "unknown"  # no success


class RunStatus(OpenEnum):
    """How a run stands; the last four are what a reader says of a run, and no writer writes them."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    STOOD_BACK = "stood_back"
    RUNNING = "running"
    LOST = "lost"
    EXPIRED = "expired"
    UNKNOWN = "unknown"  # ends no batch


COMPLETE = frozenset({RunStatus.SUCCEEDED, RunStatus.PARTIAL, RunStatus.FAILED})
"""A run that closed with one of these did what there was to do."""


class Record(BaseModel):
    """A frozen value that is written as JSON; what a newer writer added survives."""

    # JSON has no NaN and no Infinity: what cannot be written is not accepted either.
    model_config = ConfigDict(
        extra="allow", frozen=True, allow_inf_nan=False, populate_by_name=True
    )


LARGEST = 2**53
"""Integers above it are not the same in every program that reads JSON."""

LONGEST_SECONDS = 10 * 366 * 86400
"""Ten years; what lasts longer by two clocks is written as that."""

Count = Annotated[int, Field(ge=0, le=LARGEST)]
Moment = Annotated[AwareDatetime, Field(ge=EARLIEST, le=LATEST)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Dollars = Annotated[float, Field(ge=0, le=1_000_000)]
"""US dollars; a larger amount is a forgery or a mistake."""
Name = Annotated[str, Field(max_length=300)]
Message = Annotated[str, Field(max_length=2000)]
