"""Checks of this computer, and of the repository."""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from agent import __version__
from agent.base import processes
from agent.base.engine import Engine
from agent.base.errors import MayflyError, ReleaseError
from agent.base.units import show_size
from agent.browser import (
    Choice,
    Chromedriver,
    Container,
    Place,
    Remote,
    choose,
    find_chromedriver,
    supervise,
)
from agent.browser.container import Docker
from agent.config.jobsfile import Job, JobsFile, needs_browser
from agent.contract.ids import is_run_id, run_id
from agent.doctor.examine import Finding, Installation, failed, ok, skipped
from agent.jobs.containers.compose import require_compose
from agent.jobs.isolation.choice import chromedriver_for_jobs, wants_units
from agent.machine.guard import complaint, deadline_of, parse_span
from agent.release.checks import Checks
from agent.release.environment import uv_program
from agent.release.git import Git
from agent.release.known import Known
from agent.release.memory import read_copy
from agent.release.mirror import Mirror
from agent.release.repository import TRACK, candidates, configured_repository
from agent.release.store import Installed, ReleaseStore, last_here
from agent.release.verify import signers_faults
from agent.secrets.keyring import Keyring

ROOM = 1024**3
"""Less free space fails: a release with its environment takes a few hundred megabytes, and so do outputs."""
VERSION_SECONDS = 10.0
UNIT_SECONDS = 8.0
ASK_SECONDS = 25.0
SYSTEMD = Path("/run/systemd/system")
"""Exists if systemd is the init system (sd_booted(3))."""


async def configuration(installation: Installation) -> Finding:
    """Check the configuration, and the jobs of the last good release."""
    if installation.faults:
        return failed(
            "\n".join(map(str, installation.faults)),
            "correct them; `mayfly check` shows them again",
        )
    try:
        release = _last_good(installation)
    except ReleaseError as error:
        return failed(
            str(error), error.remedy or "a run that reaches the repository installs it anew"
        )
    if release is None:
        return ok(f"{installation.source}; no release has run here yet")
    return ok(
        f"{installation.source}; last good release {release.ref}, {len(release.jobs.job)} jobs"
    )


def jobs_of(installation: Installation) -> JobsFile | None:
    """Return the jobs of the next run, as far as they are known: those of the last good release."""
    try:
        good = _last_good(installation)
    except ReleaseError:
        return installation.jobs
    return good.jobs if good else installation.jobs


def _last_good(installation: Installation) -> Installed | None:
    release_store = ReleaseStore.at(installation.places.state, installation.places.cache)
    checks = Checks(installation.settings.release.jobs, __version__, installation.environ)
    return last_here(
        release_store,
        Known.of(read_copy(release_store.copy).facts).good(__version__),
        checks,
    )


async def state_directory(installation: Installation) -> Finding:
    """Write into the state directory, or check that it could be made."""
    return await asyncio.to_thread(_state_directory, installation.places.state)


