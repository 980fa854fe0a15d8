#!/bin/sh
# Runs as the first program of a fresh mount namespace; $1.. are named below.
# Descriptor 3 is the machine's network namespace.
set -eu
tree=$1 dir=$2 cgroup=$3
shift 3
mount --make-rprivate /
mount -t tmpfs tmpfs /run
umount -R /sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Every machine its own group: with --keep-unit nspawn makes its payload group
# below the caller's, and two machines must not manage each other's processes.
mkdir -p "/sys/fs/cgroup/$cgroup"
echo $$ >"/sys/fs/cgroup/$cgroup/cgroup.procs"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
exec systemd-nspawn --quiet --directory="$dir/root" --boot --register=no --keep-unit \
	--network-namespace-path=/proc/self/fd/3 --console=pipe --resolv-conf=off --timezone=off "$@"
