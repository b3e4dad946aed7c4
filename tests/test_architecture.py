"""The shape of the code, as docs/architecture.md promises it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imports import imports

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")

LAYERS = ("agent.contract", "agent.core", "agent.batch", "agent.steps", "agent.run", "agent.cli")
"""Each may import what stands before it, and itself."""
BESIDE = {
    "agent.doctor": {"agent.core", "agent.steps"},
    "agent.demo": {"agent.core", "agent.steps"},
    "agent.cli": {"agent.core", "agent.steps", "agent.run", "agent.doctor", "agent.demo"},
    "consumer": {"agent.contract", "agent.core", "agent.batch"},
}
EFFECTS = {"subprocess", "socket", "requests", "boto3", "obstore", "asyncio", "threading", "os"}


def modules(package: str) -> Iterator[Path]:
    """Yield the source files of a package."""
    yield from sorted((ROOT / package.replace(".", "/")).rglob("*.py"))


def name_of(path: Path) -> str:
    """Return a source file's module name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer(module: str) -> str:
    """Return the part of the project that a module belongs to."""
    parts = (*LAYERS, *BESIDE)
    return next((part for part in parts if f"{module}.".startswith(f"{part}.")), module)


def allowed(part: str) -> set[str]:
    """Return the parts that a part may import."""
    below = set(LAYERS[: LAYERS.index(part) + 1]) if part in LAYERS else {part}
    return below | BESIDE.get(part, set())


def ours() -> list[Path]:
    """Return every source file of the agent and the consumer."""
    return [*modules("agent"), *modules("consumer")]


@pytest.mark.parametrize("path", ours(), ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    """Imports go cli -> run -> steps -> batch -> core -> contract; the consumer knows the last three alone."""
    part = layer(name_of(path).replace("agent.__main__", "agent.cli"))
    reached = {layer(name) for name in imports(path) if name.split(".")[0] in {"agent", "consumer"}}
    assert reached - {"agent"} <= allowed(part), f"{part} imports {reached}"


def decisions() -> list[Path]:
    """Return the modules that decide: the whole core, and those of the packages by subject that say so."""
    by_subject = [*modules("agent.contract"), *modules("agent.batch")]
    return [*modules("agent.core"), *filter(says_decisions_only, by_subject)]


def says_decisions_only(path: Path) -> bool:
    """Tell whether a module promises to have no effects."""
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return "Decisions only." in docstring


@pytest.mark.parametrize("path", list(modules("agent.contract")), ids=name_of)
def test_the_contract_is_decisions_alone(path: Path) -> None:
    """What others read is written down without any effect, and needs nothing else of ours."""
    assert says_decisions_only(path)


def test_a_batch_has_effects_in_its_log_alone() -> None:
    """The rules can be read, and tried, without a bucket."""
    effects = [path.stem for path in modules("agent.batch") if not says_decisions_only(path)]
    assert effects == ["__init__", "log"]


@pytest.mark.parametrize("path", list(modules("agent.batch")), ids=name_of)
def test_a_batch_knows_the_contract_and_the_errors(path: Path) -> None:
    """Nothing else, so that whoever has a bucket can use it."""
    core = {name for name in imports(path) if layer(name) == "agent.core"}
    assert core <= {"agent.core.errors"}


@pytest.mark.parametrize("path", decisions(), ids=name_of)
def test_decisions_have_no_effects(path: Path) -> None:
    """No file, process, network or clock is reachable from them by an import of their own."""
    assert imports(path).isdisjoint(EFFECTS)
    assert not re.search(r"\.now\(|time\.time\(|\bopen\(", path.read_text("utf-8"))


OF_THEIR_OWN = {"agent.steps.jobs.launcher", "agent.steps.release.imports"}
"""Programs that another interpreter gets as a text: they have an environment and an end of their own."""


@pytest.mark.parametrize("path", ours(), ids=name_of)
def test_only_command_lines_read_the_environment_and_exit(path: Path) -> None:
    """Whoever needs the environment is given it; whoever fails says so to its caller."""
    if layer(name_of(path)) == "agent.cli" or name_of(path).startswith("consumer.cli"):
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


@pytest.mark.parametrize(
    "package", ["agent", "agent.contract", "agent.batch", "agent.core", "agent.steps", "consumer"]
)
def test_every_module_has_its_place_on_the_page(package: str) -> None:
    """A newcomer finds each module of a package, or the folder it is in, on the page."""
    folder = ROOT / package.replace(".", "/")
    names = {
        path.name
        for path in folder.iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
    }
    missing = {
        name
        for name in names - {"__init__.py", "__main__.py"}
        if name.removesuffix(".py") not in ARCHITECTURE
    }
    assert missing == set()
