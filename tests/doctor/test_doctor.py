"""The doctor: the parts on this computer, and what is made of the findings."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import __version__
from agent.base.errors import ExitCode, StoreError
from agent.config.faults import Fault
from agent.config.jobsfile import parse_jobs
from agent.config.settings import Settings
from agent.doctor.examine import Check, Finding, Installation, State, examine, failed, ok, skipped
from agent.doctor.report import as_data, as_lines, exit_code
from agent.release.context import ReleaseContext
from agent.release.memory import Memory, Writer
from agent.release.obtain import obtain
from agent.release.store import ReleaseStore, good_of
from tests.doctor.installations import Ask, ask
from tests.parts.command import script
from tests.parts.compose import with_plugin
from tests.parts.docker_engine import DockerEngine
from tests.parts.gitserver import GitServer
from tests.parts.repo import Repo

JOBS = '[[job]]\nname = "quotes"\ncommand = ["true"]\n'


async def test_faults_of_the_configuration_are_all_shown(installation: Ask) -> None:
    """The doctor examines the rest with defaults, and shows every fault."""
    faults = (Fault("agent.toml", "a", "unknown key"), Fault("agent.toml", "b", "unknown key"))
    finding = await ask("configuration", replace(installation(), faults=faults))
    assert finding.state is State.FAILED
    assert len(finding.detail.splitlines()) == 2


@pytest.mark.parametrize(
    ("check", "section"), [("registries", "registry"), ("package indexes", "index")]
)
async def test_all_logins_that_cannot_be_read_are_told_at_once(
    check: str, section: str, installation: Ask, tmp_path: Path
) -> None:
    """Whoever mends the first need not find the second with another attempt."""
    who = installation()
    entries = {name: {"credentials": str(tmp_path / name)} for name in ("first", "second")}
    settings = Settings.model_validate({section: entries})
    finding = await ask(check, replace(who, settings=settings))
    assert finding.state is State.FAILED
    lines = finding.detail.splitlines()
    assert [line.split(":")[0] for line in lines] == ["first", "second"], lines


async def test_the_jobs_of_the_last_good_release_are_checked(
    installation: Ask, repo_builder: Repo, git_server: GitServer
) -> None:
    """A release that ran is named; one that is damaged since then is a failure."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    who = installation(f"release.repository={git_server.url()}")
    release_store = ReleaseStore.at(who.places.state, who.places.cache)
    now = datetime.now(UTC)
    writer = Writer("20261122T180000Z-3f9a1c", "test", now)
    memory = Memory("v*", writer, copy=release_store.copy, now=lambda: now, log=who.log)
    obtained = await obtain(
        ReleaseContext(
            settings=who.settings.release,
            release_store=release_store,
            memory=memory,
            environ=who.environ,
            version=__version__,
            now=datetime.now(UTC),
            log=who.log,
        )
    )
    memory.learn(good=good_of(obtained.release))
    assert "last good release v1.0, 1 jobs" in (await ask("configuration", who)).detail
    (obtained.release.root / "release.json").unlink()
    assert (await ask("configuration", who)).state is State.FAILED


async def test_a_state_directory_is_tried_without_leaving_anything(
    installation: Ask, tmp_path: Path
) -> None:
    """Before the first run it is not made, afterwards nothing is left in it; a file in its place is a failure."""
    state = tmp_path / "state"
    assert "not made yet" in (await ask("state directory", installation())).detail
    assert not state.exists()
    state.mkdir()
    assert (await ask("state directory", installation())).state is State.OK
    assert list(state.iterdir()) == []
    state.rmdir()
    state.write_text("")
    assert (await ask("state directory", installation())).state is State.FAILED


async def test_a_repository_says_which_release_it_would_give(
    installation: Ask, repo_builder: Repo, git_server: GitServer
) -> None:
    """The newest tag by version order is named; a pattern that matches nothing is a failure."""
    for tag in ("v1.9", "v1.10"):
        repo_builder.release(tag, {"jobs.toml": JOBS})
    repository = f"release.repository={git_server.url()}"
    assert "v1.10" in (await ask("git repository", installation(repository))).detail
    nothing = await ask("git repository", installation(repository, "release.track=w*"))
    assert (nothing.state, "nothing that matches w*" in nothing.detail) == (State.FAILED, True)


