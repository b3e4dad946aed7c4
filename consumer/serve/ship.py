"""Pushes the logs of runs to Loki, each once: off unless asked for, and whatever fails here disturbs nothing else."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from agent.core.layout import LOG

from agent.base.errors import MayflyError
from consumer.archive.reader import Committed, Reader
from consumer.serve.files import Files, NotThereError
from consumer.serve.logs import Log
from consumer.serve.state import State

PUSH = "/loki/api/v1/push"
BATCH_LINES = 1000
BATCH_BYTES = 1024**2
"""Of lines in one push: Loki takes four times as much by default."""
LINE_BYTES = 32 * 1024
"""What is longer is cut; Loki refuses above 256 kB by default."""
TOO_OLD_SECONDS = 6.5 * 86400
"""Loki refuses what is older than seven days by default (reject_old_samples_max_age)."""
MAX_LOG_BYTES = 8 * 1024**2
"""Of a run: what comes after is left out, and stays in the bucket."""
RUNS_AT_A_TIME = 20
REQUEST_SECONDS = 20.0
TRIES = 4
TOTAL_SECONDS = 60.0
"""For one push, all its tries in sum."""
LEVELS = frozenset({"debug", "info", "warning", "error", "critical"})


class LokiError(MayflyError):
    """Loki does not answer as it should; the push is tried again later."""


class LokiRefused(LokiError):  # noqa: N818 -- the name states the fact
    """Loki does not want this push, now and later."""


@dataclass(frozen=True, slots=True)
class Loki:
    """Where logs go.

    Attributes:
        url: Of its push endpoint.
        headers: With the credentials, if there are any; never logged.
    """

    url: str
    headers: Mapping[str, str]


class Push(Protocol):
    """Sends one push."""

    def __call__(self, body: Mapping[str, Any]) -> None:
        """Send it.

        Raises:
            LokiError: It did not arrive.
        """


def loki_at(url: str, environ: Mapping[str, str]) -> Loki:
    """Return a Loki: its address, and credentials from the variables that `logcli` uses.

    `LOKI_USERNAME` and `LOKI_PASSWORD`, or `LOKI_BEARER_TOKEN`; `LOKI_ORG_ID` for the tenant.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "mayfly"}
    if environ.get("LOKI_BEARER_TOKEN"):
        headers["Authorization"] = f"Bearer {environ['LOKI_BEARER_TOKEN']}"
    elif environ.get("LOKI_USERNAME"):
        pair = f"{environ['LOKI_USERNAME']}:{environ.get('LOKI_PASSWORD', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    if environ.get("LOKI_ORG_ID"):
        headers["X-Scope-OrgID"] = environ["LOKI_ORG_ID"]
    url = url.rstrip("/")
    return Loki(url if url.endswith(PUSH) else url + PUSH, headers)


def pushes(run: str, text: bytes, began: datetime) -> Iterator[dict[str, Any]]:
    """Yield the pushes of a run's log.

    Labels are `app` and `level`, so there are few streams whatever runs; the run and the job are structured metadata.

    Args:
        run: The run's id.
        text: Its log, JSON lines; what is none is pushed as it is.
        began: The time of lines that have none, before the first that has one.
    """
    streams: dict[str, list[list[Any]]] = {}
    lines = size = 0
    stamp = _nanoseconds(began)
    for raw in text.splitlines():
        line = raw[:LINE_BYTES].decode("utf-8", "replace")
        if not line.strip():
            continue
        event = _event(raw)
        stamp = _stamp(event) or stamp
        level = str(event.get("level", ""))
        metadata = {"run_id": run}
        if isinstance(event.get("job"), str):
            metadata["job_name"] = event["job"][:63]
        streams.setdefault(level if level in LEVELS else "unknown", []).append(
            [stamp, line, metadata]
        )
        lines, size = lines + 1, size + len(line)
        if lines >= BATCH_LINES or size >= BATCH_BYTES:
            yield _body(streams)
            streams, lines, size = {}, 0, 0
    if streams:
        yield _body(streams)


