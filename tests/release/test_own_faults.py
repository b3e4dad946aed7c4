"""Which failures of an installation are the release's own for certain, so that it is not tried again."""

import os
from collections.abc import Mapping

import pytest

from agent.base.errors import Refusal
from agent.release.trial import own_fault
from tests.release.conftest import Computer, kinds

BUILD = "uv sync: error: Failed to build `dep`   [stderr] error: Failed to parse: pyproject.toml"


@pytest.mark.parametrize(
    ("kind", "reason", "own"),
    [
        ("check", "job a: ModuleNotFoundError: x", True),
        ("trial", "it was started 3 times, and no run came to its end", True),
        ("install", "uv sync: error: Failed to parse: pyproject.toml   cause: TOML", True),
        ("install", BUILD, False),
        ("install", BUILD.replace("error: Failed to build `dep`   ", ""), False),
        ("install", "requirements.txt has no hashes for x, and releases are signed here", False),
        ("install", "requirements.txt cannot be read: Input/output error", False),
        ("install", "uv sync: no end within the time limit", False),
        ("install", "uv sync: error: Failed to download `idna==3.10`: Hash mismatch", False),
        ("install", "uv sync: error: No space left on device (os error 28)", False),
        ("install", "uv could not be started: No such file or directory", False),
        ("install", "the browser's image x is not here and could not be fetched: y", False),
        *((kind, "it is not", False) for kind in ("content", "unverified", "moved", "downgrade")),
        ("bad", "it was found bad", False),
    ],
)
def test_only_what_is_certain_counts_against_a_release(
    kind: Refusal, reason: str, *, own: bool
) -> None:
    """A network, an index, a disk, a dependency's build or a newer uv may each cure it by themselves."""
    assert own_fault(kind, reason) is own


PROJECT = (
    '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\n[tool.uv]\npackage = false\n'
)
LOCK = """version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "p"
version = "1"
source = { virtual = "." }
"""
LOCKED = {"pyproject.toml": PROJECT, "uv.lock": LOCK}
NEEDS_MORE = (
    LOCK.replace(
        'source = { virtual = "." }',
        'source = { virtual = "." }\ndependencies = [{ name = "six" }]',
    )
    + """
[[package]]
name = "six"
version = "1.16.0"
source = { registry = "https://pypi.org/simple" }
wheels = [
    { url = "https://files.pythonhosted.org/packages/six-1.16.0-py2.py3-none-any.whl", """
    + f'hash = "sha256:{"0" * 64}" }},\n]\n'
)
NO_HASH = f"--hash=sha256:{'0' * 64}\n"
OWN: dict[str, Mapping[str, str]] = {
    "no TOML": {"uv.lock": "version = ["},
    "no lock": {"uv.lock": "hello"},
    "an empty lock": {"uv.lock": ""},
    "a lock that is no text": {"uv.lock": "\udcff\udcfe"},
    "a project that is no TOML": {"pyproject.toml": "[project\n"},
    "a Python that is not here": {"uv.lock": LOCK.replace("3.11", "3.99")},
    "a project's Python": {name: text.replace("3.11", "3.99") for name, text in LOCKED.items()},
    "a pinned Python": {".python-version": "3.99\n"},
    "no hashes": {
        "poetry.lock": '[[package]]\nname = "six"\nversion = "1"\n[metadata]\nlock-version = "2.1"'
    },
    "no requirements": {"requirements.txt": f"=== {NO_HASH}"},
}
OTHERS: dict[str, tuple[Mapping[str, str], str]] = {
    "no network": ({"uv.lock": NEEDS_MORE}, "six"),
    "no network for requirements": ({"requirements.txt": f"six==1.16.0 {NO_HASH}"}, "six"),
    "a newer kind of lock": ({"uv.lock": "version = 9\n"}, "uv sync: "),
}


async def _bad(computer: Computer, files: Mapping[str, str]) -> list[str]:
    """Publish a release after a good one, while there is no network; return what is bad, after it was refused."""
    good = await computer.ran("v1.0")
    computer.lose_the_network()
    # A shim of pyenv ends with an error of its own where a version is asked for that it lacks.
    folders = computer.environ["PATH"].split(os.pathsep)
    computer.environ["PATH"] = os.pathsep.join(one for one in folders if "shims" not in one)
    alone = not {"requirements.txt", "poetry.lock"}.isdisjoint(files)
    for name, text in (files if alone else {**LOCKED, **files}).items():
        computer.repo.write(name, text.encode(errors="surrogateescape"))
    commit = computer.publish("v2.0", {})
    obtained = await computer.obtain()
    assert obtained.release.commit == good
    (refused,) = obtained.record.refused
    assert (refused.kind, refused.commit) == ("install", commit), refused
    return computer.bad


@pytest.mark.parametrize("files", OWN.values(), ids=OWN)
async def test_what_no_retry_mends_is_found_bad(
    computer: Computer, files: Mapping[str, str]
) -> None:
    """By the words of the real uv. The next run says that it is bad, and installs nothing."""
    assert await _bad(computer, files) == ["v2.0"]
    installing = len(computer.told("release.exported"))
    assert kinds(await computer.obtain()) == ["bad"]
    assert len(computer.told("release.exported")) == installing


@pytest.mark.parametrize(("files", "words"), OTHERS.values(), ids=OTHERS)
async def test_what_may_mend_itself_is_tried_again(
    computer: Computer, files: Mapping[str, str], words: str
) -> None:
    """The network, and a uv that is too old, are nobody's fault: the next run installs it anew, and says why not."""
    assert await _bad(computer, files) == []
    (refused,) = (await computer.obtain()).record.refused
    assert (refused.kind, words in refused.reason) == ("install", True), refused
