"""A release's `jobs.toml`: what runs, when, within which limits, and what counts as success. Decisions only.

`docs/schemas/jobs.schema.json` is generated from these models.
"""

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from agent.base.containers import IMAGE_NAME, is_clients_own, output_problem
from agent.base.rates import interval_of, is_site
from agent.base.units import Seconds, Size
from agent.base.versions import requirement_problem
from agent.base.zones import zone_problem, zones
from agent.config.faults import LONGEST_SHOWN, Fault, faults_of, read_toml, suggest
from agent.contract.ids import JOB
from agent.contract.names import path_problem

_JOB_NAME = f"^{JOB}$"
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
_SERVICE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"


def _matches(pattern: str, remedy: str) -> AfterValidator:
    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:  # `$` alone would let a final line break pass
            raise ValueError(f'"{text}" is not possible; {remedy}')
        return text

    return AfterValidator(check)


JobName = Annotated[
    str,
    _matches(_JOB_NAME, "use a-z, 0-9 and hyphens between, at most 63"),
    WithJsonSchema({"type": "string", "pattern": _JOB_NAME}),
]
EnvName = Annotated[
    str,
    _matches(_ENV_NAME, "use letters, digits and underscores"),
    WithJsonSchema({"type": "string", "pattern": _ENV_NAME}),
]

ImageName = Annotated[
    str,
    _matches(IMAGE_NAME, "write the image's name, such as example.org/shop:1.4"),
    WithJsonSchema({"type": "string", "pattern": IMAGE_NAME}),
]
ServiceName = Annotated[
    str,
    _matches(_SERVICE_NAME, "a service's name begins with a letter, a digit or an underscore"),
    WithJsonSchema({"type": "string", "pattern": _SERVICE_NAME}),
]

MAX_NAME = 63
"""Characters of a job's name: a DNS label, which containers and units take as a name."""

MAX_JOBS = 1_000_000
"""Jobs of a file once its matrices are taken apart, over all shards. Twelve keys of nine values each would be
282,429,536,481."""

MOST_TOLD = 5
"""Rules between a job's keys that one fault names."""

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OURS = frozenset({"PATH", "HOME", "LANG"})
"""Variables that the agent sets for every job; `env` may not."""


