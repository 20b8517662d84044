"""Scripts that run one plan on several machines for as long as it takes: what `looper cluster` writes.

A script has two parts. `node`, sent to every machine as text, starts Ray there and ends it when the sender is gone. Below it stands
what sends it, by SLURM or by SSH, runs the plan and ends with it. The token is made by the script itself and reaches nodes on standard
input: what stands on a command line or in an environment can be read by others, or is written down by the queue.
"""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from looper.errors import BadInput, one_line

OVERHEAD_MB = 4096
"""Memory of a node beside its cells: Ray's processes, and the run's own on the first node."""
_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}")
"""As sbatch takes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds."""


@dataclass(frozen=True)
class Batch:
    """One plan, and how its cells lie on nodes."""

    name: str
    """Of the plan, for people."""
    plan: str
    """As it is named in the command."""
    options: Sequence[str]
    """Of the run, without its engine."""
    folder: str
    """Where the command is given, and its runs are."""
    python: str
    """The interpreter with Looper and Ray, by its path on every node."""
    memory_mb: int
    """Of one cell."""
    cells: int | None
    """At once on a node; None for as many as it has CPUs."""
    workers: int | None
    """Attempts at once that the command itself names."""
    serve: str = ""
    """What starts a model server on every node that works on cells, in shell; empty for none."""

    def run(self, nodes: int) -> str:
        """The run's command in shell, with the address that the script found."""
        workers = self.workers or (self.cells and self.cells * nodes)
        pace = [] if self.workers or not workers else ["--workers", str(workers)]
        options = "".join(f"{shlex.quote(word)} " for word in [*self.options, *pace])
        return f'"$python" -m looper run {options}--engine "ray:$head" -- {shlex.quote(self.plan)}'


_NODE = r"""
# On every node: Ray, until the sender of this is gone or Ray has ended. $1: address of the head, HOST:PORT; $2: whether this is the head, yes,
# no, or first for the first node of a SLURM job; $3: cells at once, or nothing for as many as there are CPUs; $4: MiB of one cell; $5: the interpreter;
# $6: what starts a model server beside it, or nothing.
# shellcheck disable=SC2329  # It is sent as text.
node() {
  local head=$1 is_head=$2 cells=$3 memory_mb=$4 python=$5 serve=$6 token place here ray server='' life what said before=none code=''
  umask 077
  IFS= read -r token
  exec 3<&0 </dev/null
  here=$(uname -n)
  place=$(mktemp -d "${TMPDIR:-/tmp}/looper.XXXXXX") || exit 1
  printf %s "$token" >"$place/token"
  unset token RAY_AUTH_TOKEN RAY_ADDRESS
  # What has this in its environment is ended with the node.
  export LOOPER_NODE="$place"
  if [ -n "$serve" ] && [ "${cells:-1}" != 0 ]; then
    export LOOPER_SERVER_WAIT_S="${LOOPER_SERVER_WAIT_S:-600}"
    env -u RAY_AUTH_MODE -u RAY_AUTH_TOKEN_PATH "$python" -c "$keeper" "$serve" "$here" &
    server=$!
  fi
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$place/token" RAY_USAGE_STATS_ENABLED=0
  # Other jobs may be on this machine: no port is fixed but the head's, which was free.
  what=(--block --temp-dir="$place/ray" --min-worker-port=0 --max-worker-port=0 --object-store-memory=150000000
    --include-log-monitor=false --disable-usage-stats)
  if [ -n "$cells" ]; then what+=(--num-cpus="$cells"); fi
  if [ "${cells:-0}" -gt 0 ]; then what+=(--memory="$((cells * memory_mb * 1048576))"); fi
  if [ "$is_head" = yes ] || { [ "$is_head" = first ] && [ "$SLURM_NODEID" = 0 ]; }; then
    what+=(--head --node-ip-address="${head%:*}" --port="${head##*:}" --include-dashboard=false --no-monitor)
  else
    what+=(--address="$head")
  fi
  # Machines that are busy are slow at it: Ray's own patience is a minute with the head, and half of one elsewhere.
  export RAY_DASHBOARD_STARTUP_TIMEOUT_S=180
  cat <&3 >/dev/null &
  life=$!
  trap 'kill "$life" 2>/dev/null' TERM INT HUP
  SECONDS=0
  while kill -0 "$life" 2>/dev/null && { [ -z "$code" ] || [ "$SECONDS" -lt 180 ]; }; do
    code=69
    "$python" -m ray.scripts.scripts start "${what[@]}" >"$place/log" 2>&1 &
    ray=$!
    while kill -0 "$ray" 2>/dev/null && kill -0 "$life" 2>/dev/null; do sleep 0.5; done
    kill -0 "$life" 2>/dev/null || code=0
    if [ "$code" != 0 ]; then
      said=$(grep -v '^[[:space:]]*$' "$place/log" | tail -n 3 | tr '\n' ' ')
      if [ "$said" != "$before" ]; then echo "looper: Ray ended on $here: ${said:-it said nothing}" >&2; fi
      before=$said
      sleep 2
    fi
  done
  kill "$life" 2>/dev/null
  exec 2>/dev/null
  kill "$ray" ${server:+"$server"}
  for _ in $(seq 20); do { kill -0 "$ray" || { [ -n "$server" ] && kill -0 "$server"; }; } && sleep 0.5; done
  for life in /proc/[0-9]*; do
    if [ "${life##*/}" != "$$" ] && grep -qsF "LOOPER_NODE=$place" "$life/environ"; then kill -9 "${life##*/}"; fi
  done
  kill -9 "$ray"
  wait
  rm -rf -- "$place"
  exit "$code"
}

# What a node is sent: the function above, its arguments, the token, and nothing more until this script has ended, however that is.
program() {
  declare -f node
  printf 'keeper=%q\n' "$keeper"
  printf 'node %q %q %q %q %q %q\n' "$head" "$1" "$2" "$memory_mb" "$python" "$serve"
  cat "$place/token"
  echo
  while [ -e "$place/token" ] && kill -0 "$$" 2>/dev/null; do sleep 1; done
}
"""

