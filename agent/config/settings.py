"""The agent's configuration: file, overridden by environment, overridden by flags. Decisions only.

Every key has a default that suits a laptop. `docs/schemas/agent.schema.json` is generated from these models.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from agent.base.units import Seconds, Size, Span
from agent.base.urlsecrets import settings_secrets
from agent.base.zones import zone_problem
from agent.contract.ids import SCHEDULE

_STORE_SOURCE = "(default|ssm:/.+)"


class Section(BaseModel):
    """A table of `agent.toml`."""

    # A file of variables with Windows' line ends leaves one at the end of each value.
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def _sound(url: str) -> str:
    """Reject a URL that cannot be parsed, such as `http://[` or `http://host:x`."""
    try:
        _ = urlsplit(url).port
    except ValueError as error:  # whose text has parts of the address, perhaps of a password
        raise ValueError(
            'invalid address: no host and port can be read in it; write for example "https://example.org:8443/path"'
        ) from error
    return url


def _with_host(url: str) -> str:
    if not urlsplit(_sound(url)).hostname:
        raise ValueError('invalid address: it has no host; write for example "https://example.org"')
    return url


def _trimmed(path: object) -> object:
    path = path.strip() if isinstance(path, str) else path
    if path == "":
        raise ValueError('must not be empty; the working directory is "."')
    return path


def _absolute(why: str) -> AfterValidator:
    def check(path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError(f'"{path}" is not an absolute path; {why}')
        return path

    return AfterValidator(check)


def _bucket(url: str) -> str:
    # A slash at the end is dropped; slashes alone name neither a bucket nor a folder.
    if re.match(r"s3://[^/]|file:///+[^/]", url) is None:
        raise ValueError(
            f'"{url}" is not a bucket; write "s3://bucket/prefix" or "file:///absolute/path"'
        )
    return _sound(url).rstrip("/")


def _http(endpoint: str) -> str:
    if not endpoint.startswith(("https://", "http://")):
        address = endpoint.rpartition("@")[2]
        raise ValueError(f'"{address}" needs a scheme; write "https://{address}"')
    return _with_host(endpoint)


def _zone(name: str) -> str:
    if zone_problem(name, by_days=True):
        raise ValueError(f'"{name}" is not a time zone; write for example "Asia/Tokyo"')
    return name


def _source(source: str) -> str:
    if not source.startswith(("ssm:/", "/", "~/")):
        # Not shown: who takes the key for the place of the secret itself has written that.
        raise ValueError(
            'neither "ssm:/path" nor a file; write "ssm:/mayfly/..." or "/etc/mayfly/..."'
        )
    return source


def _store_source(source: str) -> str:
    if re.fullmatch(_STORE_SOURCE, source) is None:
        raise ValueError('neither "default" nor "ssm:/path"; write for example "ssm:/mayfly/store"')
    return source


Address = Annotated[str, AfterValidator(_sound)]
WebAddress = Annotated[str, StringConstraints(pattern=r"^https?://"), AfterValidator(_with_host)]
File = Annotated[Path, BeforeValidator(_trimmed)]
Source = Annotated[str, AfterValidator(_source)]
"""Where credentials are: `ssm:/path`, or a file that only its owner can read."""
IndexName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Release(Section):
    """Where the scrapers come from."""

    repository: Address | None = Field(None, description="URL or path of the git repository.")
    credentials: Source | None = Field(
        None,
        description='`"ssm:/path"` or a file (mode 0600) with a token, or a deploy key and its known hosts:'
        " docs/private.md. Default: what git and ssh of this user have.",
    )
    track: str | None = Field(
        None,
        description="Pattern of tags: what stands before the wildcard, followed by a version. The newest runs."
        ' Default "v*".',
    )
    branch: str | None = Field(None, description="A branch to follow instead of tags.")
    allowed_signers: Annotated[File, _absolute("a run may begin in any folder")] | None = Field(
        None,
        description="SSH allowed_signers file, absolute. Set: only what these people signed runs.",
    )
    trust: Literal["signed", "none"] | None = Field(
        None,
        description='"none" says that you run whatever the repository holds, and ends the warning about'
        ' it. Default: "signed" with `allowed_signers`.',
    )
    jobs: str = Field("jobs.toml", description="Path of the jobs file in the release.")
    timeout: Seconds = Field(
        120.0,
        description="Wall-clock limit of each git command, and of fetching a release as a whole.",
    )
    install_timeout: Seconds = Field(
        600.0, description="Wall-clock limit of installing a release's locked environment."
    )
    check_timeout: Seconds = Field(
        60.0, description="Limit of a new release's self-check, in which its programs are imported."
    )

    @property
    def trust_is_stated(self) -> bool:
        """Whether an operator decided if releases are verified, one way or the other."""
        return self.trust is not None or self.allowed_signers is not None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.trust == "none" and self.allowed_signers is not None:
            raise ValueError('"allowed_signers" and trust = "none" exclude each other; keep one')
        if self.trust == "signed" and self.allowed_signers is None:
            raise ValueError('trust = "signed" needs "allowed_signers", the file that names them')
        inside = urlsplit(self.repository or "").password is not None
        if self.credentials is not None and inside:
            raise ValueError(
                '"credentials" and a password in "repository" exclude each other; keep "credentials"'
            )
        if self.track is not None and self.branch is not None:
            raise ValueError('"track" and "branch" exclude each other; keep one')
        return self


class Store(Section):
    """The bucket."""

    url: Annotated[str, AfterValidator(_bucket)] | None = Field(
        None,
        description="`s3://bucket/prefix` or `file:///path`. Default: a folder in `paths.state`.",
    )
    endpoint: Annotated[str, AfterValidator(_http)] | None = Field(
        None, description="URL of an S3 service other than AWS."
    )
    region: str | None = Field(None, description="Region of the bucket.")
    credentials: Annotated[
        str,
        AfterValidator(_store_source),
        WithJsonSchema({"type": "string", "pattern": f"^{_STORE_SOURCE}$"}),
    ] = Field(
        "default",
        description='"default" (environment, profile, role) or "ssm:/path" (SSM parameters).',
    )
    concurrency: int = Field(64, ge=1, le=256, description="Requests under way at once.")


class Registry(Section):
    """A registry of images that wants a login, by its host. ECR needs no entry: the machine's role is asked."""

    credentials: Source = Field(
        description='`"ssm:/path"` or a file (mode 0600) with `username` and `password`: docs/private.md.'
    )


