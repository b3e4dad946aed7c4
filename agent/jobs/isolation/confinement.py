"""What a job's unit may do: the properties that systemd (from 252) gets for it. Decisions only."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.config.settings import Limits
from agent.jobs.interface import Launch

PREFIX = "mayfly-job-"
SLICE = "mayfly-jobs.slice"

METADATA = ("169.254.169.254", "fd00:ec2::254")
"""EC2's metadata service. Not all link-local addresses: its DNS (.253) and its clock (.123) are there as well."""

STOP_SECONDS = 10
"""How long the kernel may take to end what got SIGKILL before systemd gives it up."""

SPARE_SECONDS = 60.0
"""systemd's own limit comes this long after the agent's, which is the one that asks first."""

HOMES = (Path("/home"), Path("/root"), Path("/run/user"))

CLOSED = (
    "/etc/mayfly",
    *("/run/docker.sock", "/run/docker", "/run/containerd", "/run/podman", "/run/crio"),
    *("/var/lib/docker", "/var/lib/containerd"),
    # Without a bus there is nobody to ask for a unit, a reboot or a login.
    *("/run/dbus", "/run/systemd/private", "/run/log", "/var/log"),
    # User data, which is where people put what they should not.
    *("/run/cloud-init", "/var/lib/cloud", "/var/lib/amazon"),
)

FIXED = (
    # A oneshot's only good end is exit code 0: to other types of service SIGTERM is a good end, too.
    "Type=oneshot",
    f"Slice={SLICE}",
    "CollectMode=inactive",  # one that failed is kept until the agent has asked why
    # At a shutdown the agent is stopped before its jobs, and gives them their grace itself.
    "Before=mayfly.service",
    "DynamicUser=yes",
    "KillSignal=SIGKILL",  # for what is left when the program has ended; the agent sends SIGTERM itself
    f"TimeoutStopSec={STOP_SECONDS}",
    "OOMPolicy=kill",
    "MemorySwapMax=0",
    "LimitCORE=0",
    "IgnoreSIGPIPE=no",
    "UMask=0077",
    "KeyringMode=private",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateIPC=yes",
    "PrivateUsers=yes",
    "ProtectSystem=strict",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    # A browser that a job itself starts therefore needs --no-sandbox, as in the Selenium images: its sandbox is made
    # of user namespaces, which open more of the kernel to a job than they close to a page.
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",  # netlink: getaddrinfo asks which families there are
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    f"IPAddressDeny={' '.join(METADATA)}",
    "TemporaryFileSystem=/dev/shm:mode=1777,size=50%",  # counts as the unit's own memory
    # Not set, with the reason:
    #   RootDirectory=, RootImage=   a job uses the programs of the machine
    #   PrivateNetwork=, and an IPAddressDeny= for all   a scraper is about the network
    #   MemoryDenyWriteExecute=      JavaScript engines, JVMs and some Python extensions compile at run time
    #   ProcSubset=pid               programs read /proc/meminfo and /proc/cpuinfo
    #   SystemCallFilter=~@resources @privileged   programs call nice, setrlimit, chown; without capabilities in vain
    #   CPUQuota=                    shares are fair by weight; a job that is alone gets the whole machine
)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What all jobs of a run have in common.

    Attributes:
        state: The agent's state directory, or a folder above it; of it a job sees nothing but its own folders and
            its release.
        closed: What else no job may see, such as a bucket in a folder.
        interpreter: Base folder of the Python that starts jobs; it must be visible.
        limits: The configured limits.
    """

    state: Path
    closed: tuple[Path, ...]
    interpreter: Path
    limits: Limits


def unit_name(run_id: str, name: str) -> str:
    """Return the unit of an attempt; `name` is `<job>-<attempt>`."""
    return f"{PREFIX}{run_id.lower()}-{name}.service"


def units_of(run_id: str) -> str:
    """Return the pattern that matches all units of a run."""
    return f"{PREFIX}{run_id.lower()}-*.service"


def properties(launch: Launch, confinement: Confinement) -> list[str]:
    """Return the properties of a job's unit, as `systemd-run --property=` takes them."""
    limits = confinement.limits
    return [
        *FIXED,
        # A job without a limit of its own leaves some memory to its neighbours; see mayfly-jobs.slice.
        f"MemoryMax={launch.memory or '60%'}",
        f"TasksMax={limits.tasks}",
        f"LimitFSIZE={limits.file}",
        f"TimeoutStartSec={launch.seconds + SPARE_SECONDS:.0f}",
        f"WorkingDirectory={launch.cwd}",
        *_view(launch, confinement),
    ]


def _view(launch: Launch, confinement: Confinement) -> list[str]:
    """Return the job's read-only and writable paths."""
    readable = list(launch.readable)
    if _in_a_home(confinement.interpreter):
        readable.append(confinement.interpreter)
    needed = [confinement.state, *readable, *launch.writable]
    closed = [*map(Path, CLOSED), *confinement.closed]
    writable = [_quoted(path) for path in launch.writable]
    if launch.scratch is not None:
        # On the same disk as the rest, and so within what the agent watches.
        writable += [f"{_quoted(launch.scratch)}:{folder}" for folder in ("/tmp", "/var/tmp")]  # noqa: S108
    return [
        # With `yes` nothing below a home could be made visible.
        f"ProtectHome={'tmpfs' if any(map(_in_a_home, needed)) else 'yes'}",
        f"TemporaryFileSystem={_quoted(confinement.state)}:ro,mode=755",
        *([f"BindPaths={' '.join(writable)}"] if writable else []),
        *([f"BindReadOnlyPaths={' '.join(map(_quoted, readable))}"] if readable else []),
        f"InaccessiblePaths={_if_there(closed, confinement.state)}",
    ]


def _if_there(paths: Iterable[Path], state: Path) -> str:
    """Return the paths outside of the state, each to be ignored where it does not exist."""
    return " ".join(f"-{_quoted(path)}" for path in paths if not path.is_relative_to(state))


def _in_a_home(path: Path) -> bool:
    return any(path.is_relative_to(home) for home in HOMES)


def _quoted(path: Path) -> str:
    """Return a path as one word of a property."""
    text = str(path)
    if all(letter.isalnum() or letter in "/._-+@" for letter in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
