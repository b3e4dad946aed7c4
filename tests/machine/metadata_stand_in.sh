#!/bin/bash
# What is at the link-local addresses of an EC2 instance, in a network of its own beside the machine: the metadata
# service, and DNS and the clock, which must stay within reach; and a server on the internet, 198.51.100.1 and 2001:db8::1.
# Traffic of containers is forwarded there, as it is on EC2.
set -euo pipefail

# Or networkd would take the addresses away again, and the containers' ends out of their bridge.
mkdir -p /run/systemd/network
printf '[Match]\nName=link0 veth*\n[Link]\nUnmanaged=yes\n' >/run/systemd/network/05-link0.network
networkctl reload

ip netns add link
ip link add link0 type veth peer name host0 netns link
ip addr add 192.0.2.1/30 dev link0
ip -6 addr add 2001:db8:1::1/64 dev link0 nodad
ip link set link0 up
# shellcheck disable=SC2016 # the variables are those of the inner shell
ip netns exec link bash -euc '
  ip link set lo up
  ip link set host0 up
  ip addr add 192.0.2.2/30 dev host0
  ip -6 addr add 2001:db8:1::2/64 dev host0 nodad
  for address in 169.254.169.254 169.254.169.253 169.254.169.123 198.51.100.1; do ip addr add $address/32 dev lo; done
  for address in fd00:ec2::254 fd00:ec2::253 fd00:ec2::123 2001:db8::1; do ip -6 addr add $address/128 dev lo nodad; done
  ip route add default via 192.0.2.1
  ip -6 route add default via 2001:db8:1::1
'
for address in 169.254.169.254 169.254.169.253 169.254.169.123 198.51.100.1; do
  ip route replace $address/32 via 192.0.2.2
done
for address in fd00:ec2::254 fd00:ec2::253 fd00:ec2::123 2001:db8::1; do
  ip -6 route replace $address/128 via 2001:db8:1::2
done
sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

exec setsid ip netns exec link python3 -c '
import socket, selectors
chosen = selectors.DefaultSelector()
for port in (53, 80, 123):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    chosen.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in chosen.select():
        link, _ = key.fileobj.accept()
        link.sendall(b"role-of-the-machine\n")
        link.close()
' </dev/null >/dev/null 2>&1 &
