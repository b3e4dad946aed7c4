"""The shape of the code, as docs/architecture.md promises it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imports import imports, source_of

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")

ORDER = (
    *("contract", "base", "config", "machine", "bucket", "secrets", "batch", "delivery"),
    *("browser", "jobs", "release", "notify", "run", "doctor", "demo", "cli"),
)
"""Each package of the agent may import those that stand before it, and itself."""
ALONE = {
    "contract": set[str](),
    "base": set[str](),
    "batch": {"contract", "base"},
    "delivery": {"contract", "base", "bucket", "batch"},
}
"""What these may import at most: not all that stands before them."""
FOR_HOME = {"contract", "base", "config", "batch", "bucket", "machine", "release"}
EFFECTS = {"subprocess", "socket", "requests", "boto3", "obstore", "asyncio", "threading", "os"}


def modules(package: str) -> Iterator[Path]:
    """Yield the source files of a package."""
    yield from sorted((ROOT / package.replace(".", "/")).rglob("*.py"))


def name_of(path: Path) -> str:
    """Return a source file's module name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def package(module: str) -> str:
    """Return the package of the agent that a module is in; `consumer` for home's."""
    parts = module.split(".")
    return parts[0] if parts[0] != "agent" else (*parts, "")[1]


def allowed(part: str) -> set[str]:
    """Return the packages that a package may import."""
    if part == "consumer":
        return {part, *FOR_HOME}
    below = ALONE.get(part, set(ORDER[: ORDER.index(part)])) if part in ORDER else set(ORDER)
    return {part, *below}


def ours() -> list[Path]:
    """Return every source file of the agent and the consumer."""
    return [*modules("agent"), *modules("consumer")]


@pytest.mark.parametrize("path", ours(), ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    """The packages form a DAG, whose order the page tells."""
    part = package(name_of(path).replace("agent.__main__", "agent.cli"))
    reached = {
        package(name) for name in imports(path) if name.split(".")[0] in {"agent", "consumer"}
    }
    assert reached - {""} <= allowed(part), f"{part} imports {reached}"


@pytest.mark.parametrize("path", list(modules("consumer")), ids=name_of)
def test_home_takes_the_contract_and_decisions(path: Path) -> None:
    """Of the agent, home has what both read, and decisions; of effects only what `base` has for everybody."""
    taken = {
        name for name in imports(path) if name.startswith("agent.") and source_of(name).is_file()
    }
    acting = {
        name
        for name in taken
        if package(name) not in {"contract", "base"} and not says_decisions_only(source_of(name))
    }
    assert acting <= set()


def decisions() -> list[Path]:
    """Return the modules that decide: those that say so."""
    return list(filter(says_decisions_only, ours()))


def says_decisions_only(path: Path) -> bool:
    """Tell whether a module promises to have no effects."""
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return "Decisions only." in docstring


@pytest.mark.parametrize("path", list(modules("agent.contract")), ids=name_of)
def test_the_contract_is_decisions_alone(path: Path) -> None:
    """What others read is written down without any effect, and needs nothing else of ours."""
    assert says_decisions_only(path)


def test_a_batch_has_effects_in_three_modules() -> None:
    """The rules can be read, and tried, without a bucket."""
    effects = [path.stem for path in modules("agent.batch") if not says_decisions_only(path)]
    assert effects == ["__init__", "history", "log", "session"]


@pytest.mark.parametrize("path", list(modules("agent.batch")), ids=name_of)
def test_a_batch_knows_the_contract_and_the_errors(path: Path) -> None:
    """Nothing else, so that whoever has a bucket can use it."""
    base = {name for name in imports(path) if package(name) == "base"}
    assert base <= {"agent.base.errors"}


@pytest.mark.parametrize("path", decisions(), ids=name_of)
def test_decisions_have_no_effects(path: Path) -> None:
    """No file, process, network or clock is reachable from them by an import of their own, and they wait for nobody."""
    assert imports(path).isdisjoint(EFFECTS)
    assert not re.search(r"\b(async|await) ", path.read_text("utf-8"))
    assert not re.search(r"\.now\(|time\.time\(|\bopen\(", path.read_text("utf-8"))


OF_THEIR_OWN = {"agent.jobs.isolation.launcher", "agent.release.imports"}
"""Programs that another interpreter gets as a text: they have an environment and an end of their own."""


@pytest.mark.parametrize("path", ours(), ids=name_of)
def test_only_command_lines_read_the_environment_and_exit(path: Path) -> None:
    """Whoever needs the environment is given it; whoever fails says so to its caller."""
    if package(name_of(path)) == "cli" or name_of(path).startswith("consumer.cli"):
        return
    if name_of(path) in OF_THEIR_OWN:
        return
    text = path.read_text("utf-8")
    assert not re.search(r"os\.environ|os\.getenv|sys\.exit|os\._exit", text)


@pytest.mark.parametrize("path", sorted((ROOT / "scrapers").glob("[a-z]*/**/*.py")), ids=name_of)
def test_scrapers_and_agent_never_meet(path: Path) -> None:
    """A scraper needs nothing of the agent's but its environment."""
    assert {name.split(".")[0] for name in imports(path)}.isdisjoint({"agent", "consumer"})


def test_nothing_of_our_own_is_patched() -> None:
    """Tests use the real parts; what cannot be had is replaced at the protocol's edge."""
    pattern = re.compile(r"unittest\.mock|mock\.patch|monkeypatch\.setattr|MagicMock")
    offenders = [
        path.name
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__) and pattern.search(path.read_text("utf-8"))
    ]
    assert offenders == []


def test_the_architecture_names_only_what_is_there() -> None:
    """Every path that the page mentions exists."""
    named = re.findall(r"`((?:agent|consumer|scrapers|tests|docs|deploy)/[\w./-]*)`", ARCHITECTURE)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


WORDS = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]*)`", ARCHITECTURE))))


def places_of(path: Path) -> set[str]:
    """Return the words of which one has to be on the page: of home's inner packages, the folder does."""
    *_, folder, stem = path.relative_to(ROOT).with_suffix("").parts
    inner = path.is_relative_to(ROOT / "consumer") and folder != "consumer"
    return {stem, folder} if inner else {stem}


@pytest.mark.parametrize("path", ours(), ids=name_of)
def test_every_module_has_its_place_on_the_page(path: Path) -> None:
    """A newcomer finds each module of the agent by its name; of home, the module or the folder that it is in."""
    if path.name in {"__init__.py", "__main__.py"} or "agent/cli/" in str(path):
        return
    assert not places_of(path).isdisjoint(WORDS)
