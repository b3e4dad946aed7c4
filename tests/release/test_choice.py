"""Which release is obtained: the newest, and the last good one when that cannot be had."""

from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import ReleaseError
from agent.release.operate import pin, unpin
from tests.parts.gitserver import GitServer
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.release.conftest import JOBS, START, Computer, reason_of


async def test_the_newest_tag_is_installed_once(computer: Computer, git_server: GitServer) -> None:
    """As committed, with its jobs, its origin and its time; the next run takes it from the disk, proved or not."""
    computer.publish("v1.9", {"jobs.toml": JOBS, "greet.sh": "echo old"})
    commit = computer.publish("v1.10", {"greet.sh": "echo new"})
    computer.repository = git_server.url()
    obtained = await computer.obtain()
    release = obtained.release
    assert (release.ref, release.commit, release.marker.fetched) == ("v1.10", commit, computer.now)
    assert release.marker.repository == git_server.url()
    assert (release.tree / "greet.sh").read_text() == "echo new"
    assert [job.name for job in release.jobs.job] == ["greet"]
    assert (release.programs, obtained.stale, obtained.warnings) == (None, None, ())
    assert (await computer.obtain()).release == release
    for event in ("release.fetched", "release.exported", "release.installed"):
        assert [each["seconds"] >= 0 for each in computer.told(event)] == [True], event
    assert computer.told("release.wanted")[0]["seconds"] >= 0


async def test_a_branch_is_followed(computer: Computer) -> None:
    """With `branch` its head runs, tags or not, also after it was forced back."""
    computer.settings["branch"] = "main"
    first = computer.commit({"jobs.toml": JOBS})
    assert (await computer.run_well()).release.commit == first
    second = computer.commit({})
    assert (await computer.run_well()).release.commit == second
    computer.git("reset", "--quiet", "--hard", first)
    back = await computer.run_well()
    assert (back.release.commit, back.stale, back.warnings) == (first, None, ())


async def test_only_what_is_the_pattern_and_a_version_counts(computer: Computer) -> None:
    """A candidate runs only for those who track candidates, and other tags that begin alike for nobody."""
    computer.publish("v1.0")
    for tag in (
        *("v2.0-rc1", "v1.1.0rc1", "vps-backup-20250101", "vendor/libfoo-99.1", "v99-snapshot"),
        "scrapers/v0.9",
    ):
        computer.publish(tag, {"other": tag})
    for track, ref in {
        None: "v1.0",
        "v*-rc*": "v2.0-rc1",
        "v*rc*": "v2.0-rc1",
        "scrapers/v*": "scrapers/v0.9",
    }.items():
        assert (await computer.obtain(track=track)).release.ref == ref, track


async def test_a_release_takes_the_place_of_its_candidate(computer: Computer) -> None:
    """`v1.1.0` is newer than `v1.1.0rc1`, which ran because an operator had pinned it."""
    computer.publish("v1.1.0rc1")
    await computer.decide(pin, "v1.1.0rc1", "")
    assert (await computer.run_well()).release.ref == "v1.1.0rc1"
    await computer.decide(unpin, "")
    computer.publish("v1.1.0", {"final": "x"})
    obtained = await computer.run_well()
    assert (obtained.release.ref, obtained.warnings) == ("v1.1.0", ())


async def test_lightweight_and_annotated_tags_are_the_same_release(computer: Computer) -> None:
    """One commit under two tags is installed once, and goes by the newer name."""
    commit = await computer.ran("v1.0")
    computer.git("tag", "v1.1")
    release = (await computer.run_well()).release
    assert (release.ref, release.commit, computer.good) == ("v1.1", commit, commit)
    assert len(computer.told("release.installed")) == 1


async def test_a_moved_tag_is_told_until_it_is_installed(computer: Computer) -> None:
    """It does not break fetching; the warning names both commits, in each run until the new one runs."""
    before = await computer.ran("v1.0")
    computer.commit({"jobs.toml": "broken"})
    computer.move("v1.0")
    for _ in range(2):
        obtained = await computer.obtain()
        assert (obtained.stale is not None, len(obtained.warnings)) == (True, 1)
    computer.commit({"jobs.toml": JOBS})
    after = computer.move("v1.0")
    moved = await computer.run_well()
    assert (moved.release.commit, moved.stale) == (after, None)
    (warning,) = moved.warnings
    assert before[:12] in warning
    assert after[:12] in warning
    assert (await computer.run_well()).warnings == ()


async def test_without_the_repository_the_last_good_release_runs(computer: Computer) -> None:
    """With its age and the reason; by a clock that went back it is as old as zero seconds."""
    await computer.ran("v1.0")
    good = (await computer.obtain()).release
    computer.repository += "-gone"
    obtained = await computer.obtain()
    assert obtained.release == good
    assert obtained.stale is not None
    assert (obtained.stale.wanted, obtained.stale.age_seconds) == ("v*", 7200.0)
    assert reason_of(obtained).startswith("not found: git ls-remote")
    assert computer.told("release.stale")[0]["ref"] == "v1.0"
    computer.now = START.replace(year=2020)
    stale = (await computer.obtain()).stale
    assert stale is not None
    assert stale.age_seconds == 0


