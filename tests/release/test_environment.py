"""A release's locked environment: from the cache first, from the network else, and never without hashes."""

import json
import re
import sys
import time
from pathlib import Path

import pytest

from agent.base.errors import ReleaseError
from tests.parts.repo import Repo, Signer
from tests.parts.stalled import silent
from tests.release.conftest import DEAD_PROXY, LOCKED_JOBS, Computer, Locked, greeting, reason_of

pytestmark = pytest.mark.usefixtures("git_server")


def _no_network(computer: Computer) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        computer.environ[name] = computer.environ[name.lower()] = DEAD_PROXY


async def test_a_uv_lock_gets_its_environment(
    computer: Computer, repo_builder: Repo, locked: Locked
) -> None:
    """The locked package is there, for the agent's own Python, compiled and read-only."""
    repo_builder.release("v1.0", dict(locked.project))
    release = (await computer.obtain()).release
    assert await greeting(release) == "3.10"
    assert release.programs == release.root / "env" / "bin"
    settings = (release.root / "env/pyvenv.cfg").read_text()
    assert f"{sys.version_info.major}.{sys.version_info.minor}." in settings
    (package,) = (release.root / "env").glob("lib/python*/site-packages/idna")
    assert list(package.glob("__pycache__/core.*.pyc"))
    assert (package / "core.py").stat().st_nlink == 1  # shared with neither the cache nor a release
    assert not (package / "core.py").stat().st_mode & 0o222


async def test_the_same_lock_needs_no_network_again(
    computer: Computer, repo_builder: Repo, locked: Locked
) -> None:
    """A later release with the same lock is installed from the cache while the network is unusable."""
    repo_builder.release("v1.0", dict(locked.project))
    await computer.run_well()
    _no_network(computer)
    repo_builder.release("v1.1", {"note.txt": "x"})
    obtained = await computer.obtain()
    assert (obtained.release.ref, obtained.stale) == ("v1.1", None)
    assert await greeting(obtained.release) == "3.10"
    assert len(computer.told("release.cache_missed")) == 1


@pytest.mark.parametrize(("name", "command"), [("uv.lock", "sync"), ("requirements.txt", "pip")])
async def test_a_wrong_hash_leaves_the_last_good_release(
    computer: Computer, repo_builder: Repo, locked: Locked, name: str, command: str
) -> None:
    """A file that is not the one that was locked is not installed."""
    texts = {"uv.lock": locked.project["uv.lock"], "requirements.txt": locked.requirements}
    jobs = {"jobs.toml": locked.project["jobs.toml"], "greet.py": locked.project["greet.py"]}
    project = locked.project if name == "uv.lock" else jobs
    await computer.ran(repo_builder, "v1.0", {**project, name: texts[name]})
    computer.cache = computer.cache.with_name("cold")
    forged = re.sub("sha256:[0-9a-f]+", f"sha256:{'0' * 64}", texts[name])
    repo_builder.release("v2.0", {name: forged})
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    assert re.match(rf"uv {command}: .*[Hh]ash", reason_of(obtained))
    assert await greeting(obtained.release) == "3.10"


async def test_requirements_with_hashes_are_the_other_form(
    computer: Computer, repo_builder: Repo, locked: Locked
) -> None:
    """`requirements.txt` with hashes gives the same environment; the second time from the cache."""
    files = {
        name: text for name, text in locked.project.items() if name.endswith((".py", "jobs.toml"))
    }
    repo_builder.release("v1.0", files | {"requirements.txt": locked.requirements})
    assert await greeting((await computer.run_well()).release) == "3.10"
    _no_network(computer)
    repo_builder.release("v1.1", {"note.txt": "x"})
    release = (await computer.obtain()).release
    assert (release.ref, await greeting(release)) == ("v1.1", "3.10")


