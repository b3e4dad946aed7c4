"""A release's locked environment: from the cache first, from the network else, and never without hashes."""

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base import processes
from agent.base.errors import ReleaseError
from agent.release.environment import unhashed
from agent.release.shelf import Installed
from tests.parts.repo import Repo
from tests.parts.stalled import silent
from tests.release.conftest import DEAD_PROXY, Desk, Locked

pytestmark = pytest.mark.usefixtures("git_server")


async def _greeting(release: Installed) -> str:
    """Return what the release's own Python prints for its job."""
    assert release.programs is not None
    done = await processes.run(
        [str(release.programs / "python"), "greet.py"], environ={}, seconds=20, cwd=release.tree
    )
    assert done.code == 0, done.complaint
    return done.stdout.decode().strip()


def _no_network(desk: Desk) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        desk.environ[name] = desk.environ[name.lower()] = DEAD_PROXY


async def test_a_uv_lock_gets_its_environment(
    desk: Desk, repo_builder: Repo, locked: Locked
) -> None:
    """The locked package is there, for the agent's own Python, compiled and read-only."""
    repo_builder.release("v1.0", dict(locked.project))
    release = (await desk.obtain()).release
    assert await _greeting(release) == "3.10"
    assert release.programs == release.root / "env" / "bin"
    settings = (release.root / "env/pyvenv.cfg").read_text()
    assert f"{sys.version_info.major}.{sys.version_info.minor}." in settings
    (package,) = (release.root / "env").glob("lib/python*/site-packages/idna")
    assert list(package.glob("__pycache__/core.*.pyc"))
    assert (package / "core.py").stat().st_nlink == 1  # shared with neither the cache nor a release
    assert not (package / "core.py").stat().st_mode & 0o222


async def test_the_same_lock_needs_no_network_again(
    desk: Desk, repo_builder: Repo, locked: Locked
) -> None:
    """A later release with the same lock is installed from the cache while the network is unusable."""
    repo_builder.release("v1.0", dict(locked.project))
    await desk.run_well()
    _no_network(desk)
    repo_builder.release("v1.1", {"note.txt": "x"})
    obtained = await desk.obtain()
    assert (obtained.release.ref, obtained.stale) == ("v1.1", None)
    assert await _greeting(obtained.release) == "3.10"
    assert len(desk.told("release.cache_missed")) == 1


async def test_what_is_not_in_the_cache_cannot_be_had_without_a_network(
    desk: Desk, repo_builder: Repo, locked: Locked
) -> None:
    """Without cache and network the last good release runs, and the reason names the package."""
    repo_builder.release("v1.0", {"jobs.toml": '[[job]]\nname = "a"\ncommand = ["sh"]\n'})
    await desk.run_well()
    repo_builder.release("v2.0", dict(locked.project))
    _no_network(desk)
    desk.environ["UV_HTTP_RETRIES"] = "0"
    obtained = await desk.obtain()
    assert obtained.release.ref == "v1.0"
    assert obtained.stale is not None
    assert obtained.stale.reason.startswith("uv sync: ")
    assert "idna" in obtained.stale.reason


@pytest.mark.parametrize("damage", ["garbage", "hash"])
async def test_a_broken_lock_leaves_the_last_good_release(
    desk: Desk, repo_builder: Repo, locked: Locked, damage: str
) -> None:
    """A lock that is no lock, or whose hashes are others: refused with uv's reason."""
    repo_builder.release("v1.0", dict(locked.project))
    await desk.run_well()
    lines = locked.project["uv.lock"].splitlines(keepends=True)
    lock = "version = [" if damage == "garbage" else "".join(map(_with_other_hash, lines))
    desk.cache = desk.cache.with_name("cold")
    repo_builder.release("v2.0", {"uv.lock": lock})
    obtained = await desk.obtain()
    assert obtained.release.ref == "v1.0"
    assert obtained.stale is not None
    assert obtained.stale.reason.startswith("uv sync: ")
    assert await _greeting(obtained.release) == "3.10"


def _with_other_hash(line: str) -> str:
    before, mark, after = line.partition("sha256:")
    return f"{before}{mark}{'0' * 64}{after.lstrip('0123456789abcdef')}" if mark else line


