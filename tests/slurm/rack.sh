#!/usr/bin/env bash
# A throw-away Slurm cluster on this machine, for tests.
#
#   tests/slurm/rack.sh FOLDER NODES COMMAND…    runs the command on the controller of a new cluster
#   FOLDER/node.sh up|off N                      switches a node on or off, from within the command
#   FOLDER/node.sh run N COMMAND…                runs a command on a node
#
# Every node has its own address (10.231.0.N), name (nN), process numbers, /dev/shm and node-local folder /run/node, and
# two GPUs that are only files. The controller and all nodes live in namespaces of their own, and everything ends with
# the command, even when this is killed. FOLDER keeps configuration and logs. Needs root, util-linux, iproute2, procps
# and Debian's slurmctld, slurmd, slurm-client and munge.

set -euo pipefail

if [ "${RACK_INSIDE:-}" != yes ]; then
  mkdir -p "$1"
  exec env RACK_INSIDE=yes unshare --net --mount --uts --ipc --pid --fork --kill-child --mount-proc -- "$0" "$@"
fi

D="$(cd "$1" && pwd -P)"
N="$2"
shift 2
export SLURM_CONF="$D/slurm.conf"

main() {
  mkdir -p "$D"/{state,spool,log,run,dev}
  make_network
  make_gpus
  configure
  write_node_script
  head -c 128 /dev/urandom >"$D/run/munge.key" && chmod 600 "$D/run/munge.key"
  munged --key-file="$D/run/munge.key" --socket="$D/run/munge.sock" --pid-file="$D/run/munged.pid" \
    --log-file="$D/log/munged.log" --seed-file="$D/run/munged.seed" --force
  slurmctld -i 2>>"$D/log/slurmctld.stderr"
  for i in $(seq "$N"); do "$D/node.sh" up "$i"; done
  await_nodes
  "$@"
}

make_network() {
  hostname ctl # slurmctld wants to find itself in its configuration
  mount -t tmpfs tmpfs /run && mkdir /run/netns /run/node # names of network namespaces would leak to the machine
  ip link set lo up
  ip link add br0 type bridge && ip addr add 10.231.0.254/24 dev br0 && ip link set br0 up
  {
    printf '127.0.0.1 localhost\n10.231.0.254 ctl\n'
    for i in $(seq "$N"); do echo "10.231.0.$i n$i"; done
  } >"$D/hosts"
  mount --bind "$D/hosts" /etc/hosts
  # No name server, said at once: one that cannot be reached costs every lookup of an address 10 s.
  if [ -f /etc/resolv.conf ]; then
    echo 'nameserver 127.0.0.1' >"$D/resolv.conf"
    mount --bind "$D/resolv.conf" /etc/resolv.conf
  fi
  for i in $(seq "$N"); do
    ip netns add "n$i"
    ip link add "v$i" type veth peer name eth0 netns "n$i"
    ip link set "v$i" master br0 up
    ip -n "n$i" addr add "10.231.0.$i/24" dev eth0
    ip -n "n$i" link set lo up && ip -n "n$i" link set eth0 up
    ip -n "n$i" route add default via 10.231.0.254
    mkdir -p "$D/spool/n$i"
    # Debian lets a machine's own name be a loopback address.
    sed "s/^10.231.0.$i .*/127.0.1.1 n$i/" "$D/hosts" >"$D/hosts.n$i"
  done
}

# With plain files instead of devices, or a count, slurmd sets no CUDA_VISIBLE_DEVICES.
make_gpus() {
  mknod "$D/dev/nvidia0" c 1 3
  mknod "$D/dev/nvidia1" c 1 3
  echo "Name=gpu File=$D/dev/nvidia[0-1]" >"$D/gres.conf"
}

configure() {
  cat >"$SLURM_CONF" <<CONF
ClusterName=rack
SlurmctldHost=ctl(10.231.0.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for as long as credentials live.
AuthInfo=socket=$D/run/munge.sock,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0,requeue_delay=1
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
MailProg=/bin/true
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd.%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdTimeout=60
KillWait=15
MessageTimeout=5
MinJobAge=3600
NodeName=n[1-$N] CPUs=8 RealMemory=8000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
}

write_node_script() {
  cat >"$D/node.sh" <<NODE
#!/usr/bin/env bash
set -euo pipefail
export SLURM_CONF="$SLURM_CONF"
what="\$1" i="\$2"
case "\$what" in
  up)
    nsenter --net="/run/netns/n\$i" unshare --mount --pid --fork --kill-child --uts --ipc --mount-proc -- bash -c "
      hostname n\$i
      mount -t tmpfs -o size=2g tmpfs /dev/shm
      mount -t tmpfs tmpfs /run/node
      mount --bind '$D/hosts.n\$i' /etc/hosts
      slurmd -D -N n\$i & wait" >>"$D/log/slurmd.n\$i.stdout" 2>&1 </dev/null &
    echo \$! >"$D/run/n\$i.pid"
    ;;
  off) kill -9 "\$(cat "$D/run/n\$i.pid")" ;;
  run)
    shift 2
    exec nsenter --target "\$(pgrep --parent "\$(cat "$D/run/n\$i.pid")" | head -n 1)" --all --wd="\$PWD" -- "\$@"
    ;;
esac
NODE
  chmod +x "$D/node.sh"
}

await_nodes() {
  local end=$((SECONDS + 30))
  until [ "$(timeout 3 sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = "$N" ]; do
    if ! kill -0 "$(cat "$D/run/slurmctld.pid" 2>/dev/null)" 2>/dev/null || [ $SECONDS -gt $end ]; then
      echo "the rack did not come up" >&2
      tail -n 15 "$D"/log/* >&2
      exit 97
    fi
    sleep 0.1
  done
}

main "$@"
