"""From values to HTML: Jinja templates that escape everything, and what they need of links, times and words."""

import hashlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from agent.base.units import show_duration, show_size
from agent.contract.results import JobCause, JobStatus, RunStatus
from consumer.groups import State
from consumer.page.given import Visit
from consumer.page.grid import Cell, Column, Row
from consumer.page.sentences import CAUSES, status_text
from consumer.page.words import NAMES
from consumer.spending import RunCost

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

STATIC = {"page.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}
MOST_MESSAGE = 600
"""Characters of what a job says; its log has the rest."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page for somebody.

    Attributes:
        zone: Whose times are told.
    """

    visit: Visit
    zone: tzinfo

    @property
    def root(self) -> str:
        """The way to the site's root, which a proxy may put anywhere."""
        return "../" * (self.visit.path.count("/") - 1)

    def link(self, path: str = "", **query: object) -> str:
        """Return a link that keeps the language."""
        kept = {"lang": self.visit.query["lang"]} if "lang" in self.visit.query else {}
        # An empty path would be the page itself, wherever it lies.
        return (f"{self.root}{path}" or "./") + _query(kept | query)

    def same(self, **changes: object) -> str:
        """Return a link to this page with another query."""
        return _query({**self.visit.query, **changes}) or "?"

    def run_link(self, run: str, job: str = "") -> str:
        """Return a link to a run, or to a job in it."""
        return self.link(f"runs/{quote(run, safe='')}" + (f"/jobs/{_part(job)}" if job else ""))

    def job_link(self, schedule: str, job: str) -> str:
        """Return a link to a job."""
        return self.link(job_path(schedule, job))

    def moment(self, when: datetime) -> str:
        """Return a time, to the minute."""
        return f"{when.astimezone(self.zone):%Y-%m-%d %H:%M}"

    def stamp(self, when: datetime) -> str:
        """Return a time, to the second and with its zone."""
        return f"{when.astimezone(self.zone):%Y-%m-%d %H:%M:%S %Z}"

    size = staticmethod(show_size)
    duration = staticmethod(show_duration)

    def cost(self, of: RunCost | float | None) -> str:
        """Return US dollars, of small amounts with the digits that matter; a tilde says that it is an estimate."""
        dollars = of.usd if isinstance(of, RunCost) else of
        if dollars is None:
            return "-"
        about = "~" if isinstance(of, RunCost) and of.estimated else ""
        return f"{about}${dollars:.2f}" if dollars >= 1 else f"{about}${dollars:.4f}"

    def cause(self, cause: JobCause) -> str:
        """Return why a job did not succeed."""
        return self.visit.language(CAUSES[cause.known])

    def status(self, status: RunStatus | JobStatus | State) -> str:
        """Return how something stands."""
        return status_text(self.visit.language, status)

    def message(self, text: str) -> str:
        """Return what a job says, cut to what fits."""
        return text if len(text) <= MOST_MESSAGE else f"{text[:MOST_MESSAGE]} …"

    def row_name(self, row: Row) -> "Markup":
        """Return the first cell of a row."""
        from markupsafe import Markup  # noqa: PLC0415 -- of the extra `home`

        if not row.job:
            return Markup("<strong>{}</strong>").format(row.schedule)
        link = Markup('<a href="{}" title="{}">{}</a>')
        return link.format(self.job_link(row.schedule, row.job), row.job, row.job)

    def cells(self, cells: Sequence[Cell], columns: Sequence[Column], job: str = "") -> "Markup":
        """Return the cells of a row; there are thousands on a page, which a template takes long for."""
        from markupsafe import Markup, escape  # noqa: PLC0415

        words = {state: escape(self.status(state)) for state in State}
        found = ['<ol class="cells">']
        for cell, column in zip(cells, columns, strict=True):
            title = f'class="{cell.state.value}" title="{escape(column.name)}: {words[cell.state]}"'
            if cell.state is State.NONE:
                found.append("<li></li>")
            elif cell.run:
                found.append(
                    f'<li><a {title} href="{escape(self.run_link(cell.run, job))}"></a></li>'
                )
            else:
                found.append(f'<li><i {title} role="img"></i></li>')
        return Markup("".join([*found, "</ol>"]))  # noqa: S704 -- all of it is escaped above

    def render(self, template: str, **content: object) -> str:
        """Return a page."""
        loaded = _environment().get_template(template)
        return loaded.render(page=self, _=self.visit.language, languages=NAMES, **content)


def job_path(schedule: str, job: str) -> str:
    """Return the path of a job's page."""
    return f"jobs/{_part(schedule)}/{_part(job)}"


def object_path(run: str, job: str, path: str) -> str:
    """Return the path at which an object of a job is."""
    return f"runs/{_part(run)}/jobs/{_part(job)}/{quote(path)}"


def view_path(run: str, job: str, path: str) -> str:
    """Return the path of the page that shows a file."""
    return f"view/{_part(run)}/{_part(job)}/{quote(path)}"


def _part(text: str) -> str:
    return quote(text, safe="")


def _query(values: dict[str, object]) -> str:
    kept = {name: value for name, value in values.items() if value not in {"", 0, None}}
    return f"?{urlencode(kept)}" if kept else ""


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("consumer.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {"style": f"static/page.css?{_digest('page.css')}", "refresh": 0}
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


def shown_text(content: bytes) -> str:
    """Return a text without what a browser takes for control characters; tabs stay, and line breaks, as line feeds."""
    text = content.removeprefix(BOM_UTF8).decode("utf-8", "replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text
    )


def said(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs that say something."""
    return [(name, text) for name, text in pairs if text]