async def test_requirements_with_hashes_are_the_other_form(
    desk: Desk, repo_builder: Repo, locked: Locked
) -> None:
    """`requirements.txt` with hashes gives the same environment; the second time from the cache."""
    files = {
        name: text for name, text in locked.project.items() if name.endswith((".py", "jobs.toml"))
    }
    repo_builder.release("v1.0", files | {"requirements.txt": locked.requirements})
    assert await _greeting((await desk.run_well()).release) == "3.10"
    _no_network(desk)
    repo_builder.release("v1.1", {"note.txt": "x"})
    release = (await desk.obtain()).release
    assert (release.ref, await _greeting(release)) == ("v1.1", "3.10")


async def test_requirements_without_hashes_are_refused(desk: Desk, repo_builder: Repo) -> None:
    """What is not pinned by a hash could be anything tomorrow; the error says how to make it right."""
    repo_builder.release(
        "v1.0",
        {
            "jobs.toml": '[[job]]\nname = "a"\ncommand = ["sh"]\n',
            "requirements.txt": "idna==3.10\nrequests\n",
        },
    )
    with pytest.raises(ReleaseError, match=r"no hashes for idna==3.10, requests") as caught:
        await desk.obtain()
    assert "--generate-hashes" in caught.value.with_remedy


async def test_requirements_with_a_wrong_hash_are_refused(
    desk: Desk, repo_builder: Repo, locked: Locked
) -> None:
    """A file that is not the one that was locked is not installed."""
    text = "".join(map(_with_other_hash, locked.requirements.splitlines(keepends=True)))
    repo_builder.release(
        "v1.0",
        {"jobs.toml": '[[job]]\nname = "a"\ncommand = ["sh"]\n', "requirements.txt": text},
    )
    with pytest.raises(ReleaseError, match=r"uv pip: .*[Hh]ash"):
        await desk.obtain()


async def test_a_python_that_is_not_here_is_a_reason(
    desk: Desk, repo_builder: Repo, locked: Locked
) -> None:
    """A release for a Python that this machine lacks does not run, and nothing is downloaded for it."""
    project = locked.project["pyproject.toml"].replace(">=3.11", ">=3.99")
    lock = locked.project["uv.lock"].replace(">=3.11", ">=3.99")
    repo_builder.release("v1.0", {**locked.project, "pyproject.toml": project, "uv.lock": lock})
    with pytest.raises(ReleaseError, match=r"uv sync: .*3\.99"):
        await desk.obtain()
    repo_builder.release("v1.1", {**locked.project, ".python-version": "3.98\n"})
    with pytest.raises(ReleaseError, match=r"uv venv: .*3\.98"):
        await desk.obtain()


async def test_time_for_installing_is_limited(
    desk: Desk, repo_builder: Repo, locked: Locked
) -> None:
    """An index that never answers costs `install_timeout`, not the run."""
    repo_builder.release("v1.0", dict(locked.project))
    with silent() as address:
        desk.environ |= {"HTTPS_PROXY": f"http://{address}", "https_proxy": f"http://{address}"}
        started = time.monotonic()
        with pytest.raises(ReleaseError, match="uv sync: no end within the time limit") as caught:
            await desk.obtain(install_timeout=4)
        assert time.monotonic() - started < 4 + 5
    assert "install_timeout" in caught.value.with_remedy


async def test_build_code_does_not_see_the_agents_secrets(
    desk: Desk, repo_builder: Repo, locked: Locked, tmp_path: Path
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
        await desk.obtain()
    assert "'PATH'" in canary.read_text()
    assert "never-passed-on" not in canary.read_text()


async def test_an_environment_whose_python_is_gone_is_made_again(
    desk: Desk, repo_builder: Repo, locked: Locked
) -> None:
    """After an upgrade of the system's Python took the old one away, the release is installed anew."""
    repo_builder.release("v1.0", dict(locked.project))
    release = (await desk.run_well()).release
    python = release.root / "env/bin/python"
    python.parent.chmod(0o755)
    python.unlink()
    python.symlink_to("/nowhere/python3")
    obtained = await desk.obtain()
    assert (obtained.stale, len(desk.told("release.installed"))) == (None, 2)
    assert await _greeting(obtained.release) == "3.10"


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
    ],
)
def test_requirements_without_a_hash_are_found(text: str, names: list[str]) -> None:
    """Continued lines belong together; comments do not count; options are not requirements."""
    assert unhashed(text) == names


@given(st.text())
def test_no_text_breaks_the_reading_of_requirements(text: str) -> None:
    """Whatever the file holds, what is named is in it."""
    assert all(name in text for name in unhashed(text))