class Table(BaseModel):
    """A table of `jobs.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Expect(Table):
    """What a job that exited 0 must have produced; otherwise it is `empty`."""

    min_files: int | None = Field(None, ge=1, description="Result files, at least.")
    min_bytes: Size | None = Field(None, description="Bytes of all result files, at least.")
    min_items: int | None = Field(None, ge=1, description="Items the job reports, at least.")
    drop: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Fewer files or items than this share of the recent median is `empty`.",
    )


class ReleaseBrowser(Table):
    """The browser that this release was written for."""

    image: ImageName = Field(description="Selenium image, instead of the agent's `browser.image`.")


class Job(Table):
    """One `[[job]]`: any program, or a container."""

    name: JobName = Field(description="Unique; a-z, 0-9 and hyphens.")
    command: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Program, arguments; with `image` and `compose` the container's, instead of its own.",
    )
    image: ImageName | None = Field(None, description="Container image to run.")
    compose: str | None = Field(None, description="Compose file of an existing stack.")
    service: ServiceName | None = Field(None, description="The stack's batch service.")
    output: str | None = Field(
        None,
        description="Container path of the results; of a program a folder beside its code, such as `.`.",
    )
    browser: bool = Field(False, description="Wants a WebDriver URL.")
    timeout: Seconds = Field(1800.0, description="Limit of each attempt.")
    retries: int = Field(
        0,
        ge=0,
        le=10,
        description="Attempts after a failed first one. Exit code 75 and a lost browser get one in any case.",
    )
    needs: tuple[JobName, ...] = Field((), description="Jobs that must have succeeded before.")
    on: str | None = Field(None, description='Days it runs: "mon..fri", "sat,sun".')
    memory: Size | None = Field(None, description="Memory limit.")
    shared_memory: Size | None = Field(
        None,
        description="With `image`: `/dev/shm` of the container; a browser in it wants 1 or 2 GiB.",
    )
    matrix: Mapping[EnvName, tuple[str, ...]] = Field(
        {}, description="One job per value (per combination), as MAYFLY_MATRIX_<KEY>."
    )
    env: Mapping[EnvName, str] = Field({}, description="Environment of the job.")
    secrets: tuple[EnvName, ...] = Field((), description="Secrets the job gets, by name.")
    rate: Mapping[str, str] = Field(
        {},
        description='Starts of jobs for each site, over all jobs of the machine: { "example.org" = "1/s" }.',
    )
    state: Literal["success", "checkpoint"] = Field(
        "success",
        description='Whose state the next run gets: the last success\'s, or with "checkpoint" also that of an attempt'
        " that was interrupted or timed out; a retry begins with it, too.",
    )
    expect: Expect = Field(Expect(), description="What it must produce to have succeeded.")

    @field_validator("on")
    @classmethod
    def _days(cls, on: str | None) -> str | None:
        if on is not None:
            parse_days(on)
        return on

    @field_validator("rate")
    @classmethod
    def _paces(cls, rate: Mapping[str, str]) -> Mapping[str, str]:
        for site, text in rate.items():
            if not is_site(site):
                raise ValueError(f'"{site}" is not a host name in lower case')
            interval_of(text)
        return rate

    @field_validator("matrix")
    @classmethod
    def _values(cls, matrix: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for key, values in matrix.items():
            if not values or len(set(values)) != len(values):
                raise ValueError(f'the values of "{key}" must be there, each once')
        if len({key.upper() for key in matrix}) != len(matrix):
            raise ValueError("two keys differ in case only, and share one environment variable")
        return matrix

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = [*self._kind_problems(), *self._container_problems(), *self._environment_problems()]
        if found:
            raise ValueError("; ".join(found[:MOST_TOLD]))
        return self

    def _kind_problems(self) -> Iterator[str]:
        kinds = [kind for kind in (self.image, self.compose) if kind is not None]
        if len(kinds) > 1 or (not kinds and self.command is None):
            yield 'needs one of "command", "image" and "compose"'
        if self.compose is not None and self.service is None:
            yield '"compose" needs "service", the one whose exit code counts'
        if self.compose is None and self.service is not None:
            yield '"service" goes with "compose"'
        output = self.output
        if output is not None and self.in_container and (problem := output_problem(output)):
            yield f'"output" {problem}; write for example "/data"'
        if output is not None and output != "." and not self.in_container and path_problem(output):
            yield (
                f'"output" of a program is a folder of the release, and "{output}" is none;'
                ' write for example "." or "out"'
            )

    def _container_problems(self) -> Iterator[str]:
        if self.compose is not None and self.memory is not None:
            yield '"memory" of a stack\'s services is set in the compose file: mem_limit'
        if self.shared_memory is not None and self.image is None:
            yield '"shared_memory" goes with "image"; a stack\'s services have shm_size'
        if self.compose is not None and self.browser:
            yield 'a stack brings its own browser; remove "browser"'
        for name in self.secrets if self.in_container else ():
            if is_clients_own(name):
                yield f'a container\'s secret cannot be named "{name}"; rename it'

    def _environment_problems(self) -> Iterator[str]:
        for name in (*self.env, *self.secrets):
            if name in OURS or name.startswith("MAYFLY_"):
                yield f'"{name}" is set by the agent and cannot be given'
        for name in self.secrets:
            if name in self.env:
                yield f'"{name}" is both in env and in secrets; keep one'
        zone = self.env.get("TZ", "")
        if zone and (problem := zone_problem(zone, by_days=self.on is not None)):
            near = f"; {suggest(zone, zones())}" if problem.endswith("is not a time zone") else ""
            yield f"env.TZ: {problem}{near}"[:LONGEST_SHOWN]

    @property
    def in_container(self) -> bool:
        """Whether it is a container, or a stack of them, and not a program of this machine."""
        return self.image is not None or self.compose is not None

    @property
    def works_in_copy(self) -> bool:
        """Whether it writes beside its code, as a stack may and as a program with an `output` does."""
        return self.compose is not None or (self.output is not None and not self.in_container)

    @property
    def days(self) -> frozenset[int]:
        """Weekdays on which the job runs, Monday being 0."""
        return parse_days(self.on) if self.on is not None else frozenset(range(7))


class JobsFile(Table):
    """`jobs.toml`."""

    requires: str | None = Field(None, description='Oldest agent that will do: "mayfly >= 0.1".')
    browser: ReleaseBrowser | None = Field(None, description="Browser that the release pins.")
    retired: tuple[JobName, ...] = Field(
        (),
        description="Jobs that earlier releases had and this one means to be without; a job that is"
        " missing without a word is taken for an accident, and the last good release runs.",
    )
    job: tuple[Job, ...] = Field(min_length=1, description="The jobs.")


def parse_days(text: str) -> frozenset[int]:
    """Return weekdays (Monday is 0) for `"mon..fri"` or `"mon, thu, sat..sun"`; ranges may wrap.

    Raises:
        ValueError: The text has something else than day names.
    """
    days: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, dots, last = part.partition("..")
        if first not in DAYS or (dots and last not in DAYS):
            raise ValueError(f'"{part}" is not a day; write for example "mon..fri" or "sat,sun"')
        start = DAYS.index(first)
        length = (DAYS.index(last) - start) % 7 if dots else 0
        days |= {(start + step) % 7 for step in range(length + 1)}
    return frozenset(days)


def parse_jobs(text: str, source: str, version: str) -> tuple[JobsFile | None, list[Fault]]:
    """Return the jobs of a release, or all faults of its file, for an agent of `version`."""
    data, faults = read_toml(text, source)
    if faults:
        return None, faults
    requires = data.get("requires")
    if isinstance(requires, str) and (problem := requirement_problem(requires, version)):
        # A newer format may have any number of unknown keys: this one sentence is the useful one.
        return None, [Fault(source, "requires", problem, "update the agent's image")]
    faults = _relation_faults(data, source)
    try:
        jobs = JobsFile.model_validate(data)
    except ValidationError as error:
        return None, faults_of(error, JobsFile, data, source) + faults
    if faults:
        return None, faults
    count = sum(math.prod(map(len, job.matrix.values())) for job in jobs.job)
    if count > MAX_JOBS:
        problem = f"its matrices make {count} jobs, more than {MAX_JOBS}"
        return None, [Fault(source, "job", problem, "split it into several releases")]
    expanded = expand(jobs)
    faults = _name_faults(expanded, source)
    return (None, faults) if faults else (expanded, [])


def _name_faults(expanded: JobsFile, source: str) -> list[Fault]:
    """Refuse a matrix that gives a job the name of another; its files would overwrite the other's."""
    counted = Counter(job.name for job in expanded.job)
    return [
        Fault(source, f"job[{name}].name", "is also what a matrix makes of another job's name")
        for name, count in counted.items()
        if count > 1
    ]


