"""Notifications to people and watchdogs. They never fail a run, and never delay one for long.

The addresses are secrets: whoever has a ping URL can silence the alarm. No log has them, nor errors of libraries,
which quote them.
"""

import asyncio
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urldefrag

from agent.base.errors import ExitCode
from agent.base.logs import Log
from agent.base.threads import in_thread
from agent.config.settings import Notify
from agent.notify.news import Message, compose, concerns_people
from agent.notify.outcome import Outcome

if TYPE_CHECKING:
    from requests import Response

PING_SECONDS = 10.0
"""Limit of a ping with all its retries."""
ATTEMPT_SECONDS = 4.0
CHAT_SECONDS = 15.0
"""Limit of all Apprise services together; each has its own limits of 4 s for connecting and reading."""
BAD_REQUEST = 400
TOO_MANY = 429
SERVER_ERROR = 500
ANSWER_BYTES = 1000


class Notifier:
    """Notifies about one run."""

    def __init__(self, settings: Notify, run_id: str, log: Log) -> None:
        self._settings = settings
        self._run_id = run_id
        self._log = log
        self._beginning: asyncio.Task[None] | None = None

    def started(self) -> None:
        """Report, in the background, that the run began."""
        if self._settings.healthchecks:
            text = f"run {self._run_id} began"
            self._beginning = asyncio.create_task(self._ping("/start", text))

    async def ended(self, outcome: Outcome) -> None:
        """Report how the run ended: to the watchdog always, to people if it concerns them."""
        news = compose(outcome, self._run_id)
        reports = [self._ping_end(outcome.exit_code, f"{news.title}\n{news.text}")]
        if self._settings.apprise and concerns_people(outcome):
            reports.append(self._notify_people(news))
        await asyncio.gather(*reports)

    async def _ping_end(self, code: ExitCode, text: str) -> None:
        if self._beginning is not None:
            # It has its own limit. A start that arrives after the end would look like a run that hangs.
            await self._beginning
        await self._ping("" if code is ExitCode.DONE else f"/{int(code)}", text)

    async def _ping(self, signal: str, text: str) -> None:
        url = self._settings.healthchecks
        if url and (reason := await ping_problem(url, signal, text, run_id=self._run_id)):
            self._log.warning("notify.ping_lost", signal=signal, reason=reason)

    async def _notify_people(self, news: Message) -> None:
        urls = self._settings.apprise
        try:
            lost = await in_thread(lambda: _send_each(urls, news), seconds=CHAT_SECONDS)
        except ImportError:
            self._log.warning(
                "notify.apprise_missing",
                reason="notify.apprise is set, and Apprise is not installed",
                remedy="run `.venv/bin/uv sync --inexact --extra apprise` in Mayfly's checkout",
            )
        except TimeoutError:
            reason = f"no answer within {CHAT_SECONDS:g} s"
            self._log.warning("notify.apprise_lost", reason=reason)
        except Exception as error:  # noqa: BLE001 -- a hundred services' plugins; none of them may fail a run
            self._log.warning("notify.apprise_lost", reason=type(error).__name__)
        else:
            for number, reason in lost:
                self._log.warning("notify.apprise_lost", number=number, reason=reason)


class _PingError(Exception):
    """A ping was lost; the message contains nothing of the address."""


class _UselessError(_PingError):
    """A ping that no retry would deliver."""


async def ping_problem(url: str, signal: str, text: str, *, run_id: str) -> str:
    """Send a signal to Healthchecks (https://healthchecks.io/docs/http_api/), with retries.

    Args:
        url: The check's ping URL.
        signal: Its suffix: `/start`, nothing for success, `/<exit status>`, `/log`.
        text: Stored with the ping.
        run_id: The run; its start and end have the same `rid`, so that Healthchecks knows its duration.

    Returns:
        Why the server does not know the check or count the ping; empty when it does.
    """
    try:
        async with asyncio.timeout(PING_SECONDS):
            await _persist(url, signal, text, run_id)
    except TimeoutError:
        return f"no answer within {PING_SECONDS:g} s"
    except _PingError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 -- such as no thread to send it in; a run goes on all the same
        return type(error).__name__
    return ""


async def _persist(url: str, signal: str, text: str, run_id: str) -> None:
    # Imported here, because it takes 70 ms and only pings need it.
    from tenacity import (  # noqa: PLC0415
        AsyncRetrying,
        retry_if_not_exception_type,
        stop_before_delay,
        wait_random_exponential,
    )

    retrying = AsyncRetrying(
        stop=stop_before_delay(PING_SECONDS),
        wait=wait_random_exponential(multiplier=0.3, max=2),
        # A timeout is retried, too.
        retry=retry_if_not_exception_type((_UselessError, asyncio.CancelledError)),
        reraise=True,
    )
    rid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:mayfly:{run_id}"))
    async for attempt in retrying:
        with attempt:
            await in_thread(lambda: _send(url, signal, text, rid), seconds=ATTEMPT_SECONDS)


def _send(url: str, signal: str, text: str, rid: str) -> None:
    import requests  # noqa: PLC0415 -- 220 ms, and only pings need it

    # A fragment is never sent, and neither would be a signal behind it: every failure would count as a success.
    base, question, query = urldefrag(url).url.partition("?")
    address = f"{base.rstrip('/')}{signal}{question}{query}"
    try:
        answer = requests.post(
            address,
            params={"rid": rid},
            data=text.encode(errors="replace"),
            timeout=ATTEMPT_SECONDS,
            stream=True,
        )
        with answer:
            _judge(answer)
    except _PingError:
        raise
    except Exception as error:  # noqa: BLE001 -- not all that comes from below requests is an error of its own
        # Its text has the address in it, and so do those of the errors that it was raised from.
        raise _PingError(type(error).__name__) from None


def _judge(answer: "Response") -> None:
    if answer.status_code >= SERVER_ERROR or answer.status_code == TOO_MANY:
        raise _PingError(f"the server answered {answer.status_code}")
    if answer.status_code >= BAD_REQUEST:
        raise _UselessError(
            f"the server answered {answer.status_code}: is the URL that of a check?"
        )
    said = answer.raw.read(ANSWER_BYTES, decode_content=True).decode(errors="replace")
    for lost in ("(not found)", "(rate limited)"):
        # With the status 200, for old clients.
        if lost in said:
            raise _UselessError(f"the server answered {lost}")


def _send_each(urls: Sequence[str], news: Message) -> list[tuple[int, str]]:
    """Return which of the URLs (from 1) did not take the message, and why."""
    import apprise  # noqa: PLC0415 -- an extra, and slow to import

    lost = []
    for number, url in enumerate(urls, 1):
        service = apprise.Apprise()
        if not service.add(url):
            lost.append((number, "Apprise does not know this kind of URL"))
        elif not service.notify(title=news.title, body=news.text):
            lost.append((number, "the service did not take it"))
    return lost
