#!/usr/bin/env bash
# A real Slurm of one node on the loopback, for tests: `. slurm_cluster.sh DIR` starts it and sets SLURM_CONF; `stop_slurm` ends it.
# It needs root, and Debian's packages slurm-wlm and munge.
slurm_dir=$(mkdir -p "$1" && cd "$1" && pwd)
node=$(hostname -s)
mkdir -p "$slurm_dir/state" "$slurm_dir/spool"
cat > "$slurm_dir/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$node(127.0.0.1)
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$slurm_dir/state
SlurmdSpoolDir=$slurm_dir/spool
SlurmctldPidFile=$slurm_dir/ctld.pid
SlurmdPidFile=$slurm_dir/d.pid
SlurmctldLogFile=$slurm_dir/ctld.log
SlurmdLogFile=$slurm_dir/d.log
ReturnToService=2
MinJobAge=3600
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$slurm_dir/slurm.conf
mkdir -p /run/munge && chown munge:munge /run/munge
if [ ! -f /etc/munge/munge.key ]; then
  dd if=/dev/urandom bs=1 count=1024 of=/etc/munge/munge.key 2>/dev/null
  chown munge:munge /etc/munge/munge.key
  chmod 400 /etc/munge/munge.key
fi
munge -n >/dev/null 2>&1 || su -s /bin/sh munge -c munged
slurmctld && slurmd
for _ in 1 2 3 4 5 6 7 8 9 10; do
  sinfo -h -o %t 2>/dev/null | grep -q idle && break
  sleep 1
done
# Waits until both have ended, as they write to their folders until then.
stop_slurm() {
  local pids pid
  pids=$(cat "$slurm_dir/d.pid" "$slurm_dir/ctld.pid")
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  for _ in $(seq 100); do
    for pid in $pids; do
      if kill -0 "$pid" 2>/dev/null; then
        sleep 0.2
        continue 2
      fi
    done
    return 0
  done
  # shellcheck disable=SC2086  # words
  kill -9 $pids 2>/dev/null || true
}
