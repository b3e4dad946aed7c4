"""A client of EC2's metadata service (IMDSv2), and how to know without waiting that there is none.

A laptop has no such service, and its address leads nowhere or to somebody else's machine: it is asked only if the
firmware says that this is an EC2 instance, or the environment names an endpoint.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent.base.errors import MetadataError
from agent.base.logs import Log
from agent.base.threads import in_thread
from agent.machine.instance import (
    LONGEST_ANSWER,
    NOTICE_PATH,
    PATHS,
    REBALANCE_PATH,
    HostFacts,
    SpotNotice,
    host_facts,
    on_ec2,
    rebalance_notice,
    spot_notice,
)

if TYPE_CHECKING:
    from datetime import datetime

    from requests import Response, Session

ENDPOINT = "http://169.254.169.254"
ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
DISABLED_VARIABLE = "AWS_EC2_METADATA_DISABLED"
"""Both as boto3 knows them."""
DMI = Path("/sys/devices/virtual/dmi/id")

FACTS_SECONDS = 20.0
"""For all facts, with retries. The service answers in milliseconds, but a booting machine is busy, and without CPU
credits it has a fifth of a processor; late facts cost the run its slot."""
REGION_SECONDS = 5.0
LAUNCH_SECONDS = 30.0
"""For the user data, without which the machine's purpose is unknown."""
NOTICE_SECONDS = 3.0
"""For one poll of the notices, so that one every 5 s is possible even if the service is slow."""
REQUEST_SECONDS = 1.0
TOKEN_SECONDS = 6 * 3600
"""The service's maximum."""
TOKEN_MARGIN = 60.0
REMEDY = "check the instance's metadata options: enabled, tokens required, hop limit 1"

T = TypeVar("T")
Get = Callable[[str], str | None]
"""Returns what is at a path below `/latest/`; None if nothing is there."""

OK = 200
UNAUTHORIZED = 401
TOO_MANY = 429
SERVER_ERROR = 500


def metadata_endpoint(environ: Mapping[str, str], dmi: Path = DMI) -> str | None:
    """Return the address of this machine's metadata service; None without one. It asks no network.

    Args:
        environ: `AWS_EC2_METADATA_DISABLED=true` says there is none, `AWS_EC2_METADATA_SERVICE_ENDPOINT` where it is.
        dmi: Where the kernel shows the firmware's tables.
    """
    if environ.get(DISABLED_VARIABLE, "").lower() == "true":
        return None
    named = environ.get(ENDPOINT_VARIABLE, "").rstrip("/")
    if named:
        return named
    marks = (_line(dmi / name) for name in ("sys_vendor", "board_asset_tag", "product_uuid"))
    return ENDPOINT if on_ec2(*marks) else None


async def read_facts(environ: Mapping[str, str], log: Log, dmi: Path = DMI) -> HostFacts | None:
    """Return EC2's facts of this machine; None on another machine.

    If the service does not answer, the facts are empty and the log says so; a run never fails for it.
    """
    endpoint = metadata_endpoint(environ, dmi)
    if endpoint is None:
        return None
    try:
        return await Metadata(endpoint).facts()
    except MetadataError as error:
        log.warning("metadata.unavailable", reason=str(error), remedy=error.remedy)
        return HostFacts()


