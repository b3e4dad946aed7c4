"""Which release is obtained: the newest, and the last good one when that cannot be had."""

from pathlib import Path

import pytest

from agent.base.errors import ReleaseError
from agent.release.operate import pin, unpin
from tests.parts.certificate import make_certificate
from tests.parts.gitserver import GitServer
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.repo import Repo
from tests.release.conftest import JOBS, START, Computer, reason_of

pytestmark = pytest.mark.usefixtures("git_server")


async def test_the_newest_tag_is_installed_and_logged(
    computer: Computer, repo_builder: Repo
) -> None:
    """Of two tags the newer is on disk as committed, with its jobs, its origin and its time."""
    repo_builder.release("v1.9", {"jobs.toml": JOBS, "greet.sh": "echo old"})
    commit = repo_builder.release("v1.10", {"greet.sh": "echo new"})
    obtained = await computer.obtain()
    release = obtained.release
    assert (release.ref, release.commit, release.marker.repository) == (
        "v1.10",
        commit,
        str(repo_builder.bare),
    )
    assert (release.tree / "greet.sh").read_text() == "echo new"
    assert [job.name for job in release.jobs.job] == ["greet"]
    assert release.marker.fetched == computer.now
    assert release.programs is None
    assert (obtained.stale, obtained.warnings) == (None, ())
    for event in ("release.wanted", "release.fetched", "release.exported", "release.installed"):
        assert computer.told(event)[0]["seconds"] >= 0


async def test_what_is_on_disk_is_not_fetched_again(
    computer: Computer, repo_builder: Repo, git_server: GitServer
) -> None:
    """Not even if it never proved itself: one request is enough, and the first time of fetching stands."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    computer.repository = git_server.url()
    first = (await computer.obtain()).release
    before = len(git_server.requests)
    second = (await computer.obtain()).release
    assert second == first
    asked = git_server.requests[before:]
    assert all("git-receive" not in path for _, path in asked)
    assert not computer.told("release.fetched")[1:]
    assert not computer.told("release.installed")[1:]


async def test_a_branch_is_followed(computer: Computer, repo_builder: Repo) -> None:
    """With `branch` its head runs, tags or not, also after it was forced back."""
    repo_builder.write("jobs.toml", JOBS)
    first = repo_builder.commit()
    repo_builder.push()
    assert (await computer.run_well(branch="main")).release.commit == first
    second = repo_builder.commit()
    repo_builder.push()
    assert (await computer.run_well(branch="main")).release.commit == second
    repo_builder.git("reset", "--quiet", "--hard", first)
    repo_builder.push()
    back = await computer.run_well(branch="main")
    assert (back.release.commit, back.stale, back.warnings) == (first, None, ())


async def test_a_prerelease_is_not_taken_unasked(computer: Computer, repo_builder: Repo) -> None:
    """`v2.0-rc1` runs only for those who track candidates."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    repo_builder.release("v2.0-rc1", {"new": "x"})
    repo_builder.release("v1.1.0rc1", {"newer": "x"})
    assert (await computer.obtain()).release.ref == "v1.0"
    assert (await computer.obtain(track="v*-rc*")).release.ref == "v2.0-rc1"
    assert (await computer.run_well(track="v*rc*")).release.ref == "v2.0-rc1"


async def test_a_release_takes_the_place_of_its_candidate(
    computer: Computer, repo_builder: Repo
) -> None:
    """`v1.1.0` is newer than `v1.1.0rc1`, which ran because an operator had pinned it."""
    repo_builder.release("v1.1.0rc1", {"jobs.toml": JOBS})
    await computer.decide(pin, "v1.1.0rc1", "")
    assert (await computer.run_well()).release.ref == "v1.1.0rc1"
    await computer.decide(unpin, "")
    repo_builder.release("v1.1.0", {"final": "x"})
    obtained = await computer.run_well()
    assert (obtained.release.ref, obtained.warnings) == ("v1.1.0", ())


async def test_other_tags_that_begin_alike_are_no_releases(
    computer: Computer, repo_builder: Repo
) -> None:
    """Only what is the pattern and a version counts, however large the number in another name."""
    commit = repo_builder.release("v1.0", {"jobs.toml": JOBS})
    for name in ("vps-backup-20250101", "vendor/libfoo-99.1", "v99-snapshot"):
        repo_builder.release(name, {"other": name})
    assert (await computer.obtain()).release.commit == commit
    named = repo_builder.release("scrapers/v0.9", {"named": "x"})
    assert (await computer.obtain(track="scrapers/v*")).release.commit == named


async def test_lightweight_and_annotated_tags_are_the_same_release(
    computer: Computer, repo_builder: Repo
) -> None:
    """One commit under two tags is installed once, and goes by the newer name."""
    commit = await computer.ran(repo_builder, "v1.0")
    repo_builder.tag("v1.1", annotated=False)
    repo_builder.push()
    obtained = await computer.run_well()
    assert (obtained.release.ref, obtained.release.commit) == ("v1.1", commit)
    assert len(computer.told("release.installed")) == 1
    assert computer.good == obtained.release.commit


