"""Packages of a release out of an index that wants a login: right, wrong, expired, revoked, and seen by nobody."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.base.errors import ReleaseError
from agent.config.settings import Index, Settings
from agent.secrets.keyring import Keyring
from tests.parts.private_index import PACKAGE, USER, PrivateIndex, lock
from tests.release.conftest import LOCKED_JOBS, Computer, greeting, reason_of

PASSWORD = "cAnary-index-password-77"
GREET = f"import {PACKAGE}\nprint({PACKAGE}.VERSION)\n"


def release_of(version: str, index: PrivateIndex, folder: Path) -> dict[str, str]:
    """Return the files of a release that has the package in this version."""
    folder.mkdir()
    return {**lock(version, index, folder, PASSWORD), "jobs.toml": LOCKED_JOBS, "greet.py": GREET}


@pytest.fixture
def index(tmp_path: Path, computer: Computer) -> Iterator[PrivateIndex]:
    """An index with two versions of a package, and an agent that knows the login."""
    with PrivateIndex("1.0", "2.0") as server:
        server.admit(PASSWORD)
        login(computer, tmp_path, PASSWORD)
        computer.environ["UV_HTTP_RETRIES"] = "0"
        yield server


def login(computer: Computer, folder: Path, password: str) -> None:
    """Have the agent know this login."""
    file = folder / "index-login"
    file.write_text(f"username={USER}\npassword={password}\n")
    file.chmod(0o600)
    computer.index = {"team-index": Index(credentials=str(file))}


async def test_a_private_package_is_installed_and_its_login_is_nowhere(
    computer: Computer, index: PrivateIndex, tmp_path: Path
) -> None:
    """In no file of release, environment, cache or state, no log line, and no environment of a job."""
    computer.publish("v1.0", release_of("1.0", index, tmp_path / "one"))
    obtained = await computer.run_well()
    assert await greeting(obtained.release) == "1.0"
    assert any(path.endswith(".whl") for path in index.requests)
    files = [file for root in (computer.state, computer.cache) for file in root.rglob("*")]
    found = [file for file in files if file.is_file() and PASSWORD.encode() in file.read_bytes()]
    assert found == []
    assert PASSWORD not in repr(computer.events) + repr(obtained)


@pytest.mark.parametrize("change", ["revoked", "expired", "wrong"])
async def test_a_login_that_no_longer_opens_the_index_leaves_the_last_good_release(
    computer: Computer, index: PrivateIndex, tmp_path: Path, change: str
) -> None:
    """It says so in words, and shows no password; uv tells a status, not what an index says beside it."""
    await computer.ran("v1.0", release_of("1.0", index, tmp_path / "one"))
    computer.publish("v2.0", release_of("2.0", index, tmp_path / "two"))
    if change == "wrong":
        login(computer, tmp_path, "wr0ng-wr0ng")
    else:
        index.admit("another")
        index.refusal = 401 if change == "revoked" else 403
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    assert "the index denied access" in reason_of(obtained)
    assert PASSWORD not in reason_of(obtained) + repr(computer.events)


async def test_a_login_that_cannot_be_read_is_said(
    computer: Computer, index: PrivateIndex, tmp_path: Path
) -> None:
    """Before uv asks the index."""
    computer.publish("v1.0", release_of("1.0", index, tmp_path / "one"))
    (tmp_path / "index-login").unlink()
    with pytest.raises(ReleaseError, match=r"no login to an index: .* cannot be read"):
        await computer.obtain()


async def test_the_login_is_read_from_ssm(
    aws: dict[str, str], parameters: Callable[..., None]
) -> None:
    """As uv wants it: the index's name in capitals, with underscores."""
    parameters("/private/index", username=USER, password=PASSWORD)
    settings = Settings.model_validate(
        {"index": {"team-index.v2": {"credentials": "ssm:/private/index"}}}
    )
    assert await Keyring(settings, aws).indexes() == {
        "UV_INDEX_TEAM_INDEX_V2_USERNAME": USER,
        "UV_INDEX_TEAM_INDEX_V2_PASSWORD": PASSWORD,
    }