class Metadata:
    """A client of one metadata service; it keeps a token. Calls have a limit, and raise `MetadataError` after it."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._token = ""
        self._token_ends = 0.0

    async def facts(self) -> HostFacts:
        """Return the facts of this machine."""
        return await self._bounded(
            lambda get: host_facts({name: get(path) for name, path in PATHS.items()}),
            FACTS_SECONDS,
        )

    async def notice(self) -> SpotNotice | None:
        """Return EC2's notice that it takes the machine back; None while there is none."""
        return spot_notice(await self._bounded(lambda get: get(NOTICE_PATH), NOTICE_SECONDS))

    async def rebalance(self) -> "datetime | None":
        """Return since when EC2 recommends to leave the machine; None while it does not."""
        return rebalance_notice(
            await self._bounded(lambda get: get(REBALANCE_PATH), NOTICE_SECONDS)
        )

    def region(self) -> str | None:
        """Return the machine's region; None if the answer is invalid. Blocks, for callers in a thread."""
        document = self._visit(lambda get: get(PATHS["identity"]), REGION_SECONDS)
        return host_facts({"identity": document}).region

    def user_data(self) -> str | None:
        """Return the machine's user data; None without any. Blocks: it is asked before anything else."""
        return self._visit(lambda get: get("user-data"), LAUNCH_SECONDS)

    async def _bounded(self, work: Callable[[Get], T], seconds: float) -> T:
        try:
            return await in_thread(lambda: self._visit(work, seconds), seconds=seconds)
        except TimeoutError as error:
            raise MetadataError(
                f"the metadata service did not answer within {seconds:g} s", remedy=REMEDY
            ) from error

    def _visit(self, work: Callable[[Get], T], seconds: float) -> T:
        import requests  # noqa: PLC0415 -- 220 ms that only a machine of EC2 pays

        deadline = time.monotonic() + seconds
        with requests.Session() as session:
            # No proxy and no .netrc of the environment: this address is the machine's own.
            session.trust_env = False
            return work(lambda path: self._persist(session, path, deadline))

    def _persist(self, session: "Session", path: str, deadline: float) -> str | None:
        """Return what is at a path below `/latest/`, retried until the deadline; None if nothing is there."""
        from requests import RequestException  # noqa: PLC0415
        from tenacity import (  # noqa: PLC0415
            Retrying,
            retry_if_exception_type,
            stop_before_delay,
            wait_random_exponential,
        )
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        # ValueError: requests takes an address apart even if it does not follow it.
        passing = (_AgainError, RequestException, HTTPError, ValueError)
        try:
            return Retrying(
                stop=stop_before_delay(max(0.0, deadline - time.monotonic())),
                wait=wait_random_exponential(multiplier=0.05, max=1),
                retry=retry_if_exception_type(passing),
                reraise=True,
            )(self._get, session, path, deadline)
        except passing as error:
            reason = str(error) if isinstance(error, _AgainError) else type(error).__name__
            raise MetadataError(
                f"the metadata service did not answer: {reason}", remedy=REMEDY
            ) from error

    def _get(self, session: "Session", path: str, deadline: float) -> str | None:
        if time.monotonic() >= self._token_ends:
            self._renew_token(session, deadline)
        token = {"X-aws-ec2-metadata-token": self._token}
        with self._send(session, "GET", path, token, deadline) as answer:
            if answer.status_code == UNAUTHORIZED:
                self._token_ends = 0.0
                raise _AgainError("it did not accept its own token")
            return _body(answer) if answer.status_code == OK else None

    def _renew_token(self, session: "Session", deadline: float) -> None:
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
        with self._send(session, "PUT", "api/token", lifetime, deadline) as answer:
            token = _body(answer)
            if answer.status_code != OK or not (token.isascii() and token.isprintable()):
                raise MetadataError(
                    f"the metadata service gives no token (HTTP {answer.status_code})",
                    remedy=REMEDY,
                )
        self._token = token
        self._token_ends = time.monotonic() + TOKEN_SECONDS - TOKEN_MARGIN

    def _send(
        self, session: "Session", method: str, path: str, headers: dict[str, str], deadline: float
    ) -> "Response":
        answer = session.request(
            method,
            f"{self._endpoint}/latest/{path}",
            headers=headers,
            timeout=max(0.05, min(REQUEST_SECONDS, deadline - time.monotonic())),
            allow_redirects=False,
            stream=True,
        )
        if answer.status_code == TOO_MANY or answer.status_code >= SERVER_ERROR:
            answer.close()
            raise _AgainError(f"it answered HTTP {answer.status_code}")
        return answer


class _AgainError(Exception):
    """An answer that is worth a retry; the message says which."""


def _body(answer: "Response") -> str:
    """Return an answer's text, cut at a length that no honest one has."""
    content = answer.raw.read(LONGEST_ANSWER, decode_content=False)
    return bytes(content).decode(errors="replace")


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
