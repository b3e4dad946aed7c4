"""`mayfly release new`: what goes wrong is said with what is left to do."""

from pathlib import Path

import pytest

from agent.base.errors import ReleaseError
from agent.release.publish import Plan, publish
from tests.parts.repo import GIT_ENVIRON, Repo, Signer
from tests.release.conftest import JOBS, VERSION


async def test_a_push_that_fails_leaves_the_tag_and_says_how_to_push_it(
    repo_builder: Repo, ada: Signer, environ: dict[str, str]
) -> None:
    """Taking the next number would be wrong: the tag is made, signed and verified."""
    repo_builder.write("jobs.toml", JOBS)
    repo_builder.commit()
    repo_builder.git("remote", "set-url", "origin", "/nonexistent")
    plan = Plan(repo_builder.work, "v1.0", "jobs.toml", "v*", key=str(ada.key), remote="origin")
    with pytest.raises(ReleaseError, match=r"git push: .*nonexistent") as caught:
        await publish(plan, environ={**environ, **GIT_ENVIRON}, version=VERSION)
    assert caught.value.remedy.endswith("git push origin v1.0")
    assert repo_builder.git("tag", "--list") == "v1.0"


async def test_a_folder_without_a_repository_is_named_by_git(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """With the command that failed."""
    with pytest.raises(ReleaseError, match=r"git rev-parse: .*not a git repository"):
        await publish(Plan(tmp_path, "v1.0", "jobs.toml", "v*"), environ=environ, version=VERSION)
