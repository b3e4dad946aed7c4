"""The cases of the power matrix: what each does to a machine whose run is about to begin, or has begun."""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.machine.power_bench import Case

UNIT = "mayfly.service"
PYTHON_LIBRARY = "/opt/mayfly/lib/python3.*/site-packages"


@dataclass(frozen=True)
class Fault:
    """A case of the matrix.

    Attributes:
        name: For the table.
        play: Does it; the time counts from what it marks.
        budget: Seconds within which the power must be off, on a busy computer with emulation.
        smoke: Whether it is one of those that every change is tested with.
        console: What the machine must have said on its console.
    """

    name: str
    play: Callable[[Case], None]
    budget: float = 240
    smoke: bool = False
    console: str = ""


def _run(which: str) -> Callable[[Case], None]:
    return lambda case: case.start(which)


def _broken(command: str) -> Callable[[Case], None]:
    """Break something, then let the run start."""

    def play(case: Case) -> None:
        case.sh(command)
        case.start()

    return play


def _while_running(command: str) -> Callable[[Case], None]:
    """Do something to the machine while its job is running."""

    def play(case: Case) -> None:
        case.start_and_wait()
        case.inject(command)

    return play


def _hanging_unit(case: Case) -> None:
    case.write(
        "/etc/systemd/system/hang.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
        "ExecStop=/bin/sleep infinity\nTimeoutStopSec=infinity\n"
        "[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n",
    )
    case.sh("systemctl daemon-reload; systemctl start hang.service")


def _hanging_stop(case: Case) -> None:
    _hanging_unit(case)
    case.start()


def _deadman_soon(case: Case, seconds: int = 20) -> None:
    at = int(case.uptime) + seconds
    case.dropin("mayfly-deadman.timer", f"[Timer]\nOnBootSec=\nOnBootSec={at}\n")
    case.mark()


def _deadman_alone(case: Case) -> None:
    case.sh("systemctl stop mayfly-idle.timer")
    _deadman_soon(case)


def _deadman_in_shutdown(case: Case) -> None:
    _hanging_unit(case)
    case.dropin("poweroff.target", "[Unit]\nJobTimeoutSec=infinity\nJobTimeoutAction=none\n")
    _deadman_soon(case, 45)
    case.inject("systemctl poweroff --no-block")


def _deadman_without_systemctl(case: Case) -> None:
    case.sh("systemctl stop mayfly-idle.timer")
    case.dropin(
        "mayfly-deadman.service",
        "[Service]\nExecStart=\nExecStart=/usr/lib/mayfly/deadman.sh 5\n",
    )
    _deadman_soon(case, 45)
    case.sh("chmod -x /bin/systemctl /usr/bin/timeout /bin/sleep")


def _idle_soon(case: Case) -> None:
    at = int(case.uptime) + 20
    case.dropin("mayfly-idle.timer", f"[Timer]\nOnBootSec=\nOnBootSec={at}\nOnUnitInactiveSec=5s\n")


def _run_never_starts(case: Case) -> None:
    _idle_soon(case)
    case.mark()


def _emergency(case: Case) -> None:
    _idle_soon(case)
    case.inject("systemctl emergency")


def _cloud_init(case: Case) -> None:
    case.write(
        "/etc/systemd/system/cloud-final.service",
        "[Service]\nType=oneshot\nExecStart=/bin/false\n",
    )
    case.sh("systemctl daemon-reload")
    case.inject("systemctl start cloud-final.service")


def _lease(case: Case) -> None:
    case.sh("/opt/mayfly/bin/mayfly maintain --for 10m")
    _idle_soon(case)
    case.start()
    case.ended()
    # Longer than a power-off takes to begin: nothing of it must be seen.
    time.sleep(15)
    assert case.machine.running
    assert "poweroff.target" not in case.sh("systemctl list-jobs")
    case.mark()
    case.sh("/opt/mayfly/bin/mayfly maintain --for 20s")