async def test_requirements_without_hashes_are_installed_and_told(
    computer: Computer, repo_builder: Repo, locked: Locked
) -> None:
    """With a warning in each run, also where the release is on the disk already; an UTF-16 file is read as well."""
    files = {name: locked.project[name] for name in ("greet.py", "jobs.toml")}
    text = "idna==3.10\n".encode("utf-16")
    (repo_builder.work / "requirements.txt").write_bytes(text)
    repo_builder.release("v1.0", files)
    for _ in range(2):
        obtained = await computer.run_well()
        assert await greeting(obtained.release) == "3.10"
        (warning,) = obtained.warnings
        assert warning.startswith("requirements.txt has no hashes for idna==3.10: another day")


async def test_signed_releases_are_held_to_hashes(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """What runs must be what was signed: without hashes it could be anything tomorrow."""
    jobs = '[[job]]\nname = "a"\ncommand = ["sh"]\n'
    repo_builder.release(
        "v1.0", {"jobs.toml": jobs, "requirements.txt": "idna==3.10\n"}, signer=ada
    )
    with pytest.raises(ReleaseError, match=r"no hashes for idna==3.10, and releases are signed"):
        await computer.obtain(allowed_signers=str(signers))


def _hashes(locked: Locked) -> list[str]:
    return re.findall(r"sha256:[0-9a-f]{64}", locked.requirements)


async def test_locks_of_other_tools_are_installed_with_their_hashes(
    computer: Computer, repo_builder: Repo, locked: Locked
) -> None:
    """Pipenv's, Poetry's, and one beside a jobs file in a folder; a hash that is another one is refused."""
    computer.cache = locked.cache
    greet = locked.project["greet.py"]
    files = [{"file": f"{number}", "hash": one} for number, one in enumerate(_hashes(locked))]
    listed = ", ".join(f'{{file = "{each["file"]}", hash = "{each["hash"]}"}}' for each in files)
    pipenv = json.dumps({"default": {"idna": {"version": "==3.10", "hashes": _hashes(locked)}}})
    poetry = (
        f'[[package]]\nname = "idna"\nversion = "3.10"\ngroups = ["main"]\nfiles = [{listed}]\n'
        '[metadata]\nlock-version = "2.1"\n'
    )
    kinds = {"Pipfile.lock": pipenv, "poetry.lock": poetry}
    for number, (name, text) in enumerate(kinds.items(), 1):
        for gone in ({*kinds} - {name}) & {each.name for each in repo_builder.work.iterdir()}:
            (repo_builder.work / gone).unlink()
        jobs = locked.project["jobs.toml"]
        repo_builder.release(f"v{number}.0", {"jobs.toml": jobs, "greet.py": greet, name: text})
        obtained = await computer.run_well()
        assert (obtained.warnings, await greeting(obtained.release)) == ((), "3.10")
    other = re.sub("sha256:[0-9a-f]+", f"sha256:{'0' * 64}", poetry)
    repo_builder.release("v3.0", {"poetry.lock": other})
    computer.cache = computer.cache.with_name("cold")
    stale = (await computer.obtain()).stale
    assert stale is not None
    assert re.search("uv pip: .*[Hh]ash", stale.reason)


async def test_a_lock_beside_the_jobs_file_counts(
    computer: Computer, repo_builder: Repo, locked: Locked
) -> None:
    """`release.jobs` in a folder: its neighbour is its lock; programs work in the release's folder all the same."""
    computer.cache = locked.cache
    files = {f"sub/{name}": text for name, text in locked.project.items() if name != "greet.py"}
    repo_builder.release("v1.0", {**files, "greet.py": locked.project["greet.py"]})
    release = (await computer.obtain(jobs="sub/jobs.toml")).release
    assert await greeting(release) == "3.10"


@pytest.mark.parametrize("lock", [True, False])
async def test_a_build_that_asks_git_for_its_version_is_told_the_tags(
    computer: Computer, repo_builder: Repo, *, lock: bool
) -> None:
    """setuptools-scm, for real: a release has no history, and its version is that of its tag."""
    project = (
        '[project]\nname = "greeter"\nrequires-python = ">=3.11"\ndynamic = ["version"]\n'
        '[build-system]\nrequires = ["setuptools>=64", "setuptools-scm>=8"]\n'
        'build-backend = "setuptools.build_meta"\n'
        '[tool.setuptools]\npy-modules = ["greet"]\n[tool.setuptools_scm]\n'
    )
    locked = (
        'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n\n'
        '[[package]]\nname = "greeter"\nsource = { editable = "." }\n'
    )
    greet = "from importlib.metadata import version\nprint(version('greeter'))\n"
    files = {"jobs.toml": LOCKED_JOBS, "greet.py": greet, "pyproject.toml": project}
    repo_builder.release("v1.2-rc.1", files | ({"uv.lock": locked} if lock else {}))
    obtained = await computer.obtain(track="v*rc*")
    assert await greeting(obtained.release) == "1.2rc1"
    assert len(obtained.warnings) == (0 if lock else 1)


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "selenium==4.9.1\n"},
        {"uv.lock": 'version = 1\nrequires-python = ">=3.99"\n'},
        {"poetry.lock": "[["},
    ],
)
async def test_a_release_of_containers_needs_no_environment(
    computer: Computer, repo_builder: Repo, files: dict[str, str]
) -> None:
    """What its images carry is theirs: no file of Python keeps it from running."""
    repo_builder.release("v1.0", {"jobs.toml": '[[job]]\nname = "a"\nimage = "x:1"\n', **files})
    obtained = await computer.obtain()
    assert (obtained.release.programs, obtained.warnings) == (None, ())