_KEEPER = r"""
import ctypes, os, signal, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
said = b""
def children():
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    found.append(int(name))
        except OSError:
            pass
    return found
def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    began = time.monotonic()
    while here := children():
        for each in here:
            try:
                os.kill(each, signal.SIGTERM if time.monotonic() - began < 5 else signal.SIGKILL)
            except OSError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        time.sleep(0.2)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
ours, its = os.pipe()
subprocess.Popen(["bash", "-c", sys.argv[1]], stdin=subprocess.DEVNULL, stdout=its, stderr=its)
os.close(its)
while piece := os.read(ours, 65536):
    said = (said + piece)[-65536:]
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()][-3:]
words = " ".join("".join(sign if sign.isprintable() else "?" for sign in line[-200:]) for line in lines)
sys.stderr.write(f"looper: the model server on {sys.argv[2]} ended: {words or 'it said nothing'}\n")
"""
"""Runs the command of a model server as the parent of all that comes of it, keeps the end of what it says, and says so where all of it is over."""

_BEGIN = r"""
# Signalled before its time is over, the run ends in order within seconds; what it recorded stays.
stopped='' run=''
trap 'stopped=yes; if [ -n "$run" ]; then kill -TERM "$run" 2>/dev/null; fi' TERM INT HUP
umask 077
place=$(mktemp -d "${TMPDIR:-/tmp}/looper.XXXXXX") || exit 1
trap 'rm -rf -- "$place"' EXIT
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$place/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$place/token" RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_TOKEN RAY_ADDRESS
"""

_RUN = r"""
# Until every node is there, or three minutes have brought no other.
cat >"$place/wait.py" <<'END'
import logging, os, sys, time
address, wanted = sys.argv[1], int(sys.argv[2])
senders = [int(number) for number in sys.argv[3:]]
def alive(process):
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
since, found, joined = time.monotonic(), 0, False
while found < wanted and time.monotonic() - since < 180 and any(map(alive, senders)):
    try:
        if not joined:
            import ray
            ray.init(address=address, log_to_driver=False, logging_level=logging.FATAL)
            joined = True
        now = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
    except Exception as error:
        now, said = 0, str(error).strip().splitlines()[:1]
    if now != found:
        since, found = time.monotonic(), now
    time.sleep(0.5)
if not found:
    why = "" if joined else f": {''.join(said) if 'said' in globals() else 'Ray did not start'}"
    sys.exit(f"looper: no node of {wanted} has joined the cluster at {address}{why}")
if found < wanted:
    print(f"looper: {found} of {wanted} nodes have joined; the run begins with them", file=sys.stderr)
END
# Each in the background: a signal is heeded while the shell waits for it, and not before the end of a command in the foreground. It ends the
# wait, too, before what is waited for has ended.
until_over() {
  if [ -n "$stopped" ]; then kill -TERM "$run" 2>/dev/null; fi
  wait "$run"
  code=$?
  while kill -0 "$run" 2>/dev/null; do
    wait "$run"
    code=$?
  done
}
code=143
if [ -z "$stopped" ]; then
  "$python" "$place/wait.py" "$head" "$nodes" "${senders[@]}" &
  run=$!
  until_over
  if [ -n "$stopped" ]; then
    code=143
  elif [ "$code" != 0 ]; then
    code=69
  else
    @RUN@ &
    run=$!
    # Nor does the run outlive a script that was killed.
    (
      while kill -0 "$$" 2>/dev/null; do sleep 1; done
      kill -TERM "$run" 2>/dev/null
    ) &
    guard=$!
    until_over
    kill "$guard" 2>/dev/null
  fi
fi

# Nodes end when what they read ends.
rm -f -- "$place/token"
for _ in $(seq 40); do
  left=
  for sender in "${senders[@]}"; do if kill -0 "$sender" 2>/dev/null; then left=yes; fi; done
  if [ -z "$left" ]; then break; fi
  sleep 0.5
done
kill "${senders[@]}" 2>/dev/null
exit "$code"
"""