@pytest.mark.parametrize(
    ("pairs", "environ", "says"),
    [
        ([], {}, "no repository is configured"),
        (["release.repository=nonsense"], {}, "neither a URL nor"),
        (["release.repository=/nowhere/at/all"], {}, "not found"),
        (["release.repository=/x"], {"PATH": "/nowhere"}, "git is not installed"),
    ],
)
async def test_a_repository_that_cannot_be_asked_is_a_failure(
    installation: Ask, pairs: list[str], environ: dict[str, str], says: str
) -> None:
    """No repository, no address, no answer and no git are told apart."""
    finding = await ask("git repository", installation(*pairs, **environ))
    assert finding.state is State.FAILED
    assert says in finding.detail


async def test_uv_and_chromedriver_say_their_versions(installation: Ask, tmp_path: Path) -> None:
    """Programs are started, not only looked for: one that ends with an error is no chromedriver."""
    assert (await ask("uv", installation())).detail.startswith("uv ")
    assert (await ask("chromedriver", installation())).detail.startswith("ChromeDriver ")
    script(tmp_path / "chromedriver", "#!/bin/sh\nexit 3\n")
    assert (await ask("chromedriver", installation(PATH=f"{tmp_path}:/bin"))).state is State.FAILED


async def test_the_doctor_tells_why_a_chromedriver_is_not_used(
    installation: Ask, docker_engine: DockerEngine
) -> None:
    """Where jobs run in units the browser is a container, for which the engine is asked."""
    who = installation("limits.isolation=systemd", **docker_engine.environ)
    told = await ask("chromedriver", who)
    assert (told.state, "jobs run in units" in told.detail) == (State.SKIPPED, True)
    assert (await ask("container engine", who)).detail.startswith("docker ")


async def test_a_container_engine_is_asked_where_it_is_needed(
    installation: Ask, docker_engine: DockerEngine
) -> None:
    """With an image configured the engine must answer, and chromedriver is not needed."""
    who = installation("browser.image=selenium/x:1", **docker_engine.environ)
    assert (await ask("container engine", who)).detail.startswith("docker ")
    assert (await ask("chromedriver", who)).state is State.SKIPPED
    away = installation("browser.image=selenium/x:1", DOCKER_HOST="unix:///nowhere.sock")
    assert (await ask("container engine", away)).state is State.FAILED


PLAIN = '[[job]]\nname = "a"\ncommand = ["true"]\n'
STACKS = '[[job]]\nname = "a"\ncompose = "compose.yml"\nservice = "batch"\n'
GRID = ["browser.url=http://grid:4444"]
BROWSING = '[[job]]\nname = "a"\ncommand = ["true"]\nbrowser = true\n'


@pytest.mark.parametrize(
    ("pairs", "jobs", "states"),
    [
        ([], PLAIN, {"container engine": State.SKIPPED, "browser session": State.SKIPPED}),
        ([], STACKS, {"container engine": State.FAILED, "browser session": State.SKIPPED}),
        ([], BROWSING, {"container engine": State.FAILED, "browser session": State.FAILED}),
        ([], None, {"container engine": State.FAILED, "chromedriver": State.SKIPPED}),
        (GRID, None, {"container engine": State.SKIPPED, "chromedriver": State.SKIPPED}),
    ],
    ids=["plain jobs", "stacks", "browser jobs", "unknown jobs", "unknown jobs, remote browser"],
)
async def test_the_engine_and_the_browser_are_tried_where_a_job_needs_them(
    installation: Ask, pairs: list[str], jobs: str | None, states: dict[str, State]
) -> None:
    """On a computer that has neither; what the configuration or the jobs make unnecessary is skipped."""
    known = parse_jobs(jobs, "jobs.toml", __version__)[0] if jobs else None
    who = replace(installation(*pairs, PATH="/nowhere"), jobs=known)
    assert {name: (await ask(name, who)).state for name in states} == states


