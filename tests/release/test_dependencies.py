"""Which file of a release says what its programs import, and what uv is asked to do with it."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import ReleaseError
from agent.release.dependencies import (
    Dependencies,
    asks_git,
    dependencies_of,
    not_read,
    pipenv_requirements,
    poetry_requirements,
    unhashed,
)

HASH = "sha256:" + "a" * 64
HASHED = f"idna==3.10 --hash={HASH}\n"
PROJECT = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\n'
BUILT = PROJECT + '[build-system]\nrequires = ["setuptools"]\n'
SCM = (
    '[project]\nname = "p"\ndynamic = ["version"]\n'
    '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\n'
)
UV_LOCK = 'version = 1\nrequires-python = ">=3.12"\n'
POETRY = f"""
[[package]]
name = "idna"
version = "3.10"
optional = false
groups = ["main", "dev"]
markers = {{main = "python_version < '4'", dev = "python_version >= '3'"}}
files = [{{file = "idna.whl", hash = "{HASH}"}}]

[[package]]
name = "pytest"
version = "8.0"
optional = false
groups = ["dev"]
files = []

[metadata]
lock-version = "2.1"
"""
PIPENV = {
    "default": {"idna": {"version": "==3.10", "hashes": [HASH], "markers": "python_version < '4'"}},
    "develop": {"pytest": {"version": "==8.0", "hashes": [HASH]}},
}
CONVERTED = f"idna==3.10 ; python_version < '4' --hash={HASH}\n"


def found(files: dict[str, str | bytes], jobs: str = "jobs.toml") -> Dependencies | None:
    """Return what counts of some files."""
    content = {
        path: text.encode() if isinstance(text, str) else text for path, text in files.items()
    }
    return dependencies_of(content.get, jobs)


def calls(files: dict[str, str | bytes], jobs: str = "jobs.toml") -> list[str]:
    """Return the file that counts, and what uv is asked to do."""
    what = found(files, jobs)
    return [what.file, *(" ".join(step.arguments) for step in what.steps)] if what else []


SYNC = "sync --frozen --no-dev --no-editable"
HASHED_INPUT = "pip install --require-hashes --requirement -"
OF_PROJECT = ["pyproject.toml", "pip install --requirement pyproject.toml"]
POETRY_CORE = '[build-system]\nrequires = ["poetry-core"]\n'


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        ({}, []),
        ({"pyproject.toml": "[tool.ruff]\n"}, []),
        ({"pyproject.toml": "not toml ["}, []),
        ({"uv.lock": UV_LOCK, "requirements.txt": HASHED}, ["uv.lock", SYNC]),
        ({"pylock.toml": ""}, ["pylock.toml", "pip install --requirement pylock.toml"]),
        (
            {"requirements.txt": HASHED, "poetry.lock": POETRY},
            ["requirements.txt", "pip install --require-hashes --requirement requirements.txt"],
        ),
        ({"requirements.txt": "idna\n", "poetry.lock": POETRY}, ["poetry.lock", HASHED_INPUT]),
        (
            {"Pipfile.lock": json.dumps(PIPENV), "pyproject.toml": PROJECT},
            ["Pipfile.lock", HASHED_INPUT],
        ),
        (
            {"requirements.txt": "idna\n", "pyproject.toml": PROJECT},
            ["requirements.txt", "pip install --requirement requirements.txt"],
        ),
        (
            {"requirements.txt": "idna\n".encode("utf-16")},
            ["requirements.txt", "pip install --requirement -"],
        ),
        (
            {"requirements.txt": "-r base.txt\n"},
            ["requirements.txt", "pip install --requirement requirements.txt"],
        ),
        (
            {"requirements.txt": "# see poetry.lock\n", "poetry.lock": POETRY},
            ["poetry.lock", HASHED_INPUT],
        ),
        ({"requirements.txt": "-i https://example.com/simple\n"}, []),
        ({"pyproject.toml": PROJECT}, OF_PROJECT),
        ({"pyproject.toml": BUILT}, [*OF_PROJECT, "pip install ."]),
        ({"pyproject.toml": BUILT + "[tool.uv]\npackage = false\n"}, OF_PROJECT),
        ({"pyproject.toml": POETRY_CORE}, ["pyproject.toml", "pip install ."]),
        ({"pyproject.toml": POETRY_CORE + "[tool.poetry]\npackage-mode = false\n"}, []),
    ],
)
def test_the_file_that_pins_most_counts(files: dict[str, str | bytes], asked: list[str]) -> None:
    """Locks before requirements, those before a project; a file that configures tools says nothing."""
    assert calls(files) == asked


@pytest.mark.parametrize(
    ("files", "file"),
    [
        ({"uv.lock": UV_LOCK, "sub/requirements.txt": HASHED}, "sub/requirements.txt"),
        ({"uv.lock": UV_LOCK, "other/uv.lock": UV_LOCK}, "uv.lock"),
        ({"sub/deep/uv.lock": UV_LOCK, "sub/uv.lock": UV_LOCK}, "sub/uv.lock"),
    ],
)
def test_the_nearest_file_above_the_jobs_counts(files: dict[str, str | bytes], file: str) -> None:
    """`release.jobs` may be in a folder: what is beside it is its own."""
    what = found(files, "sub/jobs.toml")
    assert what is not None
    assert what.file == file


def test_what_is_not_pinned_is_told() -> None:
    """By name where there are names."""
    for name, text, unpinned, python in (
        ("uv.lock", UV_LOCK, "", ">=3.12"),
        ("requirements.txt", HASHED, "", ""),
        ("poetry.lock", POETRY, "", ""),
        ("requirements.txt", "idna\nurllib3\n", "has no hashes for idna, urllib3", ""),
        ("pyproject.toml", PROJECT, "has no lock beside it", ">=3.11"),
    ):
        what = found({f"a/{name}": text}, "a/j.toml")
        assert what is not None
        said = what.unpinned.removeprefix(f"a/{name} ")
        assert (said, what.python) == (unpinned, python), name


def test_only_the_release_itself_is_told_its_version() -> None:
    """Its dependencies are installed before: one that is built would take the version for its own."""
    what = found({"uv.lock": UV_LOCK, "pyproject.toml": SCM})
    assert what is not None
    assert [(step.builds, step.arguments[-1]) for step in what.steps] == [
        (False, "--no-install-project"),
        (True, "--no-editable"),
    ]


@pytest.mark.parametrize(
    ("build", "project", "asks"),
    [
        (["setuptools>=64", "setuptools-scm[toml]>=8"], {}, True),
        (["setuptools_scm"], {}, True),
        (["hatchling", "hatch-vcs"], {"name": "p"}, True),
        (["setuptools", "pbr"], {}, True),
        (["setuptools"], {}, False),
        (["hatch-vcs"], {"version": "1"}, False),
        ("setuptools-scm", {}, False),
    ],
)
def test_which_builds_ask_git_for_a_version(
    build: object, project: dict[str, str], *, asks: bool
) -> None:
    """Those whose backend is known for it, unless the version is written down."""
    assert asks_git({"build-system": {"requires": build}, "project": project}) is asks


def test_locks_of_poetry_and_pipenv_become_requirements_with_hashes() -> None:
    """Of the groups that are installed by default, with the conditions."""
    assert poetry_requirements(POETRY, "poetry.lock") == CONVERTED
    assert pipenv_requirements(json.dumps(PIPENV), "Pipfile.lock") == CONVERTED


POETRY_2 = '[metadata]\nlock-version = "2.1"\n'


def pipfile(**more: object) -> str:
    """Return a `Pipfile.lock` of one package, of which more is said."""
    return json.dumps({"default": {"x": {"version": "==1", "hashes": [HASH], **more}}})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("poetry.lock", POETRY.replace('"2.1"', '"2.0"'), "its format, 2.0, does not say"),
        ("poetry.lock", "", "an early Poetry"),
        ("poetry.lock", "[[", "not valid TOML"),
        ("poetry.lock", POETRY.replace(HASH, "").replace("hash = ", "x = "), "no hash pins idna"),
        (
            "poetry.lock",
            POETRY.replace("\n[metadata]", '[package.source]\ntype = "git"\n[metadata]').replace(
                '["dev"]', '["main"]'
            ),
            "no hash pins pytest",
        ),
        ("Pipfile.lock", "{", "it is not JSON"),
        ("Pipfile.lock", "[]", "it is not JSON"),
        ("Pipfile.lock", '{"default": {"x": {"git": "https://x", "ref": "1"}}}', "no hash pins x"),
        ("Pipfile.lock", '{"default": {"x\\ud800": {}}}', r"no hash pins x\?"),
        ("Pipfile.lock", pipfile(hashes=None), "hashes is not a list"),
        ("Pipfile.lock", pipfile(markers="\ud800"), "is no requirement"),
        ("Pipfile.lock", pipfile(markers="\n--index-url https://x"), "is no requirement"),
        ("poetry.lock", "package = 5\n" + POETRY_2, "package is not a list"),
        ("poetry.lock", POETRY_2 + "[[package]]\ngroups = 5", "groups is not a list"),
        ("poetry.lock", POETRY_2 + "[[package]]\nfiles = 5", "files is not a list"),
        ("requirements.txt", b"idna\n\xff\xfe", "it is not UTF-8"),
    ],
)
def test_a_lock_that_cannot_be_installed_says_why(name: str, text: str | bytes, says: str) -> None:
    """In a sentence that names the file."""
    with pytest.raises(ReleaseError, match=f"^{name} .*{says}"):
        found({name: text})


def test_a_lock_with_a_version_of_many_digits_is_read() -> None:
    """Python refuses to make a number of more than 4300."""
    assert poetry_requirements(POETRY_2.replace("2.1", "2" * 5000), "poetry.lock") == ""


def test_files_that_do_not_count_are_named() -> None:
    """What people expect to be read, and locks elsewhere."""
    names = ["environment.yml", "app/uv.lock", "requirements.txt", "pyproject.toml", "uv.lock"]
    told = dict(not_read(names, found({"uv.lock": UV_LOCK})))
    assert told == {
        "app/uv.lock": "is not read: uv.lock is",
        "requirements.txt": "is not read: uv.lock is",
    }
    assert sorted(dict(not_read(names[:2], None))) == ["app/uv.lock", "environment.yml"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("# nothing\n\n-i https://example.com/simple\n--require-hashes\n", []),
        ("idna==3.10 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n", []),
        ("idna==3.10\n", ["idna==3.10"]),
        ("idna==3.10 # --hash=sha256:aa\n", ["idna==3.10"]),
        ("a==1 --hash=sha256:aa\nb==2 ; python_version < '4'\nc @ file:///c\n", ["b==2", "c"]),
        ("a==1 \\\r\n --hash=sha256:aa\r\n", []),
        ("-r requirements/base.txt\n", ["-r requirements/base.txt"]),
        ("-r base.txt\na==1 --hash=sha256:aa\n", []),
        ("-e .\na==1 --hash=sha256:aa\n", ["-e ."]),
        (
            "--requirement=base.txt\n--editable ./lib\n",
            ["--requirement=base.txt", "--editable ./lib"],
        ),
    ],
)
def test_requirements_without_a_hash_are_found(text: str, names: list[str]) -> None:
    """Continued lines belong together; comments do not count; options are not requirements."""
    assert unhashed(text) == names


@given(st.text())
def test_no_text_breaks_the_reading_of_requirements(text: str) -> None:
    """Whatever the file holds, what is named is in it."""
    assert all(name in text for name in unhashed(text))


@given(
    st.sampled_from(
        ["uv.lock", "poetry.lock", "Pipfile.lock", "pyproject.toml", "requirements.txt"]
    ),
    st.binary(max_size=300) | st.text(max_size=300).map(str.encode),
)
def test_no_file_breaks_the_reading(name: str, content: bytes) -> None:
    """It counts, or not, or is refused with a sentence."""
    with suppress(ReleaseError):
        found({name: content})
