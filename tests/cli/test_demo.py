"""Where the demo's site listens, so that a browser in a container finds it."""

import pytest

from agent.demo import gateway


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        ("172.17.0.0/16 172.17.0.1\n", "172.17.0.1"),
        ("172.17.0.0/16 172.17.0.254\n", "172.17.0.254"),
        ("172.17.0.0/16 \n", "172.17.0.1"),
        ("fd00::/64 fd00::1\n10.9.8.0/24 \n", "10.9.8.1"),
        ("fd00::/64 fd00::1\n", None),
        ("\n", None),
    ],
    ids=["named", "chosen by a person", "a new engine", "both families", "IPv6 only", "nothing"],
)
def test_this_computer_s_address_in_a_container_network(networks: str, address: str | None) -> None:
    """An engine that was just installed names no gateway until it is restarted."""
    assert gateway(networks) == address
