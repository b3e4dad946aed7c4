"""The pages about AWS say what the code and the template do."""

import re
from pathlib import Path

import pytest

from agent.config.settings import Cost
from tests.aws.month import table
from tests.aws.stack import template

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("aws.md", "aws.ja.md")


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_costs_is_the_codes(page: str) -> None:
    """Every figure of it is what a manifest would say; headings may be in another language."""
    text = (DOCS / page).read_text("utf-8")
    for line in table()[2:]:
        figures = line.split("|", 2)[2]
        assert f"|{figures}" in text, line


@pytest.mark.parametrize("page", PAGES)
def test_every_parameter_of_the_template_is_explained(page: str) -> None:
    """A name in the form is a name on the page, and no other; so is its default."""
    text = (DOCS / page).read_text("utf-8")
    said = dict(re.findall(r"^\| `([A-Z]\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    defaults = {name: str(one.get("Default")) for name, one in template()["Parameters"].items()}
    empty = {"aws.md": "empty", "aws.ja.md": "空"}[page]
    assert "ImageId" in said
    assert {**said, "ImageId": "None"} == {name: one or empty for name, one in defaults.items()}


@pytest.mark.parametrize("page", PAGES)
def test_defaults_of_prices_are_those_of_the_page(page: str) -> None:
    """The sources on the page are the sources of these numbers."""
    text = (DOCS / page).read_text("utf-8")
    prices = Cost()
    for price in (prices.volume_month, prices.snapshot_month, prices.address_hour, 0.0544):
        assert f"{price:g} USD" in text


@pytest.mark.parametrize("page", PAGES)
def test_a_machine_is_started_from_the_templates_latest_version(page: str) -> None:
    """Without a version EC2 takes the default one, which is the stack's first image and configuration."""
    text = (DOCS / page).read_text("utf-8")
    named = re.findall(r"--launch-template (.*?) --", text)
    assert named == ["'LaunchTemplateId=lt-...,Version=$Latest'"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link is a file of the repository."""
    text = (DOCS / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (DOCS / target).exists(), target