@pytest.mark.parametrize(
    ("settings", "problem", "remedy"),
    [
        ({"repository": "/gone.git"}, "there is no earlier one", "release.repository"),
        ({"track": "w*"}, r'scrapers.git has no tag.*"w\*"', "push one"),
        ({"branch": "dev"}, 'scrapers.git has no branch.*"dev"', "push one"),
    ],
)
async def test_nothing_to_fall_back_to_is_an_error_with_a_remedy(
    computer: Computer, settings: dict[str, str], problem: str, remedy: str
) -> None:
    """On a first run: what is not there is named with the repository."""
    computer.publish("v1.0")
    with pytest.raises(ReleaseError, match=problem) as caught:
        await computer.obtain(**settings)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("settings", "problem", "remedy"),
    [
        ({"repository": None}, "repository", "release.repository"),
        ({"repository": "ext::sh -c id"}, "repository", "https"),
        ({"repository": "git://example.com/x"}, "repository", "https"),
        # What is wanted is the last good one: one reason, once.
        ({"jobs": "other.toml"}, r"rejected \(it has no other\.toml \(add one[^;]*$", ""),
        # It is checked again; both reasons.
        (
            {"repository": "/gone.git", "version": "0.0.9"},
            "not found.*which was good before.*needs mayfly >= 0.1",
            "",
        ),
    ],
    ids=["none", "a program", "a protocol", "the same release", "an older agent"],
)
async def test_no_good_release_hides_what_keeps_all_from_running(
    computer: Computer, settings: dict[str, Any], problem: str, remedy: str
) -> None:
    """A configuration that names no repository, or what this agent can run of none."""
    await computer.ran("v1.0", {"jobs.toml": f'requires = "mayfly >= 0.1"\n{JOBS}'})
    with pytest.raises(ReleaseError, match=problem) as caught:
        await computer.obtain(**settings)
    assert remedy in caught.value.remedy


async def test_an_older_agent_refuses_a_newer_release_and_runs_the_last_good(
    computer: Computer,
) -> None:
    """`requires` above this agent's version is one clear sentence, and the day's files still come."""
    await computer.ran("v1.0")
    computer.publish("v2.0", {"jobs.toml": f'requires = "mayfly >= 9"\nfuture = 1\n{JOBS}'})
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    assert obtained.stale is not None
    assert obtained.stale.wanted == "v2.0"
    assert "it needs mayfly >= 9 and this is 0.2.0" in obtained.stale.reason
    assert "unknown key" not in obtained.stale.reason


async def test_credentials_reach_the_server_and_nothing_else(
    computer: Computer, capfd: pytest.CaptureFixture[str]
) -> None:
    """A password in the repository's URL opens it, and is in no file, log line or manifest value."""
    computer.publish("v1.0")
    secret = "pä55wörd/+ %"
    with GitServer(computer.repo.bare.parent, user="me", password=secret) as server:
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
        assert not any(word in text for word in (secret, quoted, "wr0ng"))


async def test_credentials_do_not_follow_a_redirect_to_another_server(computer: Computer) -> None:
    """A password is for the configured server alone: one that it redirects to, and that asks, gets none."""
    computer.publish("v1.0")
    with GitServer(computer.repo.bare.parent, user="me", password="secret1") as server:

        class Redirect(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
                self.answer(302, headers={"Location": f"{server.base_url}{self.path}"})

        with LoopbackHttp(Redirect) as redirect:
            computer.repository = f"http://me:secret1@127.0.0.1:{redirect.port}/scrapers.git"
            with pytest.raises(ReleaseError, match="refused: git ls-remote"):
                await computer.obtain()
        assert server.requests


async def test_the_users_git_settings_do_not_count(
    computer: Computer, git_server: GitServer
) -> None:
    """Neither a `.gitconfig` at home nor git's variables send the agent to another repository."""
    computer.publish("v1.0")
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


async def test_a_branch_that_moves_while_it_is_fetched_runs_as_it_arrived(
    computer: Computer, git_server: GitServer
) -> None:
    """Between the look and the fetch another commit is pushed: that one is installed, whole, under its own name."""
    repo = computer.repo
    looked_at = computer.commit({"jobs.toml": JOBS})
    repo.write("newer", "x")
    newer = repo.commit()

    class PushBeforeTheFetch(list[tuple[str, str]]):
        def append(self, request: tuple[str, str]) -> None:
            super().append(request)
            if [method for method, _ in self] == ["GET", "POST", "GET"]:
                repo.push()

    git_server.requests = PushBeforeTheFetch()
    computer.repository = git_server.url()
    release = (await computer.obtain(branch="main")).release
    assert computer.told("release.wanted")[0]["commit"] == looked_at
    assert release.commit == release.root.name == newer
    assert (release.tree / "newer").exists()
    # Once more: what is looked at is new, and what arrives is on disk already.
    computer.git("commit", "--quiet", "--allow-empty", "--message", "Withdrawn")
    repo.git("reset", "--quiet", "--hard", newer)
    git_server.requests = PushBeforeTheFetch()
    assert (await computer.obtain(branch="main")).release == release
    assert computer.told("release.wanted")[1]["commit"] != newer
    assert len(computer.told("release.installed")) == 1
