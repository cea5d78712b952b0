#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The first process of a guest: file systems, modules, then the agent, which does as the host says.
export PATH=/usr/sbin:/usr/bin HOME=/root
/bin/busybox --install -s /usr/bin
chmod 755 /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t securityfs securityfs /sys/kernel/security
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
: >/lab/not-loaded
while read -r module; do
	insmod "/lab/modules/$module" 2>/tmp/insmod || echo "$module ($(sed 's/.*: //' /tmp/insmod))" >>/lab/not-loaded
done </lab/modules/order
/lab/agent agent
echo "lab: the agent ended with $?"
poweroff -f