async def test_a_stack_needs_compose_besides_the_engine(
    installation: Ask, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    """Whatever the browser is: both are asked, and the jobs named."""
    jobs = parse_jobs(STACKS, "jobs.toml", __version__)[0]
    who = replace(installation(*GRID, **docker_engine.environ), jobs=jobs)
    without = replace(who, environ={**who.environ, "DOCKER_CONFIG": str(tmp_path)})
    assert "docker compose" in (await ask("container engine", without)).detail
    found = await ask("container engine", replace(who, environ=with_plugin(dict(who.environ))))
    assert (found.state, found.detail.rpartition(" with ")[2]) == (State.OK, "compose, for a")


async def test_a_machine_must_be_able_to_switch_itself_off(installation: Ask) -> None:
    """A laptop stays on; a machine without systemd cannot do what it is told."""
    assert (await ask("power-off", installation())).state is State.OK
    finding = await ask("power-off", installation(machine=True, PATH="/nowhere"))
    assert (finding.state, "systemd" in finding.detail) == (State.FAILED, True)


async def test_runs_that_wait_are_counted_and_left_alone(installation: Ask, tmp_path: Path) -> None:
    """The spool is looked at only: one of its runs may be under way. Broken ones need a person."""
    spool = tmp_path / "state" / "spool"
    assert "no run waits" in (await ask("spool", installation())).detail
    (spool / "20261122T064205Z-3f9a1c").mkdir(parents=True)
    (spool / ".begin-20261122T064206Z-3f9a1d").mkdir()
    assert (await ask("spool", installation())).detail.startswith("1 run waits")
    (spool / "20261122T064207Z-3f9a1e").mkdir()
    assert (await ask("spool", installation())).detail.startswith("2 runs wait")
    (spool / "broken" / "20261121T064205Z-3f9a1c").mkdir(parents=True)
    assert (await ask("spool", installation())).state is State.FAILED
    assert (spool / ".begin-20261122T064206Z-3f9a1d").exists()


async def test_checks_run_at_once_each_with_its_limit(installation: Ask) -> None:
    """Ten checks that hang take as long as one, and the others' findings are there."""
    together = asyncio.Barrier(10)
    met: list[int] = []

    async def hang(_: Installation) -> Finding:
        met.append(await together.wait())
        await asyncio.sleep(3600)
        raise AssertionError

    async def fine(_: Installation) -> Finding:
        return ok("fine")

    findings = await examine(
        installation(),
        [*(Check(f"hang {n}", 1, hang) for n in range(10)), Check("fine", 60, fine)],
    )
    assert len(met) == 10
    assert [finding.state for finding in findings] == [State.FAILED] * 10 + [State.OK]


async def test_what_a_check_raises_is_its_finding_without_secrets(installation: Ask) -> None:
    """Expected errors, the disk's and defects all end as findings; the repository's password is in none."""

    def raising(error: Exception) -> Check:
        async def raises(_: Installation) -> Finding:
            raise error

        return Check("x", 5, raises)

    who = installation("release.repository=https://me:hunter2hunter2@host/x.git")
    errors = [
        StoreError("https://me:hunter2hunter2@host is bad", remedy="ask hunter2hunter2"),
        StoreError("no", remedy="do this"),
        FileNotFoundError(2, "No such file", "/x"),
        ZeroDivisionError("oops"),
    ]
    secret, *findings = await examine(who, [raising(error) for error in errors])
    assert "hunter2" not in str(secret)
    assert {finding.state for finding in findings} == {State.FAILED}
    assert [(finding.detail, finding.remedy.split()[0]) for finding in findings] == [
        ("no", "do"),
        ("/x: No such file", "check"),
        ("the check itself broke: ZeroDivisionError('oops')", "report"),
    ]


def test_findings_are_a_table_with_remedies_below_failures() -> None:
    """People see state, check and detail aligned, and an arrow to what helps."""
    findings = [
        replace(ok("fine"), name="a"),
        replace(failed("two\nlines\x1b[31m", "do this"), name="long name"),
        replace(skipped("not here"), name="b"),
    ]
    assert as_lines(findings, lambda text, colour: f"<{colour}>{text}</>") == [
        "<green>ok</>       a          fine",
        "<red>failed</>   long name  two",
        "                    lines [31m",
        "                    -> do this",
        "<bright_black>skipped</>  b          not here",
    ]
    assert exit_code(findings) is ExitCode.CONFIGURATION
    assert as_data(findings)[0] == {"check": "a", "state": "ok", "detail": "fine", "remedy": ""}