class Index(Registry):
    """A package index that wants a login, by the name that the release's pyproject.toml gives it."""


class Browser(Section):
    """Where WebDriver sessions come from: a remote URL, else, without units, a local chromedriver, else a container."""

    image: str | None = Field(
        None, description="Selenium image. Set: the container is used. A release may pin its own."
    )
    url: WebAddress | None = Field(None, description="A running WebDriver or Grid endpoint.")
    sessions: int = Field(2, ge=1, le=64, description="Browser jobs at once, each with a session.")
    timeout: Seconds = Field(
        120.0, description="How long the browser may take until a session has opened."
    )
    shared_memory: Size = Field(2 * 1024**3, description="`/dev/shm` of the container.")
    port: int = Field(
        4444,
        ge=0,
        le=65535,
        description="Jobs find the browser at `http://localhost:<port>` too, also below `/wd/hub`; 0: they do not.",
    )

    @model_validator(mode="after")
    def _one_browser(self) -> Self:
        if self.image is not None and self.url is not None:
            raise ValueError('"image" and "url" exclude each other; keep one')
        return self


class Paths(Section):
    """Where the agent keeps things."""

    state: File | None = Field(
        None,
        description="Releases, spool, last good release. Default: /var/lib/mayfly on a machine"
        " with the units of systemd/install.sh, elsewhere the user's state directory.",
    )
    cache: File | None = Field(
        None, description="Caches that may be deleted at any time. Default: `cache` in the state."
    )
    pace: Annotated[File, _absolute("agents would not share it")] | None = Field(
        None,
        description="Where the jobs' `rate` is kept, absolute; agents on one machine that share it keep it together."
        " Default: `pace` in the cache.",
    )


class Limits(Section):
    """Bounds of a run."""

    run: Seconds = Field(7200.0, description="The whole run, hand-off included.")
    handoff: Seconds = Field(
        600.0, description="What of it is kept for the hand-off, a quarter of the run at most."
    )
    jobs: int = Field(2, ge=1, le=256, description="Jobs in parallel.")
    catch_up: Span = Field(
        6 * 3600.0,
        description="A run that begins so soon after one that was interrupted does what that did not finish; 0: all.",
    )
    jitter: Span = Field(
        0.0, description="Jobs begin at a random moment within this time, so that shards spread."
    )
    grace: Seconds = Field(10.0, description="From SIGTERM to SIGKILL.")
    output: Size = Field(
        4 * 1024**2, description="What is kept of a job's stdout and stderr, per attempt."
    )
    state: Size = Field(
        64 * 1024**2,
        description="What is in a job's state directory; of files and folders, 10,000.",
    )
    file: Size = Field(4 * 1024**3, description="The largest file that a job may write.")
    free: Size = Field(
        512 * 1024**2,
        description="Disk space that jobs must leave free; under systemd, the job that occupies most is ended.",
    )
    tasks: int = Field(
        1024, ge=16, le=4194304, description="Processes and threads of a job, under systemd."
    )
    isolation: Literal["auto", "systemd", "process"] = Field(
        "auto",
        description='How jobs are kept apart: "systemd" (a unit of its own for each), "process" (a process group),'
        ' "auto": systemd where the agent is root and systemd runs the machine.',
    )
    disk: Size = Field(
        8 * 1024**3,
        description="What releases, their environments and uv's cache may take; the oldest go first,"
        " after the commit. The releases that a run may need always stay.",
    )


