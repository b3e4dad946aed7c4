"""Where things are on this machine: the configuration file, state, cache and the default bucket. Decisions only."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.config.faults import Fault
from agent.config.overrides import (
    Document,
    Loaded,
    Override,
    environment_overrides,
    flag_overrides,
    parse_settings,
)
from agent.config.settings import Paths, Settings

MACHINE = Path("/usr/lib/mayfly")
"""A computer that has it is a machine of its own: state in /var/lib, power-off after a run.

`systemd/install.sh` makes it, with the units. A person makes `/etc/mayfly`, on a computer that is to stay on.
"""

MACHINE_CONFIG = Path("/etc/mayfly/agent.toml")
MACHINE_SIGNERS = MACHINE_CONFIG.with_name("allowed_signers")
MACHINE_STATE = Path("/var/lib/mayfly")
CONFIG_VARIABLE = "MAYFLY_CONFIG"
DEFAULTS = "defaults"
"""The source's name when there is no configuration file."""
LAUNCH = "user data"
"""The source's name of what the machine was launched with."""
OF_CLOUD_INIT = (
    "#!",
    "#cloud",
    "#include",
    "#part-handler",
    "#upstart",
    "## template",
    "content-type:",
    "mime-version:",
)
"""Beginnings of user data that cloud-init runs or reads, in lower case."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a command knows of the computer it runs on.

    Attributes:
        environ: The environment.
        machine: Whether `MACHINE` exists.
        cwd: Where relative paths of the configuration start.
        read: Returns a file's text (`Path.read_text`): an effect, lent by the caller.
        launch: What the machine was launched with: its text, or why that is not known; None where there is none.
    """

    environ: Mapping[str, str]
    machine: bool
    cwd: Path
    read: Callable[[Path], str]
    launch: str | Fault | None = None

    @property
    def home(self) -> Path:
        """The user's home; the working directory where there is none."""
        return Path(self.environ["HOME"]) if self.environ.get("HOME") else self.cwd


@dataclass(frozen=True, slots=True)
class Locations:
    """Where the agent keeps things; all absolute.

    Attributes:
        state: Releases, spool, last good release.
        cache: What may be deleted at any time.
        bucket: The bucket when none is configured.
    """

    state: Path
    cache: Path
    bucket: Path


def is_machine(is_folder: Callable[[Path], bool]) -> bool:
    """Tell whether this computer is a machine of its own; `is_folder` looks (`Path.is_dir`), lent by the caller."""
    return is_folder(MACHINE)


def config_file(flag: Path | None, environ: Mapping[str, str]) -> tuple[Path, bool]:
    """Return the configuration file to read, and whether somebody named it, so that it must be there."""
    if flag is not None:
        return flag, True
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE]), True
    return MACHINE_CONFIG, False


def load_settings(
    flag: Path | None,
    around: Surroundings,
    pairs: Iterable[str] = (),
    overrides: Iterable[Override] = (),
) -> Loaded:
    """Read the configuration: file, overridden by the launch, overridden by environment, overridden by flags.

    `flag` is `--config`, `pairs` are the values of `--set`, and `overrides` those of other flags, which come last.
    """
    path, named = config_file(flag, around.environ)
    text, source, unread = _read(path, around, must_exist=named)
    by_variable, wrong_variables = environment_overrides(around.environ)
    by_flag, wrong_flags = flag_overrides(pairs)
    single = [*by_variable, *by_flag, *overrides]
    document, wrong = Document(text, source), (*wrong_variables, *wrong_flags)

    def parsed(*more: Document) -> Loaded:
        found = parse_settings([document, *more], single)
        return replace(found, faults=(*unread, *found.faults, *wrong))

    image, launch = parsed(), around.launch
    known = None if image.faults else image.settings
    if isinstance(launch, Fault):
        return Loaded(Settings(), source, (*image.faults, launch), without_launch=known)
    if launch is None or of_cloud_init(launch):
        return image
    both = parsed(Document(launch, LAUNCH))
    if both.faults:
        return Loaded(Settings(), source, both.faults, without_launch=known)
    return both


def of_cloud_init(text: str) -> bool:
    """Tell whether user data is cloud-init's: a script, its own YAML, or a message of several parts."""
    begin = text.lstrip().lower()
    return not begin or "\0" in text or "\ufffd" in text or begin.startswith(OF_CLOUD_INIT)


def _read(path: Path, around: Surroundings, *, must_exist: bool) -> tuple[str, str, list[Fault]]:
    try:
        return around.read(around.cwd / path), str(path), []
    except FileNotFoundError:
        if not must_exist:
            return "", DEFAULTS, []
        return "", str(path), [Fault(str(path), "", "no such file")]
    except UnicodeDecodeError:
        return "", str(path), [Fault(str(path), "", "not a text file in UTF-8")]
    except OSError as error:
        return "", str(path), [Fault(str(path), "", f"cannot be read: {error.strerror}")]


def locate(paths: Paths, around: Surroundings) -> Locations:
    """Return where things are: as the configuration says, else as it is usual on this kind of computer."""
    if paths.state is not None:
        state = _absolute(paths.state, around)
    elif around.machine:
        state = MACHINE_STATE
    else:
        state = _user_folder(around, "XDG_STATE_HOME", ".local/state")
    if paths.cache is not None:
        cache = _absolute(paths.cache, around)
    elif around.machine or paths.state is not None:
        # A state directory of one's own is a world of its own: nothing of it lies elsewhere.
        cache = state / "cache"
    else:
        cache = _user_folder(around, "XDG_CACHE_HOME", ".cache")
    return Locations(state, cache, state / "bucket")


def _absolute(path: Path, around: Surroundings) -> Path:
    if path.parts[:1] == ("~",):
        return around.home.joinpath(*path.parts[1:])
    return around.cwd / path


def _user_folder(around: Surroundings, variable: str, usual: str) -> Path:
    """Return `mayfly` in a folder of the XDG base directory specification, which ignores relative values."""
    named = Path(around.environ.get(variable, ""))
    return (named if named.is_absolute() else around.home / usual) / "mayfly"


def bucket_override(text: str, cwd: Path) -> Override:
    """Return what `--store` sets; a plain path is a bucket in that folder."""
    url = text if "://" in text else (cwd / text).as_uri()
    return Override("store.url", "--store", url)
