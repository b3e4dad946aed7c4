"""Figures find their place in the page, and nothing else of it changes."""

import pytest

from tests.faults.figures import Figures, table, with_figures

PAGE = "before\n<!-- figures:4 -->\nold\n<!-- /figures:4 -->\nafter\n"


def _figures(point: str) -> Figures:
    figures = Figures(point, "Faults", "pytest x", ("fault", "runs"), seed=1)
    figures.row("reset | cut", 1000)
    return figures


def test_a_table_names_its_command_and_seed() -> None:
    """Numbers have separators, and a bar in a cell does not end it."""
    text = table(_figures("4"))
    assert text.startswith("**Faults.** Again with `pytest x`; the seeds begin at 1.\n")
    assert text.endswith("| reset \\| cut | 1,000 |")


def test_figures_replace_those_of_their_point() -> None:
    """A second time changes nothing more."""
    page = with_figures(PAGE, _figures("4"))
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert with_figures(page, _figures("4")) == page


def test_one_more_table_comes_after_those_of_its_number() -> None:
    """It brings its own place; a number that the page does not know is refused."""
    page = with_figures(PAGE, _figures("4b"))
    assert page.index("figures:4 ") < page.index("figures:4b ") < page.index("after")
    with pytest.raises(ValueError, match="no place"):
        with_figures(PAGE, _figures("5"))
    with pytest.raises(ValueError, match="1 cells for 2"):
        _figures("4").row("one")
