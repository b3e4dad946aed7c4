"""The figures of docs/reliability.md: suites keep them, `python -m tests.faults.figures` puts them there."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "reliability"
"""Where long forms leave their figures; not committed."""
PAGE = ROOT / "docs" / "reliability.md"

Cell = str | int | float


@dataclass
class Figures:
    """What one suite has measured.

    Attributes:
        point: Which table of the page: `1` to `10`, or such as `4b` for one more of the same number.
        title: What the table shows.
        command: What measures it again.
        columns: The names of its columns.
        seed: The first of its seeds, where it has any.
        long: Whether this was the whole; a short form is told and not kept.
        rows: The table.
    """

    point: str
    title: str
    command: str
    columns: Sequence[str]
    seed: int | None = None
    long: bool = False
    rows: list[tuple[Cell, ...]] = field(default_factory=list)

    def row(self, *cells: Cell) -> None:
        """Add a row.

        Raises:
            ValueError: It has not one cell for each column.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns: {cells}")
        self.rows.append(cells)

    def write(self) -> None:
        """Print the table, and keep it for the page when it is the whole."""
        sys.stdout.write(f"\n{table(self)}\n")
        if self.long:
            KEPT.mkdir(parents=True, exist_ok=True)
            kept = KEPT / f"{self.point}.json"
            kept.write_text(json.dumps(asdict(self), indent=1) + "\n")


def table(figures: Figures) -> str:
    """Return figures as they stand in the page."""
    head = f"**{figures.title}.** Again with `{figures.command}`"
    head += "." if figures.seed is None else f"; the seeds begin at {figures.seed}."
    rows: Iterable[Sequence[Cell]] = (
        figures.columns,
        ["---" if number == 0 else "---:" for number in range(len(figures.columns))],
        *figures.rows,
    )
    lines = ("| " + " | ".join(_cell(each) for each in row) + " |" for row in rows)
    return "\n".join((head, "", *lines))


def _cell(value: Cell) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "\\|")


def with_figures(page: str, figures: Figures) -> str:
    """Return the page with figures in their place, which is made after those of the same number where there is none.

    Raises:
        ValueError: The page has no place for that number.
    """
    point = figures.point
    text = f"<!-- figures:{point} -->\n{table(figures)}\n<!-- /figures:{point} -->"
    place = rf"<!-- figures:{re.escape(point)} -->.*?<!-- /figures:{re.escape(point)} -->"
    if re.search(place, page, re.DOTALL):
        return re.sub(place, lambda _: text, page, count=1, flags=re.DOTALL)
    number = re.match(r"\d+", point)
    ends = number and list(re.finditer(rf"<!-- /figures:{number[0]}[a-z]* -->", page))
    if not ends:
        raise ValueError(f"{PAGE.name} has no place for the figures of {point}")
    end = ends[-1].end()
    return f"{page[:end]}\n\n{text}{page[end:]}"


def main() -> None:
    """Put every kept table into the page."""
    page = PAGE.read_text()
    for path in sorted(KEPT.glob("*.json")):
        page = with_figures(page, Figures(**json.loads(path.read_text())))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
