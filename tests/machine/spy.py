"""A hostile job: tries what no job may do, and writes down what came of each try."""

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

OUTPUT = Path(os.environ["MAYFLY_OUTPUT_DIR"])
RUN = OUTPUT.parents[3]
SPOOL = RUN.parent
STATE = SPOOL.parent


def connect(address: str, port: int) -> str:
    """Talk to a server."""
    with socket.create_connection((address, port), 5) as link:
        return link.recv(100).decode()


def unix(path: str) -> str:
    """Talk to a local socket."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(path)
    return "connected"


def program(*command: str) -> str:
    """Run a program that must fail."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip()[-200:])
    return done.stdout


def environments() -> str:
    """Look for the agent's environment in everybody's."""
    seen = [path for path in Path("/proc").glob("[0-9]*/environ") if readable(path)]
    text = "".join(path.read_text(errors="replace") for path in seen)
    if "CANARY" in text:
        return text
    raise PermissionError(f"{len(seen)} environments, all our own")


def readable(path: Path) -> bool:
    """Tell whether a file can be read."""
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def listing(folder: Path) -> str:
    """List a folder that must be hidden, or show nothing of others."""
    names = [
        path.name for path in folder.iterdir() if path.name not in os.environ["MAYFLY_OUTPUT_DIR"]
    ]
    if names:
        return f"{folder}: {names}"
    raise PermissionError("nothing of others")


def raise_limit(kind: int) -> str:
    """Raise a hard limit."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (hard + 1, hard + 1))
    return "raised"


def system_call(number: int, *arguments: int) -> str:
    """Make a system call that must be refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return "done"


def own_group() -> Path:
    """Return the folder of our control group."""
    return Path("/sys/fs/cgroup" + Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2])


MUST_FAIL: dict[str, Callable[[], object]] = {
    "metadata service, IPv4": lambda: connect("169.254.169.254", 80),
    "metadata service, IPv6": lambda: connect("fd00:ec2::254", 80),
    "container engine's socket": lambda: unix("/run/docker.sock"),
    "container engine's socket, by its other name": lambda: unix("/var/run/docker.sock"),
    "containerd's socket": lambda: unix("/run/containerd/containerd.sock"),
    "system bus": lambda: unix("/run/dbus/system_bus_socket"),
    "systemd's own socket": lambda: unix("/run/systemd/private"),
    "systemd-run": lambda: program("systemd-run", "--wait", "id"),
    "systemctl poweroff": lambda: program("systemctl", "poweroff"),
    "systemctl poweroff, twice by force": lambda: program("systemctl", "-ff", "poweroff"),
    "systemctl stop of the agent": lambda: program("systemctl", "stop", "mayfly.service"),
    "agent's configuration": lambda: Path("/etc/mayfly/secrets.env").read_text(),
    "listing of it": lambda: list(Path("/etc/mayfly").iterdir()),
    "agent's environment": environments,
    "signal to PID 1": lambda: os.kill(1, signal.SIGTERM),
    "neighbour's files": lambda: str((OUTPUT.parents[2] / "neighbour/1/output/secret").read_text()),
    "spool": lambda: listing(SPOOL),
    "agent's journal": lambda: str((RUN / "run.json").read_text()),
    "state": lambda: str((STATE / "mirror.git/HEAD").read_text()),
    "bucket in a folder": lambda: list(Path("/srv/bucket").iterdir()),
    "root's home": lambda: list(Path("/root").iterdir()),
    "writing to /usr": lambda: Path("/usr/x").touch(),
    "writing to /etc": lambda: Path("/etc/x").touch(),
    "writing to /run": lambda: Path("/run/x").touch(),
    "writing to /var/lib": lambda: Path("/var/lib/x").touch(),
    "writing to the release": lambda: Path("x").touch(),
    "changing the release": lambda: Path("spy.py").chmod(0o777),
    "the disk": lambda: os.open("/dev/vda", os.O_RDONLY),
    "kernel's memory": lambda: os.open("/dev/mem", os.O_RDONLY),
    "kernel's log": lambda: os.open("/dev/kmsg", os.O_RDONLY),
    "sysrq": lambda: Path("/proc/sysrq-trigger").write_text("o"),
    "a sysctl": lambda: Path("/proc/sys/kernel/panic").write_text("0"),
    "its memory limit": lambda: (own_group() / "memory.max").write_text("max"),
    "its number of tasks": lambda: (own_group() / "pids.max").write_text("max"),
    "the limit of a file": lambda: raise_limit(resource.RLIMIT_FSIZE),
    "another user": lambda: os.setuid(0),
    "mount": lambda: program("mount", "-t", "tmpfs", "none", "/tmp"),
    "user namespace": lambda: program("unshare", "--user", "true"),
    "ptrace of PID 1": lambda: system_call(101, 16, 1, 0, 0),
    "a kernel module": lambda: program("insmod", "/lib/modules/x.ko"),
    "a new clock": lambda: program("date", "-s", "2001-01-01"),
    "raw packets": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "a file for all users' root": lambda: str(setuid_file()),
}

MUST_WORK: dict[str, Callable[[], object]] = {
    "DNS of the link, IPv4": lambda: connect("169.254.169.253", 53),
    "DNS of the link, IPv6": lambda: connect("fd00:ec2::253", 53),
    "clock of the link": lambda: connect("169.254.169.123", 123),
    "the internet, IPv4": lambda: connect("198.51.100.1", 80),
    "the internet, IPv6": lambda: connect("2001:db8::1", 80),
    "names": lambda: socket.getaddrinfo("localhost", 80),
    "its home": lambda: Path.home().joinpath("x").write_text("x"),
    "its /tmp": lambda: Path("/tmp/x").write_text("x"),
    "its /var/tmp": lambda: Path("/var/tmp/y").write_text("x"),
    "shared memory": lambda: Path("/dev/shm/x").write_text("x"),
    "its state": lambda: Path(os.environ["MAYFLY_STATE_DIR"], "x").write_text("x"),
    "its release": lambda: Path("jobs.toml").read_text(),
    "a child": lambda: program("true"),
}


def setuid_file() -> str:
    """Leave a program that makes its caller somebody else."""
    path = OUTPUT / "setuid"
    path.write_text("x")
    path.chmod(0o4755)
    return oct(path.stat().st_mode)


def tried(what: Callable[[], object]) -> str:
    """Return why something did not work; empty when it did."""
    try:
        what()
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


refused = {name: tried(what) for name, what in MUST_FAIL.items()}
worked = {name: tried(what) for name, what in MUST_WORK.items()}
(OUTPUT / "report.json").write_text(json.dumps({"refused": refused, "worked": worked}))
sys.exit(0)
