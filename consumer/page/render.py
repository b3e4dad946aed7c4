"""From answers to HTML: Jinja templates that escape everything, and the few filters they need."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from agent.base.units import show_size
from consumer.page.lines import Sparkline, sparkline
from consumer.page.words import LANGUAGES, Words
from consumer.queries import Day, JobView, Overview, RunFiles, RunLine, RunView

STATIC = {"page.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}
MESSAGE_CHARACTERS = 600
"""Of what a job says; the log has the rest."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number over time, with its unit spelled out.

    Attributes:
        name: What is measured.
        line: How it went.
        last, most: Its last and largest value, for people.
    """

    name: str
    line: Sparkline
    last: str
    most: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A day in a strip; `href` is empty when none of its runs has a page."""

    state: str
    title: str
    href: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page in one language.

    Attributes:
        words: The language.
        root: The way to the site's root: empty, or `../`.
        query: What links carry on.
    """

    words: Words
    root: str
    query: Mapping[str, str]

    def front(self, overview: Overview, spans: Sequence[int]) -> str:
        """Return the front page."""
        # A day may have a run that vanished, which has no page.
        links = {point.run: self.link(f"runs/{quote(point.run)}") for point in overview.points}
        failing = sorted(
            (job for job in overview.jobs if job.consecutive_failures or job.missed_days),
            key=lambda job: (-job.failed_days, -job.missed_days, job.name),
        )
        return self._render(
            "front.html",
            overview=overview,
            failing=failing,
            incomplete=[job for job in overview.jobs if job.incomplete],
            spans=spans,
            span=len(overview.days),
            run_cells=self._cells(overview.days, links),
            run_measures=self._run_measures(overview),
            cells={job.name: self._cells(job.days, links) for job in overview.jobs},
            measures={job.name: self._job_measures(job) for job in overview.jobs},
        )

    def runs(self, lines: Sequence[RunLine], length: int) -> str:
        """Return a list of runs, of which there may be one more than are shown."""
        more = lines[length - 1].run if len(lines) > length else None
        return self._render("runs.html", runs=lines[:length], more=more)

    def run(self, view: RunView, listing: RunFiles) -> str:
        """Return the page of a run."""
        return self._render("run.html", view=view, listing=listing)

    def missing(self) -> str:
        """Return the page for what is not there."""
        return self._render("missing.html")

    def link(self, path: str = "", **changes: str) -> str:
        """Return a link that keeps the language and the span, unless they are changed."""
        query = {**self.query, **changes}
        # An empty path would be the page itself, wherever it lies.
        target = f"{self.root}{path}" or "./"
        return f"{target}?{urlencode(query)}" if query else target

    def query_with(self, **changes: str) -> str:
        """Return the query of a link to this very page, with changes."""
        return urlencode({**self.query, **changes})

    def size(self, number: float) -> str:
        """Return bytes as people read them."""
        return show_size(number)

    def money(self, dollars: float | None) -> str:
        """Return US dollars: with the digits that matter for amounts below a cent too."""
        if dollars is None:
            return self.words.no_cost
        return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.4f}"

    def moment(self, when: datetime) -> str:
        """Return a time, to the minute."""
        return f"{when:%Y-%m-%d %H:%M}"

    def message(self, text: str) -> str:
        """Return what a job says, cut to what fits."""
        return text if len(text) <= MESSAGE_CHARACTERS else f"{text[:MESSAGE_CHARACTERS]} …"

    def _cells(self, days: Sequence[Day], links: Mapping[str, str]) -> list[Cell]:
        return [
            Cell(
                day.state.value,
                f"{day.day}: {self.words.day_states[day.state]}",
                next((links[run] for run in reversed(day.runs) if run in links), ""),
            )
            for day in days
        ]

    def _job_measures(self, job: JobView) -> list[Measure]:
        points = job.points
        return [
            self._files([point.files for point in points]),
            self._bytes([point.bytes for point in points]),
            self._time([point.seconds for point in points]),
        ]

    def _run_measures(self, overview: Overview) -> list[Measure]:
        points = overview.points
        costs = [point.cost for point in points if point.cost is not None]
        return [
            self._files([point.files for point in points]),
            self._bytes([point.bytes for point in points]),
            self._time([point.seconds for point in points]),
            Measure(
                self.words.cost,
                line := sparkline(costs),
                self.money(line.last),
                self.money(line.most if costs else None),
            ),
        ]

    def _files(self, numbers: Sequence[float]) -> Measure:
        line = sparkline(numbers)
        return Measure(self.words.files, line, f"{line.last or 0:,.0f}", f"{line.most:,.0f}")

    def _bytes(self, numbers: Sequence[float]) -> Measure:
        line = sparkline(numbers)
        return Measure(self.words.bytes, line, show_size(line.last or 0), show_size(line.most))

    def _time(self, numbers: Sequence[float]) -> Measure:
        line = sparkline(numbers)
        show = self.words.duration_of
        return Measure(self.words.minutes, line, show(line.last or 0), show(line.most))

    def _render(self, template: str, **content: object) -> str:
        return (
            _environment()
            .get_template(template)
            .render(page=self, words=self.words, languages=LANGUAGES, **content)
        )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("consumer.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["style"] = f"static/page.css?{_digest('page.css')}"
    return environment


@cache
def static_file(name: str) -> tuple[str, bytes] | None:
    """Return the media type and content of a file that pages need; None when there is no such file."""
    kind = STATIC.get(name)
    return (kind, (files("consumer.page") / "static" / name).read_bytes()) if kind else None


def _digest(name: str) -> str:
    """Return what changes with a file, so that browsers may keep it."""
    found = static_file(name)
    return hashlib.sha256(found[1] if found else b"").hexdigest()[:12]