def slurm_script(batch: Batch, nodes: int, cpus: int, time: str) -> str:
    """For sbatch. Raises BadInput where `time` is none of SLURM's."""
    if not _TIME.fullmatch(time):
        raise BadInput(
            f"--time {one_line(time)}: write it as SLURM does, MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS."
        )
    cells = batch.cells or cpus
    batch = replace(batch, cells=cells)
    return f"""#!/bin/bash
#SBATCH --job-name=looper-{_plain(batch.name)}
#SBATCH --output=%x-%j.out
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={cells * batch.memory_mb + OVERHEAD_MB}M
#SBATCH --time={time}
#SBATCH --signal=B:TERM@120
#SBATCH --dependency=singleton
#SBATCH --no-kill
#
# Submit it with sbatch. Two minutes before the time is over, or with scancel --batch --signal=TERM, the run is ended in order; submit
# the same file again, and it goes on: finished cells stay. Submitted several times at once, one job follows the other
# (--dependency=singleton). A node that fails ends its own attempts, which are made elsewhere, and not the job (--no-kill), unless it is the first one.
# Account and partition are options of sbatch: sbatch --account=A --partition=P FILE.
#
# {cells} cells at once on each node, {batch.memory_mb} MiB each. Nodes form a Ray cluster that only a token of this job's own lets in, without dashboard; it
# ends with the job. Looper, Ray and environments must be there on every node; what else it lacks is sent to it: docs/scale.md.

cd -- {shlex.quote(batch.folder)} || exit 2
python={shlex.quote(batch.python)} memory_mb={batch.memory_mb} nodes=$SLURM_JOB_NUM_NODES
{_serving(batch)}
{_NODE}{_BEGIN}
# This script runs on the first node, which is the head.
address=$(getent ahostsv4 "$(uname -n)" | while read -r each _; do case $each in 127.*) ;; *) echo "$each"; break ;; esac; done)
if [ -z "$address" ]; then read -r address _ <<<"$(hostname -I)"; fi
head=$address:$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])') || exit 2
# A step of one task on each node.
program first {cells} | srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 \\
  --cpus-per-task={cpus} --overlap --no-kill --wait=0 --kill-on-bad-exit=0 bash -s &
senders=($!)
{_RUN.replace("@RUN@", batch.run(nodes))}"""


def hosts_script(batch: Batch, hosts: Sequence[str], ssh: str, address: str | None) -> str:
    """For a machine that reaches hosts by SSH. Raises BadInput where a host is named like an option, or twice."""
    for host in hosts:
        if not host or host.startswith("-") or any(sign.isspace() or not sign.isprintable() for sign in host):
            raise BadInput(f'"{one_line(host)}" is no host. Name it as for ssh: HOST or USER@HOST.')
        if hosts.count(host) > 1:
            raise BadInput(f"{host} is named twice. Name every host once.")
    found = (
        shlex.quote(address)
        if address
        else """$("${ssh[@]}" -- "${hosts[0]}" printenv SSH_CONNECTION | tail -n 1 | cut -d ' ' -f 1)"""
    )
    return f"""#!/bin/bash
#
# Run it with bash on the machine that is to keep the run's records; it reaches every host by ssh, without a password. Interrupted
# (Ctrl-C, or kill), the run is ended in order; run the same file again, and it goes on: finished cells stay.
#
# {batch.cells or "As many"} cells at once on each host{"" if batch.cells else " as it has CPUs"}, {batch.memory_mb} MiB each. Hosts and this machine form a Ray cluster that only a token of this
# script's own lets in, without dashboard; it ends with the script, also where that is killed. This machine itself works on no cells. Looper, Ray,
# suites, environments and models must be there on every host, the interpreter by the same path: docs/scale.md. Hosts and this machine
# reach each other on any port.

cd -- {shlex.quote(batch.folder)} || exit 2
python={shlex.quote(batch.python)} memory_mb={batch.memory_mb} cells={batch.cells or ""}
{_serving(batch)}
ssh=({ssh} -T -o BatchMode=yes -o ServerAliveInterval=15)
hosts=({shlex.join(hosts)}) nodes={len(hosts)}
{_NODE}{_BEGIN}
# This machine's address as hosts see it.
address={found}
if [ -z "$address" ]; then
  echo "looper: ${{hosts[0]}} does not say how it sees this machine: it cannot be reached by ssh, or name the address yourself with --address" >&2
  exit 69
fi
head=$address:$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])') || exit 2
program yes 0 | bash -s &
senders=($!)
for host in "${{hosts[@]}}"; do
  program no "$cells" | "${{ssh[@]}}" -- "$host" bash -s &
  senders+=($!)
done
{_RUN.replace("@RUN@", batch.run(len(hosts)))}"""


def _serving(batch: Batch) -> str:
    """The command of the model servers, and patience until they are up."""
    if not batch.serve:
        return "serve= keeper="
    return f"""# A model server on every node that works on cells, which ends with the node. A run waits ten minutes for it.
serve={shlex.quote(batch.serve)}
# What starts it: whatever it begins stays below this process, also what goes into the background or empties its environment, and ends with it.
keeper={shlex.quote(_KEEPER)}
export LOOPER_SERVER_WAIT_S="${{LOOPER_SERVER_WAIT_S:-600}}\""""


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", os.path.basename(name))
