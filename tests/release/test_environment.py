"""A release's locked environment: from the cache first, from the network else, and never without hashes."""

import re
import sys
import time
from pathlib import Path

import pytest

from agent.base.errors import ReleaseError
from tests.parts.stalled import silent
from tests.release.conftest import JOBS, LOCKED_JOBS, Computer, Locked, greeting, reason_of


@pytest.mark.parametrize("lock", ["uv.lock", "requirements.txt", "Pipfile.lock", "poetry.lock"])
async def test_a_lock_gets_its_environment_and_needs_no_network_again(
    computer: Computer, locked: Locked, lock: str
) -> None:
    """For the agent's own Python, compiled and read-only; a later release with the same lock is made from the cache."""
    computer.publish("v1.0", locked.files[lock])
    obtained = await computer.run_well()
    release = obtained.release
    assert (await greeting(release), obtained.warnings) == ("3.10", ())
    assert release.programs == release.root / "env" / "bin"
    settings = (release.root / "env/pyvenv.cfg").read_text()
    assert f"{sys.version_info.major}.{sys.version_info.minor}." in settings
    (package,) = (release.root / "env").glob("lib/python*/site-packages/idna")
    assert list(package.glob("__pycache__/core.*.pyc"))
    assert (package / "core.py").stat().st_nlink == 1  # shared with neither the cache nor a release
    assert not (package / "core.py").stat().st_mode & 0o222
    computer.lose_the_network()
    computer.publish("v1.1", {"note.txt": "x"})
    obtained = await computer.obtain()
    assert (obtained.release.ref, obtained.stale) == ("v1.1", None)
    assert await greeting(obtained.release) == "3.10"
    assert len(computer.told("release.cache_missed")) == 1


@pytest.mark.parametrize(
    ("lock", "command"), [("uv.lock", "sync"), ("requirements.txt", "pip"), ("poetry.lock", "pip")]
)
async def test_a_wrong_hash_leaves_the_last_good_release(
    computer: Computer, locked: Locked, lock: str, command: str
) -> None:
    """A file that is not the one that was locked is not installed."""
    computer.cache = locked.cache
    await computer.ran("v1.0", locked.files[lock])
    computer.cache = computer.state.with_name("cold")
    forged = re.sub("sha256:[0-9a-f]+", f"sha256:{'0' * 64}", locked.files[lock][lock])
    computer.publish("v2.0", {lock: forged})
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    assert re.match(rf"uv {command}: .*[Hh]ash", reason_of(obtained))
    assert await greeting(obtained.release) == "3.10"


async def test_requirements_without_hashes_are_installed_and_told(
    computer: Computer, locked: Locked
) -> None:
    """With a warning in each run, also where the release is on the disk already; an UTF-16 file is read as well."""
    computer.repo.write("requirements.txt", "idna==3.10\n".encode("utf-16"))
    files = {name: locked.files["uv.lock"][name] for name in ("greet.py", "jobs.toml")}
    computer.publish("v1.0", files)
    for _ in range(2):
        obtained = await computer.run_well()
        assert await greeting(obtained.release) == "3.10"
        (warning,) = obtained.warnings
        assert warning.startswith("requirements.txt has no hashes for idna==3.10: another day")


async def test_signed_releases_are_held_to_hashes(signed: Computer) -> None:
    """What runs must be what was signed: without hashes it could be anything tomorrow."""
    signed.publish("v1.0", {"jobs.toml": JOBS, "requirements.txt": "idna==3.10\n"})
    with pytest.raises(ReleaseError, match=r"no hashes for idna==3.10, and releases are signed"):
        await signed.obtain()


async def test_a_lock_beside_the_jobs_file_counts(computer: Computer, locked: Locked) -> None:
    """`release.jobs` in a folder: its neighbour is its lock; programs work in the release's folder all the same."""
    computer.cache = locked.cache
    files = {f"sub/{name}": text for name, text in locked.files["uv.lock"].items()}
    computer.publish("v1.0", {"greet.py": files.pop("sub/greet.py"), **files})
    release = (await computer.obtain(jobs="sub/jobs.toml")).release
    assert await greeting(release) == "3.10"


@pytest.mark.parametrize("lock", [True, False])
async def test_a_build_that_asks_git_for_its_version_is_told_the_tags(
    computer: Computer, *, lock: bool
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
    computer.publish("v1.2-rc.1", files | ({"uv.lock": locked} if lock else {}))
    obtained = await computer.obtain(track="v*rc*")
    assert await greeting(obtained.release) == "1.2rc1"
    assert len(obtained.warnings) == (0 if lock else 1)


async def test_a_release_of_containers_needs_no_environment(computer: Computer) -> None:
    """What its images carry is theirs: no file of Python keeps it from running."""
    files = {
        "requirements.txt": "selenium==4.9.1\n",
        "poetry.lock": "[[",
        "uv.lock": 'version = 1\nrequires-python = ">=3.99"\n',
    }
    for number in range(len(files)):  # the one that counts most comes last
        some = dict(list(files.items())[: number + 1])
        jobs = '[[job]]\nname = "a"\nimage = "x:1"\n'
        computer.publish(f"v1.{number}", {"jobs.toml": jobs, **some})
        obtained = await computer.obtain()
        assert obtained.release.ref == f"v1.{number}"
        assert (obtained.release.programs, obtained.warnings) == (None, ())


async def test_time_for_installing_is_limited(computer: Computer, locked: Locked) -> None:
    """An index that never answers costs `install_timeout`, not the run."""
    computer.publish("v1.0", locked.files["uv.lock"])
    with silent() as address:
        computer.environ |= {"HTTPS_PROXY": f"http://{address}", "https_proxy": f"http://{address}"}
        started = time.monotonic()
        with pytest.raises(ReleaseError, match="uv sync: no end within the time limit") as caught:
            await computer.obtain(install_timeout=4)
        assert time.monotonic() - started < 4 + 60
    assert "install_timeout" in caught.value.with_remedy


async def test_build_code_does_not_see_the_agents_secrets(
    computer: Computer, locked: Locked, tmp_path: Path
) -> None:
    """A release that is a package runs its own build backend: with proxies and paths, without secrets."""
    canary = tmp_path / "environment"
    files = locked.files["uv.lock"]
    backend = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n\n'
    project = files["pyproject.toml"].replace("package = false", "package = true")
    computer.publish(
        "v1.0",
        {
            **files,
            "pyproject.toml": project.replace("[tool.uv]", f"{backend}[tool.uv]"),
            "uv.lock": files["uv.lock"].replace('virtual = "."', 'editable = "."'),
            "backend.py": f"import os\nopen({str(canary)!r}, 'w').write(repr(dict(os.environ)))\n"
            "raise SystemExit('no build today')\n",
        },
    )
    with pytest.raises(ReleaseError, match=r"uv sync: "):
        await computer.obtain()
    assert "'PATH'" in canary.read_text()
    assert "never-passed-on" not in canary.read_text()


async def test_an_environment_whose_python_is_gone_is_made_again(
    computer: Computer, locked: Locked
) -> None:
    """After an upgrade of the system's Python took the old one away, the release is installed anew."""
    computer.cache = locked.cache
    computer.publish("v1.0", locked.files["uv.lock"])
    release = (await computer.run_well()).release
    python = release.root / "env/bin/python"
    python.parent.chmod(0o755)
    python.unlink()
    python.symlink_to("/nowhere/python3")
    obtained = await computer.obtain()
    assert (obtained.stale, len(computer.told("release.installed"))) == (None, 2)
    assert await greeting(obtained.release) == "3.10"