def _operator_stops(case: Case) -> None:
    case.start_and_wait()
    case.mark()
    case.sh(f"systemctl stop --no-block {UNIT}")


def _agent_out_of_memory(case: Case) -> None:
    case.start_and_wait()
    case.mark()
    case.sh(f"systemctl set-property --runtime {UNIT} MemoryMax=8M MemorySwapMax=0", check=False)


def _disk_full(case: Case) -> None:
    case.free()
    # Reserved, not written: a disk of gigabytes takes an emulated machine minutes.
    case.sh("n=0; while fallocate -l 128M /var/full$n; do n=$((n + 1)); done; true", check=False)
    case.sh("dd if=/dev/zero of=/var/rest bs=64k status=none; true")
    case.mark()
    case.sh(f"systemctl start --no-block {UNIT}", check=False)


def _corrupt_configuration(case: Case) -> None:
    case.free()
    case.write("/etc/mayfly/agent.toml", "[release\nrepository = \x01")
    case.mark()
    case.sh(f"systemctl start --no-block {UNIT}", check=False)


ENGINE_GONE = "systemctl stop docker.service docker.socket; "
SILENT_ENGINE = shlex.quote(
    "[Service]\nExecStart=\nExecStart=/bin/sleep 9000\nTimeoutStartSec=20s\n"
)

FAULTS = (
    Fault("success", _run("ok"), smoke=True, console='"status": "succeeded", "exit_code": 0'),
    Fault("all jobs failed", _run("bad")),
    Fault(
        "agent exits 1",
        _broken(f"echo 'raise RuntimeError' >> $(echo {PYTHON_LIBRARY}/agent/run/story.py)"),
    ),
    Fault("corrupt configuration", _corrupt_configuration, smoke=True),
    Fault("broken virtual environment", _broken("rm -f /opt/mayfly/bin/python*"), smoke=True),
    Fault(
        "agent stopped (SIGSTOP)",
        _while_running(f"systemctl kill -s STOP --kill-who=main {UNIT}"),
        smoke=True,
    ),
    Fault(
        "agent killed (SIGKILL)", _while_running(f"systemctl kill -s KILL --kill-who=main {UNIT}")
    ),
    Fault("agent out of memory", _agent_out_of_memory),
    Fault("a job takes all memory", _run("hog"), budget=300),
    Fault("disk full", _disk_full),
    Fault(
        "dockerd missing",
        _broken(ENGINE_GONE + "rm -f /usr/sbin/dockerd /usr/bin/dockerd; systemctl daemon-reload"),
    ),
    Fault(
        "dockerd hangs at its start",
        _broken(
            ENGINE_GONE
            + f"printf %s {SILENT_ENGINE} > /etc/systemd/system/docker.service.d/zz.conf;"
            "systemctl daemon-reload"
        ),
    ),
    Fault("dockerd hangs (SIGSTOP)", _broken("pkill -STOP -x dockerd"), smoke=True),
    Fault(
        "the network never comes up",
        _broken("systemctl mask --now mayfly-gate.service; rm -f /run/mayfly/begin"),
        budget=420,
        console="no network after 150 s",
    ),
    Fault("a unit's stop hangs", _hanging_stop, console="job timed out"),
    Fault("the run never starts", _run_never_starts, console="no run and no lease"),
    Fault("emergency mode", _emergency, smoke=True),
    Fault("a unit of cloud-init fails", _cloud_init, console="no run and no lease"),
    Fault("operator stops the run", _operator_stops),
    Fault("halt", lambda case: case.inject("systemctl halt")),
    Fault("lease", _lease, console="lease: it is over"),
    Fault("dead-man alone", _deadman_alone, smoke=True, console="dead-man: uptime"),
    Fault("dead-man in a hanging shutdown", _deadman_in_shutdown, console="dead-man: uptime"),
    Fault("dead-man without systemctl", _deadman_without_systemctl, console="asking the kernel"),
)
