"""The metadata service, seen from containers and from users of a real machine."""

import shlex

import pytest

from tests.machine.inside import EC2, Inside, Row

pytestmark = pytest.mark.timeout(1800)

BOX = """
    set -e
    cd /root; rm -rf box; mkdir -p box
    cp --parents -L /bin/bash /usr/bin/timeout box/
    cp --parents -L $(ldd /bin/bash /usr/bin/timeout | grep -o '/[^ ]*' | grep -v : | sort -u) box/
    test -e box/bin/bash || { mkdir -p box/bin; cp -L /bin/bash box/bin/; }
    tar -C box -cf - . | docker import - box >/dev/null
    docker network create --ipv6 --subnet fd77::/64 six >/dev/null
"""


def in_a_container(inside: Inside, address: str, port: int, network: str) -> tuple[bool, float]:
    """Try to connect from a container; tell whether it worked, and the seconds it took inside."""
    connect = f"exec 3<>/dev/tcp/{address}/{port}"
    script = f"SECONDS=0; timeout 20 /bin/bash -c {shlex.quote(connect)}; echo $? $SECONDS"
    command = f"docker run --rm --network {network} box /bin/bash -c {shlex.quote(script)}"
    said = inside.sh(command, seconds=300)
    code, seconds = said.split()
    return code == "0", float(seconds)


@pytest.mark.parametrize(
    "restart", [False, True], ids=["at first", "after a restart of the engine"]
)
def test_containers_are_kept_from_the_metadata_service(
    inside: Inside, row: Row, restart: bool
) -> None:
    """Where a page in the browser is: refused at once over IPv4 and IPv6, while DNS, clock and internet work."""
    if restart:
        inside.sh("systemctl restart docker.service", seconds=600)
    else:
        inside.sh(BOX, seconds=600)
    inside.sh("/usr/lib/mayfly/fence.sh --check")
    inside.sh("/usr/lib/mayfly/fence.sh && /usr/lib/mayfly/fence.sh")
    rules = inside.sh("iptables-save | grep -c MAYFLY-FENCE")
    reached = {}
    for address, port, network in (
        ("169.254.169.254", 80, "bridge"),
        ("169.254.169.253", 53, "bridge"),
        ("169.254.169.123", 123, "bridge"),
        ("198.51.100.1", 80, "bridge"),
        ("fd00:ec2::254", 80, "six"),
        ("fd00:ec2::253", 53, "six"),
        ("2001:db8::1", 80, "six"),
    ):
        reached[address], seconds = in_a_container(inside, address, port, network)
        row(
            f"a container tries {address}", "works" if reached[address] else f"refused, {seconds} s"
        )
        assert seconds < 15, "refused is not silence"
    assert [address for address, worked in reached.items() if not worked] == [
        "169.254.169.254",
        "fd00:ec2::254",
    ]
    assert int(rules) == 5, "running it again adds nothing"


def test_ordinary_users_of_the_machine_are_kept_from_it(inside: Inside, row: Row) -> None:
    """Root and the system's own users reach it, such as the one of EC2 Instance Connect; others do not."""
    seen = {}
    for user in (0, 999, 1000, 61184):
        for address in ("169.254.169.254", "fd00:ec2::254"):
            code = f"import socket; socket.create_connection(('{address}', 80), 10)"
            done = inside.machine.ssh(
                f'setpriv --reuid {user} --clear-groups python3 -c "{code}"', check=False
            )
            seen[user, address] = done.returncode == 0
    row(
        "users of the machine that reach it", sorted({user for (user, _), ok in seen.items() if ok})
    )
    assert seen == {(user, address): user < 1000 for user, address in seen}


def test_a_unit_refuses_by_itself_and_a_run_says_when_nothing_does(
    inside: Inside, row: Row
) -> None:
    """Without the fence a unit is still kept from it; a plain process, as root, is not."""
    inside.release('[[job]]\nname = "ok"\ncommand = ["true"]\n')
    # The service tells nothing here, and so no job runs: what was tried is in the log.
    inside.environ = dict(EC2)
    inside.sh("systemctl stop mayfly-fence.service")
    inside.sh("iptables -F MAYFLY-FENCE; ip6tables -F MAYFLY-FENCE")
    try:
        runs = {kind: inside.run(limits__isolation=kind) for kind in ("systemd", "process")}
    finally:
        inside.environ = {}
        inside.sh("systemctl start mayfly-fence.service")
    seen = {}
    for kind, ran in runs.items():
        (chosen,) = ran.events("isolation.chosen")
        seen[kind] = {name: chosen[name] for name in ("backend", "metadata", "containers")}
        row(f"without the fence: {kind}", seen[kind])
    assert seen == {
        "systemd": {"backend": "systemd", "metadata": "unreachable", "containers": "unknown"},
        "process": {"backend": "process", "metadata": "reachable", "containers": "unknown"},
    }
