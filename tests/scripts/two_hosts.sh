#!/bin/sh
# Run a command on two hosts that are two network namespaces, joined by a cable. Its own namespaces
# of users, mounts and networks come from: unshare --user --map-root-user --net --mount
# "NODE" in the command becomes 0 on the first host, which is 10.0.7.1, and 1 on the second.
set -eu
mount -t tmpfs none /run
mkdir /run/netns
ip netns add second
ip link add cable type veth peer name cable netns second
ip address add 10.0.7.1/24 dev cable
ip -n second address add 10.0.7.2/24 dev cable
for host in "" "-n second"; do
    ip $host link set lo up
    ip $host link set cable up
done
export GLOO_SOCKET_IFNAME=cable
ip netns exec second sh -c "$(printf %s "$1" | sed s/NODE/1/g)" &
second=$!
sh -c "$(printf %s "$1" | sed s/NODE/0/g)" || status=$?
wait $second || status=$?
exit ${status:-0}