async def test_a_moved_tag_runs_and_is_told_once(computer: Computer, repo_builder: Repo) -> None:
    """A tag forced to another commit does not break fetching; the warning names both commits."""
    before = await computer.ran(repo_builder, "v1.0")
    repo_builder.write("more", "x")
    repo_builder.commit()
    after = repo_builder.tag("v1.0", force=True)
    repo_builder.push()
    moved = await computer.run_well()
    assert moved.release.commit == after
    assert moved.stale is None
    (warning,) = moved.warnings
    assert before[:12] in warning
    assert after[:12] in warning
    assert (await computer.run_well()).warnings == ()


async def test_a_moved_tag_is_told_until_it_is_installed(
    computer: Computer, repo_builder: Repo
) -> None:
    """While what the tag was moved to cannot run, every run says so."""
    await computer.ran(repo_builder, "v1.0")
    repo_builder.write("jobs.toml", "broken")
    repo_builder.commit()
    repo_builder.tag("v1.0", force=True)
    repo_builder.push()
    for _ in range(2):
        obtained = await computer.obtain()
        assert obtained.stale is not None
        assert len(obtained.warnings) == 1


async def test_without_the_repository_the_last_good_release_runs(
    computer: Computer, repo_builder: Repo
) -> None:
    """A repository that is gone leaves the last good release, with its age and the reason."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    good = (await computer.run_well()).release
    repo_builder.bare.rename(repo_builder.bare.with_name("elsewhere"))
    obtained = await computer.obtain()
    assert obtained.release == good
    assert obtained.stale is not None
    assert (obtained.stale.wanted, obtained.stale.age_seconds) == ("v*", 3600.0)
    assert obtained.stale.reason.startswith("not found: git ls-remote")
    assert computer.told("release.stale")[0]["ref"] == "v1.0"


async def test_without_any_good_release_the_reason_is_an_error(computer: Computer) -> None:
    """On a first run there is nothing to fall back to: the error says what is wrong and what to do."""
    computer.repository += "-gone"
    with pytest.raises(ReleaseError, match="and there is no earlier one") as caught:
        await computer.obtain()
    assert "release.repository" in caught.value.remedy


@pytest.mark.parametrize("settings", [{"track": "w*"}, {"branch": "dev"}])
async def test_nothing_that_matches_is_said_plainly(
    computer: Computer, repo_builder: Repo, settings: dict[str, str]
) -> None:
    """A pattern without a tag, or a branch that is not there, is named with the repository."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    with pytest.raises(ReleaseError, match=r'scrapers.git has no (tag|branch).*"(w\*|dev)"'):
        await computer.obtain(**settings)


@pytest.mark.parametrize("repository", [None, "ext::sh -c id", "git://example.com/x"])
async def test_a_repository_that_cannot_be_one_is_a_configuration_error(
    computer: Computer, repo_builder: Repo, repository: str | None
) -> None:
    """No good release hides a configuration that names no repository."""
    await computer.ran(repo_builder, "v1.0")
    with pytest.raises(ReleaseError, match="repository") as caught:
        await computer.obtain(repository=repository)
    assert caught.value.remedy