def _body(streams: Mapping[str, list[list[Any]]]) -> dict[str, Any]:
    return {
        "streams": [
            {"stream": {"app": "mayfly", "level": level}, "values": values}
            for level, values in sorted(streams.items())
        ]
    }


def _event(raw: bytes) -> dict[str, Any]:
    try:
        event = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _stamp(event: Mapping[str, Any]) -> str | None:
    try:
        moment = datetime.fromisoformat(event["timestamp"])
        return _nanoseconds(moment) if moment.tzinfo and moment.year > 2000 else None  # noqa: PLR2004
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _nanoseconds(moment: datetime) -> str:
    whole = int(moment.replace(microsecond=0).timestamp())
    return str(whole * 10**9 + moment.microsecond * 1000)


def sender(loki: Loki) -> Push:
    """Return what sends pushes, with bounded retries."""
    import requests  # noqa: PLC0415
    import tenacity  # noqa: PLC0415

    session = requests.Session()
    # No proxy and no netrc: what the headers say is all that is sent.
    session.trust_env = False

    @tenacity.retry(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, LokiError) and not isinstance(error, LokiRefused)
        ),
        stop=tenacity.stop_after_attempt(TRIES) | tenacity.stop_before_delay(TOTAL_SECONDS),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
        reraise=True,
    )
    def send(body: Mapping[str, Any]) -> None:
        try:
            answer = session.post(
                loki.url,
                data=json.dumps(body).encode(),
                headers=dict(loki.headers),
                timeout=REQUEST_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise LokiError(f"Loki does not answer: {type(error).__name__}") from error
        if answer.ok and not answer.is_redirect:
            return
        text = f"Loki answered {answer.status_code}: {answer.text[:200]}"
        # 401 and 403 are about us, 429 and 5xx about the moment: all of them may pass.
        if answer.status_code in {400, 413, 422}:
            raise LokiRefused(text)
        raise LokiError(text)

    return send


class Ledger(Protocol):
    """Remembers what was shipped."""

    def shipped(self, run: str, how: str) -> None:
        """Remember what became of the log of a run."""

    def pass_over(self, before: float, how: str) -> None:
        """Remember that logs of runs that finished before a time (Unix seconds) are not shipped."""


@dataclass(frozen=True, slots=True)
class Shipping:
    """All that shipping needs; `ledger` returns the one of this moment."""

    files: Files
    reader: Reader
    ledger: Callable[[], Ledger]
    push: Push
    state: State
    log: Log

    async def for_ever(self, seconds: float) -> None:
        """Ship what waits, every `seconds`, until cancelled."""
        told = ""
        while True:
            problem = ""
            try:
                await self._all()
            except MayflyError as error:
                problem = str(error)
            if problem and problem != told:
                self.log.warning("loki.failed", reason=problem)
            told = problem
            await asyncio.sleep(seconds)

    async def _all(self) -> None:
        old = self.state.now() - TOO_OLD_SECONDS
        await asyncio.to_thread(self.ledger().pass_over, old, "old")
        while runs := await asyncio.to_thread(self.reader.to_ship, RUNS_AT_A_TIME):
            for run in runs:
                how = await self._one(run)
                await asyncio.to_thread(self.ledger().shipped, run.run, how)
                if how == "sent":
                    self.state.tell(shipped=self.state.now())

    async def _one(self, run: Committed) -> str:
        """Return what became of a run's log: `sent`, or why it never will be.

        Raises:
            MayflyError: It may be sent later.
        """
        try:
            text = await asyncio.to_thread(self.files.head_of, run.run, LOG, MAX_LOG_BYTES)
            for body in pushes(run.run, text, datetime.fromtimestamp(run.finished, UTC)):
                await asyncio.to_thread(self.push, body)
        except NotThereError as error:
            self.log.warning("loki.passed_over", run=run.run, reason=str(error))
            return "absent"
        except LokiRefused as error:
            self.log.warning("loki.refused", run=run.run, reason=str(error))
            return "refused"
        self.log.info("loki.pushed", run=run.run, bytes=len(text))
        return "sent"