def _state_directory(state: Path) -> Finding:
    there = next(path for path in (state, *state.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return failed(
            f"{there} cannot be written to by user {os.geteuid()}",
            "run as its owner, or set paths.state",
        )
    if there == state:
        with tempfile.TemporaryFile(dir=state) as probe:
            probe.write(b"mayfly")
            probe.flush()
            os.fsync(probe.fileno())
    free = shutil.disk_usage(there).free
    if free < ROOM:
        return failed(
            f"{state} has {show_size(free)} left, less than {show_size(ROOM)}",
            f"make room, or remove {state / 'cache'}, which may go at any time",
        )
    return ok(f"{state}, {show_size(free)} free" + ("" if there == state else ", not made yet"))


async def repository(installation: Installation) -> Finding:
    """Ask the repository for its releases."""
    settings = installation.settings.release
    if shutil.which("git", path=_path(installation)) is None:
        return failed("git is not installed", "install git")
    address = configured_repository(settings, installation.environ)
    with tempfile.TemporaryDirectory(prefix="mayfly-doctor-") as folder:
        git = Git(
            *(Path(folder) / "mirror.git", address, installation.environ),
            seconds=VERSION_SECONDS,
            log=installation.log,
            login=Keyring(installation.settings, installation.environ).git,
        )
        mirror = Mirror(git)
        await mirror.prepare()
        until = asyncio.get_running_loop().time() + min(settings.timeout, ASK_SECONDS)
        refs = await mirror.refs(settings.branch, until=until)
    offered = candidates(refs, settings.track, settings.branch)
    if not offered:
        sought = f"branch {settings.branch}" if settings.branch else settings.track or TRACK
        return failed(
            f"{address.url} answers, and has nothing that matches {sought}",
            "push a tag such as v1.0, or set release.track or release.branch",
        )
    return ok(f"{address.url}: {offered[0].name} ({offered[0].commit[:12]})")


async def signers(installation: Installation) -> Finding:
    """Check the file that names who may sign a release, and the program that verifies."""
    settings = installation.settings.release
    if settings.allowed_signers is None:
        return skipped("release.allowed_signers is not set: releases are not verified")
    faults = await asyncio.to_thread(signers_faults, settings.allowed_signers)
    if faults:
        return failed(
            "\n".join(f"{one.source}: {one.key}: {one.problem}" for one in faults), faults[0].remedy
        )
    if shutil.which("ssh-keygen", path=_path(installation)) is None:
        return failed("ssh-keygen is not installed", "install the client programs of OpenSSH")
    return ok(str(settings.allowed_signers))


async def uv(installation: Installation) -> Finding:
    """Ask uv for its version."""
    program = uv_program()
    version = await _version(installation, program, "--version")
    return version or failed(f"{program} does not run", "install the agent anew")


async def container_engine(installation: Installation) -> Finding:
    """Ask the container engine for its version, and compose, if a job or the browser may need them."""
    jobs = jobs_of(installation)
    contained = [job for job in jobs.job if job.in_container] if jobs else []
    if contained:
        found = await _engine(installation, contained)
        return ok(f"{found}, for {', '.join(job.name for job in contained[:5])}")
    if jobs is not None and not needs_browser(jobs):
        return skipped("no job is a container or wants a browser")
    match _browser(installation):
        case Remote():
            return skipped("browser.url names a running browser")
        case Chromedriver():
            return skipped("a local chromedriver is used, unless a release pins an image")
        case Container():
            return ok(await _engine(installation, ()))


def _browser(installation: Installation) -> Choice:
    """Return the browser of a run whose release pins none."""
    settings = installation.settings
    driver = chromedriver_for_jobs(settings.limits, installation.environ)
    return choose(settings.browser, None, driver)


async def _engine(installation: Installation, jobs: Sequence[Job]) -> str:
    version = await Docker(installation.environ).output("info", "--format", "{{.ServerVersion}}")
    if not any(job.compose for job in jobs):
        return f"docker {version}"
    await require_compose(Engine(installation.environ).environ)
    return f"docker {version} with compose"


async def registries(installation: Installation) -> Finding:
    """Log in to each registry that has credentials in the configuration."""
    hosts = sorted(installation.settings.registry)
    if not hosts:
        return skipped("no [registry] in the configuration; ECR is asked when an image needs it")
    keyring = Keyring(installation.settings, installation.environ)
    refused = [(host, await _refused_login(installation, keyring, host)) for host in hosts]
    return _told(refused) or ok(f"logged in to: {', '.join(hosts)}")


async def _refused_login(
    installation: Installation, keyring: Keyring, host: str
) -> MayflyError | None:
    try:
        login = await keyring.registry(host)
        async with Docker(installation.environ, keyring.docker).logged_in(
            [f"{host}/any"]
        ) as docker:
            asked = ("login", "--username", login.username, "--password-stdin", host)
            done = await docker.run(*asked, stdin=login.password.encode())
            return docker.refusal("login", done.complaint) if done.code != 0 else None
    except MayflyError as error:
        return error


async def indexes(installation: Installation) -> Finding:
    """Read the logins of package indexes; only a release knows an index's address."""
    names = sorted(installation.settings.index)
    if not names:
        return skipped("no [index] in the configuration")
    refused = [(name, await _unread_login(installation, name)) for name in names]
    return _told(refused) or ok(
        f"logins of {', '.join(names)}, not tried: a release's install does that"
    )


async def _unread_login(installation: Installation, name: str) -> MayflyError | None:
    settings = installation.settings
    alone = settings.model_copy(update={"index": {name: settings.index[name]}})
    try:
        await Keyring(alone, installation.environ).indexes()
    except MayflyError as error:
        return error
    return None


def _told(refused: Sequence[tuple[str, MayflyError | None]]) -> Finding | None:
    """Return a failure with everything that was refused, by name; None when nothing was."""
    errors = [(name, error) for name, error in refused if error is not None]
    if not errors:
        return None
    remedies = dict.fromkeys(error.remedy for _, error in errors if error.remedy)
    return failed(
        "\n".join(f"{name}: {error}" for name, error in errors),
        "; ".join(remedies) or "check the host and the network",
    )


async def chromedriver(installation: Installation) -> Finding:
    """Ask chromedriver for its version."""
    settings = installation.settings.browser
    if settings.url is not None or settings.image is not None:
        return skipped("the configuration names another browser")
    program = find_chromedriver(installation.environ)
    if program is None:
        return skipped("none on the PATH: a container is used")
    if wants_units(installation.settings.limits, installation.environ):
        return skipped(
            "a container is used: jobs run in units, and whoever reaches a chromedriver can run any program as its user"
        )
    version = await _version(installation, program, "--version")
    return version or failed(
        f"{program} does not run", "install chromium and chromedriver of the same version"
    )


async def session(installation: Installation) -> Finding:
    """Start the browser, wait for a session, and stop it.

    The image that a release may pin is not known here; the configuration's is tried.
    """
    jobs = jobs_of(installation)
    if jobs is not None and not needs_browser(jobs):
        return skipped("no job wants a browser")
    settings = installation.settings.browser
    with tempfile.TemporaryDirectory(prefix="mayfly-doctor-") as folder:
        root = Path(folder)
        place = Place(
            run_id(datetime.now(UTC), secrets.token_bytes(3)), root / "browser", root / "downloads"
        )
        supervisor = supervise(
            _browser(installation),
            place,
            settings=settings,
            environ=installation.environ,
            log=installation.log,
        )
        async with supervisor:
            await supervisor.ready()
            record = supervisor.record()
    if record is None:
        return ok("a session opened")
    return ok(", ".join(filter(None, [record.name, record.kind, record.image])))


async def power(installation: Installation) -> Finding:
    """Check what happens after a run."""
    if not installation.settings.power.goes_off(machine=installation.machine):
        return ok("this computer stays on after a run")
    if not SYSTEMD.exists() or shutil.which("systemctl", path=_path(installation)) is None:
        return failed(
            "power.after is poweroff, and systemd is not in charge here",
            'set power.after = "nothing", or run on a machine with systemd',
        )
    if os.geteuid() != 0:
        return failed(
            "power.after is poweroff, and this user may not switch the machine off", "run as root"
        )
    return ok("systemd powers the machine off after a run")


async def units(installation: Installation) -> Finding:
    """Check that the limits of the units leave a run its time."""
    if not installation.machine or shutil.which("systemctl", path=_path(installation)) is None:
        return skipped("this computer is not a machine that switches itself off")
    shown = await _show(installation, "mayfly.service", "LoadState", "RuntimeMaxUSec")
    if shown.get("LoadState") != "loaded":
        return skipped("mayfly.service is not installed here: something else starts the run")
    timer = await _show(installation, "mayfly-deadman.timer", "TimersMonotonic")
    run = installation.settings.limits.run
    deadline = deadline_of(timer.get("TimersMonotonic", ""))
    wrong = complaint(run, parse_span(shown.get("RuntimeMaxUSec", "")), deadline)
    if wrong:
        return failed(
            wrong, f"systemd/install.sh --limit {run / 60:.0f}m moves both, see docs/power.md"
        )
    return ok("the run's limit, mayfly.service and the dead-man timer fit")


async def _show(installation: Installation, unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit; none if the service manager does not answer."""
    command = ["systemctl", "show", f"--property={','.join(names)}", unit]
    printed = await processes.output_of(command, environ=installation.environ, seconds=UNIT_SECONDS)
    return dict(line.split("=", 1) for line in (printed or "").splitlines() if "=" in line)


async def spool(installation: Installation) -> Finding:
    """Count the runs that wait for delivery. Nothing is changed: one of them may be running."""
    folder = installation.places.state / "spool"
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 -- names are wanted
    waiting = sum(map(is_run_id, names))
    broken = folder / "broken"
    if broken.is_dir() and any(broken.iterdir()):
        return failed(
            f"{broken} has runs that no program can finish",
            "save what you need of their jobs/ folders, then remove them",
        )
    if waiting:
        noun = "1 run waits" if waiting == 1 else f"{waiting} runs wait"
        return ok(f"{noun} to be handed over; the next `mayfly run` does it first")
    return ok("no run waits to be handed over")


async def _version(installation: Installation, *command: str) -> Finding | None:
    """Return the version that a program prints, or None if it does not run."""
    environ = {"PATH": _path(installation), "LC_ALL": "C"}
    printed = await processes.output_of(command, environ=environ, seconds=VERSION_SECONDS)
    return ok(printed.splitlines()[0]) if printed else None


def _path(installation: Installation) -> str:
    return installation.environ.get("PATH", os.defpath)
