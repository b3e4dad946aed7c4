"""The routes: from a request to the page, the document or the object that it asks for.

A link to an object leads to the path that is its key, such as `/runs/<run>/jobs/<job>/files/...`.
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent.base.errors import MayflyError
from agent.contract.entries import Invalid
from agent.contract.layout import JobKey
from agent.contract.package import Package
from consumer.diff import Changes
from consumer.home import Home, Known
from consumer.objects import Objects, file_of
from consumer.page.document import status_document
from consumer.page.file import file_page, may_be_looked_at
from consumer.page.front import (
    evidence_wanted,
    job_page,
    missing_page,
    overview,
    runs_compared,
    runs_page,
)
from consumer.page.given import Text, Visit
from consumer.page.render import static_file
from consumer.page.run import run_job_page, run_page
from consumer.page.words import language_for
from consumer.spending import month_costs, month_of
from consumer.web.guard import Guard, plain
from consumer.web.logs import Log
from consumer.web.objects import AT_ONCE, ObjectResponse, problem, turn

PAGES_AT_ONCE = 2
"""Pages that are made in threads; more would wait for each other anyway."""
EVIDENCE_SECONDS = 3.0
"""In which packages are there, or a page does without the screenshots, or the changes, that they have."""
Value = TypeVar("Value")


class Site:
    """Answers requests from what is known and what is committed."""

    def __init__(self, home: Home, objects: Objects, registry: CollectorRegistry) -> None:
        self._home = home
        self._objects = objects
        self._registry = registry
        self._turns = asyncio.Semaphore(PAGES_AT_ONCE)
        self._reading = asyncio.Semaphore(AT_ONCE)
        # Of their own: a reader who takes nothing holds one for a minute, and pages do not wait for that.
        self._sending = asyncio.Semaphore(AT_ONCE)

    def routes(self) -> list[Route]:
        """Return which path is answered by what; that of an object of a run is its key."""
        endpoints = {
            "/": self._overview,
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/status.json": self._status,
            "/jobs/{schedule}/{job}": self._job,
            "/runs": self._runs,
            "/runs/{run}": self._run,
            "/runs/{run}/jobs/{job}": self._run_job,
            "/runs/{run}/{rest:path}": self._object,
            "/view/{run}/{job}/{path:path}": self._view,
            "/static/{name}": self._static,
        }
        return [Route(path, endpoint, methods=["GET"]) for path, endpoint in endpoints.items()]

    @property
    def _known(self) -> Known:
        return self._home.known

    async def _made(self, make: Callable[..., Value], *values: Any) -> Value:
        async with self._turns:
            return await asyncio.to_thread(make, *values)

    async def _metrics(self, request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        text = await asyncio.to_thread(encode, self._registry)
        return Response(text, headers={"Content-Type": kind})

    async def _healthz(self, _: Request) -> Response:
        reason = self._home.sick(datetime.now(UTC))
        return plain(503, reason) if reason else plain(200, "ok")

    async def _status(self, _: Request) -> Response:
        known, health = self._known, self._home.health()
        document = await self._made(status_document, known.judged, known.costs, health)
        return JSONResponse(document)

    async def _overview(self, request: Request) -> Response:
        known = self._known
        packages = await self._evidence(known)
        health = self._home.health()
        args = (visit(request), known.judged, known.costs, health, packages)
        return html(await self._made(overview, *args))

    async def _job(self, request: Request) -> Response:
        known = self._known
        names = (request.path_params["schedule"], request.path_params["job"])
        changes = await self._changes(known, *names)
        args = (visit(request), known.judged, *names, changes)
        return html(await self._made(job_page, *args))

    async def _runs(self, request: Request) -> Response:
        known = self._known
        return html(await self._made(runs_page, visit(request), known.judged, known.costs))

    async def _run(self, request: Request) -> Response:
        known, run = self._known, request.path_params["run"]
        if run not in known.history.by_id:
            raise HTTPException(404)
        async with turn(self._reading):
            log = await self._objects.log(known.history.by_id, run)

        def make() -> str | None:
            month = month_of(known.history.by_id[run][1].started, known.judged.zone)
            costs = month_costs(known.history, month, known.judged.now)
            return run_page(visit(request), known.judged, costs, run, log)

        return html(await self._made(make))

    async def _run_job(self, request: Request) -> Response:
        known, run, job = self._known, request.path_params["run"], request.path_params["job"]
        async with turn(self._reading):
            package = await self._objects.package(known.history.by_id, run, job)
            log = await self._objects.printed(package, JobKey(run, job))

        def make() -> str | None:
            here = visit(request)
            return run_job_page(here, known.judged, run, job, package=package, log=log)

        return html(await self._made(make))

    async def _view(self, request: Request) -> Response:
        run, job, path = (request.path_params[name] for name in ("run", "job", "path"))
        async with turn(self._reading):
            package = await self._objects.package(self._known.history.by_id, run, job)
            resources = package.resources if isinstance(package, Package) else ()
            found = next((one for one in resources if one.path == path), None)
            if found is None or not may_be_looked_at(found):
                raise HTTPException(404)
            text = Text()
            if not found.mediatype.startswith("image/"):
                text = await self._objects.beginning(file_of(JobKey(run, job), found).object)
        return html(await self._made(file_page, visit(request), run, job, found, text))

    async def _object(self, request: Request) -> Response:
        async with turn(self._reading):
            file = await self._objects.file(
                self._known.history.by_id, request.scope["path"].lstrip("/")
            )
        return ObjectResponse(self._objects, self._sending, file)

    async def _static(self, request: Request) -> Response:
        found = static_file(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        kind, content = found
        headers = {"Content-Type": kind, "Cache-Control": "max-age=86400"}
        return Response(content, headers=headers)

    async def _evidence(self, known: Known) -> dict[tuple[str, str], Package]:
        found: dict[tuple[str, str], Package] = {}
        try:
            async with asyncio.timeout(EVIDENCE_SECONDS), turn(self._reading):
                for run, job in evidence_wanted(known.judged):
                    package = await self._objects.package(known.history.by_id, run, job)
                    if isinstance(package, Package):
                        found[run, job] = package
        except (MayflyError, TimeoutError):
            pass  # the page is there without them
        return found

    async def _changes(self, known: Known, schedule: str, job: str) -> Changes | Invalid | None:
        runs = runs_compared(known.judged, schedule, job)
        if runs is None:
            return None
        try:
            async with asyncio.timeout(EVIDENCE_SECONDS), turn(self._reading):
                return await self._objects.changes(known.history.by_id, schedule, job, *runs)
        except (MayflyError, TimeoutError) as error:
            return Invalid(str(error) or "the bucket did not answer in time")


def application(site: Site, hosts: Collection[str], log: Log) -> ASGIApp:
    """Return the application for a service with these names (see `Guard`); the log is told of defects."""

    async def failed(_: Request, error: Exception) -> Response:
        log.error("request.failed", error=repr(error)[:500], exc_info=error)
        return plain(500, "internal error; the log has it")

    async def missing(request: Request, _: Exception) -> Response:
        return HTMLResponse(missing_page(visit(request)), 404)

    async def expected(_: Request, error: Exception) -> Response:
        if not isinstance(error, MayflyError):
            raise error
        return problem(error)

    app = Starlette(
        routes=site.routes(),
        exception_handlers={404: missing, MayflyError: expected, Exception: failed},
    )
    # A slash too many is a path that is not there, and no redirect to a host that the client names.
    app.router.redirect_slashes = False
    return Guard(app, hosts)


def visit(request: Request) -> Visit:
    """Return who asks for what."""
    query = dict(request.query_params)
    language = language_for(query.get("lang"), request.headers.get("accept-language", ""))
    return Visit(language, request.scope["path"], query)


def html(text: str | None) -> Response:
    """Return a page.

    Raises:
        HTTPException: There is no such page.
    """
    if text is None:
        raise HTTPException(404)
    return HTMLResponse(text, headers={"Vary": "Accept-Language"})