class Schedule(Section):
    """When runs are due. The stack's form sets it, but for name and grace; home finds late and missed runs by it."""

    name: str = Field(
        "main",
        pattern=f"^{SCHEDULE}$",
        description="Batches of two schedules in one bucket never meet.",
    )
    expression: str | None = Field(
        None, max_length=300, description='As EventBridge takes it: "cron(0 3 * * ? *)".'
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", description="In which the expression is meant."
    )
    grace: Seconds = Field(3600.0, description="How late a run may be before it is missed.")


class Power(Section):
    """What happens after the run."""

    after: Literal["poweroff", "nothing"] | None = Field(
        None,
        description='Default: "poweroff" on a machine with the units of systemd/install.sh, else "nothing".',
    )
    keeps_disk: bool | None = Field(
        None,
        description="Whether the state directory outlives the power-off, so that a later run sends what this one"
        " could not. Default: false on a machine with the units of systemd/install.sh, else true.",
    )

    def has_disk(self, *, machine: bool) -> bool:
        """Tell whether a later run finds this run's disk; `machine` says whether this is a machine of its own."""
        return not machine if self.keeps_disk is None else self.keeps_disk

    def goes_off(self, *, machine: bool) -> bool:
        """Tell whether the power goes off after a run; `machine` says whether this is a machine of its own."""
        return self.after == "poweroff" or (self.after is None and machine)


class Secrets(Section):
    """Where the jobs' secrets come from."""

    source: str | None = Field(
        None, description='"ssm:/path", or the path of an env file that only its owner can read.'
    )


class Notify(Section):
    """Who is notified; a failed notification never fails a run."""

    healthchecks: WebAddress | None = Field(None, description="Healthchecks ping URL.")
    apprise: tuple[str, ...] = Field(
        (),
        description="Apprise URLs, told of runs that did not succeed, and of rollbacks. Needs the "
        "extra `apprise`, which the image has not: there use `healthchecks`, or alerts at home.",
    )


Dollars = Annotated[float, Field(ge=0, le=10_000)]


class Cost(Section):
    """What the machine costs, in US dollars. The defaults are Osaka's; sources and dates are in docs/aws.md."""

    hourly: Dollars | None = Field(
        None,
        description="An hour of the machine. Default: EC2's history of spot prices; for a machine on"
        " demand in Osaka the list price of its type.",
    )
    credits: Literal["unlimited", "standard"] = Field(
        "unlimited", description="CPU credits of a T machine: bought when they run out, or not."
    )
    volume: Size = Field(20 * 1024**3, description="The machine's disk.")
    volume_month: Dollars = Field(0.096, description="A GiB of disk (gp3) for a month.")
    keeps_volume: bool = Field(
        False, description="Whether the disk stays between runs, as in the mode `stopped`."
    )
    snapshot: Size = Field(6 * 1024**3, description="What the image's snapshot stores.")
    snapshot_month: Dollars = Field(0.05, description="A GiB of snapshot for a month.")
    address_hour: Dollars = Field(0.005, description="An hour of the public IPv4 address.")
    always_on_month: Dollars | None = Field(
        None,
        description="What an always-on machine costs you, for comparison. Default: a t3.medium on demand.",
    )
    currency: str = Field(
        "USD", pattern=r"^[A-Z]{3}$", description="In which `mayfly cost` shows amounts as well."
    )
    exchange: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        1.0, description="Units of that currency for one US dollar."
    )


class Settings(Section):
    """`agent.toml`."""

    release: Release = Release()
    store: Store = Store()
    registry: dict[str, Registry] = Field({}, description="By host.")
    index: dict[IndexName, Index] = Field({}, description="By name.")
    browser: Browser = Browser()
    paths: Paths = Paths()
    schedule: Schedule = Schedule()
    limits: Limits = Limits()
    power: Power = Power()
    secrets: Secrets = Secrets()
    notify: Notify = Notify()
    cost: Cost = Cost()

    @property
    def job_seconds(self) -> float:
        """Seconds of a run within which jobs must end, so that the hand-off has its own."""
        return self.limits.run - self.handoff_seconds

    @property
    def handoff_seconds(self) -> float:
        """Seconds of a run that are kept for the hand-off; it gets more of what the jobs leave."""
        return min(self.limits.handoff, self.limits.run / 4)

    def sensitive(self) -> dict[str, str]:
        """Return the values in here that no log may show, by name."""
        return settings_secrets(self.model_dump())
