#!/bin/sh
# Run a command on a host whose name is its address on a network, 10.0.7.1, and with no other
# process on that network; write every listener while it runs, one a line, to a file.
# Its own namespaces come from: unshare --user --map-root-user --net --mount --uts
# usage: count_listeners.sh FILE COMMAND...
set -eu
listeners=$1
shift
ip link add cable type veth peer name other
ip address add 10.0.7.1/24 dev cable
for device in lo cable other; do ip link set $device up; done
hostname networked
hosts=$(mktemp)
echo "10.0.7.1 networked" > "$hosts"
mount --bind "$hosts" /etc/hosts
rm "$hosts"
: > "$listeners"
"$@" &
while kill -0 $! 2> /dev/null; do
    cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 >> "$listeners"
    sleep 0.1
done
wait $!