async def test_credentials_reach_the_server_and_nothing_else(
    computer: Computer, repo_builder: Repo, capfd: pytest.CaptureFixture[str]
) -> None:
    """A password in the repository's URL opens it, and is in no file, log line or manifest value."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    secret = "pä55wörd/+ %"
    with GitServer(repo_builder.bare.parent, user="me", password=secret) as server:
        quoted = "p%C3%A455w%C3%B6rd%2F%2B%20%25"
        computer.repository = server.url().replace("http://", f"http://me:{quoted}@")
        release = (await computer.run_well()).release
        assert release.marker.repository == server.url()
        computer.repository = server.url().replace("http://", "http://me:wr0ngwr0ng@")
        refused = await computer.obtain()
    assert reason_of(refused).startswith("refused: git ls-remote")
    everything = [repr(computer.events), repr(refused), "".join(capfd.readouterr())]
    everything += [
        file.read_text(errors="replace") for file in computer.state.rglob("*") if file.is_file()
    ]
    for text in everything:
        assert secret not in text
        assert quoted not in text
        assert "wr0ng" not in text


async def test_credentials_do_not_follow_a_redirect_to_another_server(
    computer: Computer, repo_builder: Repo
) -> None:
    """A password is for the configured server alone: one that it redirects to, and that asks, gets none."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    with GitServer(repo_builder.bare.parent, user="me", password="secret1") as server:

        class Redirect(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
                self.answer(302, headers={"Location": f"{server.base_url}{self.path}"})

        with LoopbackHttp(Redirect) as redirect:
            computer.repository = f"http://me:secret1@127.0.0.1:{redirect.port}/scrapers.git"
            with pytest.raises(ReleaseError, match="refused: git ls-remote"):
                await computer.obtain()
        assert server.requests


async def test_the_users_git_settings_do_not_count(
    computer: Computer, repo_builder: Repo, git_server: GitServer
) -> None:
    """Neither a `.gitconfig` at home nor git's variables send the agent to another repository."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    computer.repository = git_server.url()
    elsewhere = '[url "http://127.0.0.1:9/"]\n\tinsteadOf = http://127.0.0.1\n'
    Path(computer.environ["HOME"], ".gitconfig").write_text(elsewhere)
    computer.environ |= {
        "GIT_DIR": "/nowhere",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "url.http://127.0.0.1:9/.insteadOf",
        "GIT_CONFIG_VALUE_0": "http://127.0.0.1",
    }
    assert (await computer.obtain()).release.ref == "v1.0"


async def test_https_is_trusted_by_the_certificates_of_the_environment(
    computer: Computer, repo_builder: Repo
) -> None:
    """A private authority named in `GIT_SSL_CAINFO` is believed; without it the server is refused."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    certificate = make_certificate(computer.state.parent)
    with GitServer(repo_builder.bare.parent, certificate=certificate) as server:
        computer.repository = server.url()
        with pytest.raises(ReleaseError, match=r"refused: git ls-remote.*certificate"):
            await computer.obtain()
        computer.environ["GIT_SSL_CAINFO"] = str(certificate.file)
        assert (await computer.obtain()).release.ref == "v1.0"


async def test_an_older_agent_refuses_a_newer_release_and_runs_the_last_good(
    computer: Computer, repo_builder: Repo
) -> None:
    """`requires` above this agent's version is one clear sentence, and the day's files still come."""
    await computer.ran(repo_builder, "v1.0")
    repo_builder.release("v2.0", {"jobs.toml": f'requires = "mayfly >= 9"\nfuture = 1\n{JOBS}'})
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    assert obtained.stale is not None
    assert obtained.stale.wanted == "v2.0"
    assert "it needs mayfly >= 9 and this is 0.2.0" in obtained.stale.reason
    assert "unknown key" not in obtained.stale.reason


async def test_the_last_good_release_is_checked_again(
    computer: Computer, repo_builder: Repo
) -> None:
    """An agent that cannot run the last good release either says so, with both reasons."""
    repo_builder.release("v1.0", {"jobs.toml": f'requires = "mayfly >= 0.1"\n{JOBS}'})
    await computer.run_well()
    computer.repository += "-gone"
    with pytest.raises(
        ReleaseError, match=r"not found.*which was good before.*needs mayfly >= 0.1"
    ):
        await computer.obtain(version="0.0.9")


async def test_one_reason_is_said_once(computer: Computer, repo_builder: Repo) -> None:
    """When the newest release is the last good one and cannot run, the reason is not repeated."""
    await computer.ran(repo_builder, "v1.0")
    with pytest.raises(ReleaseError, match=r"rejected \(it has no other\.toml \(add one[^;]*$"):
        await computer.obtain(jobs="other.toml")


async def test_a_clock_that_went_back_gives_no_negative_age(
    computer: Computer, repo_builder: Repo
) -> None:
    """A release from the future is as old as zero seconds."""
    await computer.ran(repo_builder, "v1.0")
    computer.repository += "-gone"
    computer.now = START.replace(year=2020)
    stale = (await computer.obtain()).stale
    assert stale is not None
    assert stale.age_seconds == 0


async def test_a_branch_that_moves_while_it_is_fetched_runs_as_it_arrived(
    computer: Computer, repo_builder: Repo, git_server: GitServer
) -> None:
    """Between the look and the fetch another commit is pushed: that one is installed, whole, under its own name."""
    repo_builder.write("jobs.toml", JOBS)
    looked_at = repo_builder.commit()
    repo_builder.push()
    repo_builder.write("newer", "x")
    newer = repo_builder.commit()

    class PushBeforeTheFetch(list[tuple[str, str]]):
        def append(self, request: tuple[str, str]) -> None:
            super().append(request)
            if [method for method, _ in self] == ["GET", "POST", "GET"]:
                repo_builder.push()

    git_server.requests = PushBeforeTheFetch()
    computer.repository = git_server.url()
    release = (await computer.obtain(branch="main")).release
    assert computer.told("release.wanted")[0]["commit"] == looked_at
    assert release.commit == release.root.name == newer
    assert (release.tree / "newer").exists()
    # Once more: what is looked at is new, and what arrives is on disk already.
    repo_builder.git("commit", "--quiet", "--allow-empty", "--message", "Withdrawn")
    repo_builder.push()
    repo_builder.git("reset", "--quiet", "--hard", newer)
    git_server.requests = PushBeforeTheFetch()
    assert (await computer.obtain(branch="main")).release == release
    assert computer.told("release.wanted")[1]["commit"] != newer
    assert len(computer.told("release.installed")) == 1
