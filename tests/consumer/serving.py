"""The real `mayfly serve` beside a test."""

import http.client
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program
from tests.parts.waiting import wait_until

START_SECONDS = 60.0
SECONDS = 60.0
"""Within which anything that a test waits for happens."""


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass(frozen=True)
class Serving:
    """A service that runs.

    Attributes:
        url: Its base URL, without a trailing slash.
        history: Its database.
        log: The file with its log.
        program: Its process.
    """

    url: str
    history: Path
    log: Path
    program: Program

    def get(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask for a path as it is given, without any tidying of it."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            try:
                body = answer.read()
            except http.client.IncompleteRead as error:
                body = error.partial
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, body)
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Return the series, written as `name{label="value"}` with the labels sorted, without that of the bucket."""
        found = {}
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                shown = sorted((k, v) for k, v in sample.labels.items() if k != "bucket")
                labels = ",".join(f'{k}="{v}"' for k, v in shown)
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def looked(self) -> None:
        """Wait until a look into the bucket that began after this moment has ended."""
        began = time.time()

        def read() -> float:
            return self.metrics().get("mayfly_bucket_last_read_timestamp_seconds", 0.0)

        wait_until(lambda: read() > began, seconds=SECONDS, what="a look into the bucket")
        first = read()
        wait_until(lambda: read() > first, seconds=SECONDS, what="the next look into the bucket")

    def events(self, name: str) -> list[str]:
        """Return the lines of the log with an event of a name."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if re.search(rf'"event": "{re.escape(name)}"', line)]


@contextmanager
def serving(
    folder: Path,
    environ: Mapping[str, str],
    *options: str,
    wait: bool = True,
    history: bool = True,
    before: Sequence[str] = (),
) -> Iterator[Serving]:
    """Start `mayfly serve` with an interval of a second, and stop it at the end.

    Args:
        folder: For its history and its log.
        environ: What tells it the bucket, such as `Bucket.environ`.
        options: More of its options; a later one counts.
        wait: Whether to wait until it has read the bucket.
        history: Whether to name its history; without a name it has the default one.
        before: A program that starts it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [*before, sys.executable, "-m", "agent", "serve", "--listen", f"{LOOPBACK}:{port}"]
    file, log = folder / "history.sqlite", folder / "serve.log"
    command += ["--history", str(file)] if history else []
    command += ["--interval", "1s", *options]
    program = Program(command, log=log, environ={"MAYFLY_CONFIG": os.devnull, **environ})
    service = Serving(f"http://{LOOPBACK}:{port}", file, log, program)

    def ready() -> bool:
        try:
            return not wait or "mayfly_bucket_last_read_timestamp_seconds" in service.metrics()
        except OSError:
            return False

    def answers() -> bool:
        try:
            return service.get("/healthz").status > 0
        except OSError:
            return False

    program.start(ready if wait else answers, seconds=START_SECONDS)
    try:
        yield service
    finally:
        program.stop()
