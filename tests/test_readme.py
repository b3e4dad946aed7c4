"""What the READMEs say is so: commands, options, links, exit codes."""

import re
import tomllib
from pathlib import Path

import pytest

from agent import __version__
from agent.base.errors import ExitCode
from agent.config.jobsfile import parse_jobs
from agent.config.overrides import Document, parse_settings
from tests.parts.command import call

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
COMMANDS = re.compile(r"^(?:\$ )?(?:\w+=\S+ )?mayfly ((?:secrets )?[a-z]+)(.*)$", re.MULTILINE)


def fences(path: Path, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)


def commands(path: Path) -> set[tuple[str, tuple[str, ...]]]:
    """Return every `mayfly` command of a page, with its options."""
    text = "\n".join([*fences(path, "sh"), *re.findall(r"`([^`\n]+)`", path.read_text("utf-8"))])
    return {
        (name, tuple(re.findall(r"--[a-z-]+", rest.split("#")[0])))
        for name, rest in COMMANDS.findall(text)
    }


def test_every_command_exists_with_its_options() -> None:
    """A person can type what either page says."""
    named = {path.name: commands(path) for path in READMES}
    for page, those in named.items():
        assert {"check", "doctor", "run", "status", "verify"} <= {name for name, _ in those}, page
    for name, options in set.union(*named.values()):
        where = [page for page, those in named.items() if (name, options) in those]
        told = call(*name.split(), "--help", environ={"COLUMNS": "200"})
        assert told.exit_code == 0, (where, name, told.output)
        assert all(option in told.stdout for option in options), (where, name, options)


def test_both_languages_have_the_same_files_and_commands() -> None:
    """Only comments differ."""
    one, other = (
        [
            line.split("#")[0].rstrip()
            for block in fences(path, "(?:sh|toml)")
            for line in block.splitlines()
        ]
        for path in READMES
    )
    assert one == other


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_every_make_target_exists(path: Path) -> None:
    """Those of a first encounter, and those of a deployment."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^make ([a-z-]+)", "\n".join(fences(path, "sh")), re.MULTILINE))
    assert targets == {"demo", "test", "ami", "deploy"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_the_examples_of_both_files_are_valid(path: Path) -> None:
    """What is copied from the page passes the check."""
    for text in fences(path, "toml"):
        if "job" in tomllib.loads(text):
            assert parse_jobs(text, "README", __version__)[1] == []
        else:
            assert parse_settings([Document(text, "README")]).faults == ()


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    """Links to files of the checkout name files that are there."""
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_every_exit_code_is_explained(path: Path) -> None:
    """The table has each code once, and no other."""
    rows = re.findall(r"^\| (\d) \|", path.read_text("utf-8"), re.MULTILINE)
    assert rows == [str(int(code)) for code in ExitCode]