def _relation_faults(data: Mapping[str, Any], source: str) -> list[Fault]:
    """Return what is wrong between jobs, as far as each is readable: its own faults are another matter."""
    needs = {name: _texts(job.get("needs")) for name, job in _named(data)}
    counted = Counter(name for name, _ in _named(data))
    faults = [
        Fault(source, f"job[{name}].name", f"is used {count} times", "give each job its own name")
        for name, count in counted.items()
        if count > 1
    ]
    for name, wanted in needs.items():
        faults += [
            Fault(source, f"job[{name}].needs", f'no job "{need}"', suggest(need, counted))
            for need in wanted
            if need not in counted
        ]
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        faults.append(Fault(source, "job.needs", f"goes in a circle: {circle}"))
    return faults


def _named(data: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    jobs = data.get("job")
    tables = [job for job in jobs if isinstance(job, dict)] if isinstance(jobs, list) else []
    return [(job["name"], job) for job in tables if isinstance(job.get("name"), str)]


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


class MatrixJob(Job):
    """One job of a matrix, as `expand` makes it; never read from a file.

    Attributes:
        family: The name of the job whose matrix it is of.
    """

    family: str


def family_of(job: Job) -> str:
    """Return the name that a job has in jobs.toml: of all values of a matrix the same."""
    return job.family if isinstance(job, MatrixJob) else job.name


def expand(jobs: JobsFile) -> JobsFile:
    """Return the file with every matrix job replaced by one job per combination of its values."""
    instances = {job.name: tuple(_instances(job)) for job in jobs.job}
    expanded = [
        job.model_copy(
            update={"needs": tuple(one.name for need in job.needs for one in instances[need])}
        )
        for some in instances.values()
        for job in some
    ]
    return jobs.model_copy(update={"job": tuple(expanded)})


def matrix_environment(job: Job) -> dict[str, str]:
    """Return `MAYFLY_MATRIX_<KEY>` of a job that `expand` made."""
    return {f"MAYFLY_MATRIX_{key.upper()}": values[0] for key, values in job.matrix.items()}


def _instances(job: Job) -> Iterable[Job]:
    if not job.matrix:
        yield job
        return
    keys = sorted(job.matrix)
    for values in itertools.product(*(job.matrix[key] for key in keys)):
        matrix = {key: (value,) for key, value in zip(keys, values, strict=True)}
        own = {"name": _instance_name(job.name, values), "matrix": matrix, "family": job.name}
        yield MatrixJob.model_construct(**{**dict(job), **own})


def _instance_name(name: str, values: tuple[str, ...]) -> str:
    """Return a stable name in the alphabet of names; a hash tells apart what the alphabet cannot."""
    plain = "-".join(values)
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:40].strip("-")
    whole = f"{name}-{slug}"
    if slug == plain and len(values) == 1 and len(whole) <= MAX_NAME:
        return whole
    digest = hashlib.sha256("\0".join((name, *values)).encode()).hexdigest()[:6]
    return f"{whole[: MAX_NAME - 7].strip('-')}-{digest}"


def needs_browser(jobs: JobsFile) -> bool:
    """Tell whether any job wants a WebDriver URL."""
    return any(job.browser for job in jobs.job)


def program_of(job: Job) -> str:
    """Return the program that a command job starts; empty for a container, whose programs are its image's."""
    return job.command[0] if job.command and not job.in_container else ""