async def test_time_for_installing_is_limited(
    computer: Computer, repo_builder: Repo, locked: Locked
) -> None:
    """An index that never answers costs `install_timeout`, not the run."""
    repo_builder.release("v1.0", dict(locked.project))
    with silent() as address:
        computer.environ |= {"HTTPS_PROXY": f"http://{address}", "https_proxy": f"http://{address}"}
        started = time.monotonic()
        with pytest.raises(ReleaseError, match="uv sync: no end within the time limit") as caught:
            await computer.obtain(install_timeout=4)
        assert time.monotonic() - started < 4 + 60
    assert "install_timeout" in caught.value.with_remedy


async def test_build_code_does_not_see_the_agents_secrets(
    computer: Computer, repo_builder: Repo, locked: Locked, tmp_path: Path
) -> None:
    """A release that is a package runs its own build backend: with proxies and paths, without secrets."""
    canary = tmp_path / "environment"
    repo_builder.release(
        "v1.0",
        {
            **locked.project,
            "pyproject.toml": locked.project["pyproject.toml"]
            .replace("package = false", "package = true")
            .replace(
                "[tool.uv]",
                '[build-system]\nrequires = []\nbuild-backend = "backend"\n'
                'backend-path = ["."]\n\n[tool.uv]',
            ),
            "uv.lock": locked.project["uv.lock"].replace('virtual = "."', 'editable = "."'),
            "backend.py": f"import os\nopen({str(canary)!r}, 'w').write(repr(dict(os.environ)))\n"
            "raise SystemExit('no build today')\n",
        },
    )
    with pytest.raises(ReleaseError, match=r"uv sync: "):
        await computer.obtain()
    assert "'PATH'" in canary.read_text()
    assert "never-passed-on" not in canary.read_text()


async def test_an_environment_whose_python_is_gone_is_made_again(
    computer: Computer, repo_builder: Repo, locked: Locked
) -> None:
    """After an upgrade of the system's Python took the old one away, the release is installed anew."""
    repo_builder.release("v1.0", dict(locked.project))
    release = (await computer.run_well()).release
    python = release.root / "env/bin/python"
    python.parent.chmod(0o755)
    python.unlink()
    python.symlink_to("/nowhere/python3")
    obtained = await computer.obtain()
    assert (obtained.stale, len(computer.told("release.installed"))) == (None, 2)
    assert await greeting(obtained.release) == "3.10"
