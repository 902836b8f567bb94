"""A Slurm cluster of several virtual nodes on this machine, in a folder of its own (Python's standard library only)."""
import getpass
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time

PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "sbatch", "scontrol", "scancel")
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"

CONFIGURATION = """\
ClusterName=tadapt
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job starts again when its former credentials have run out: two minutes by default, 5 s at least.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
# Nodes have the cores and the memory said below, whatever this machine has.
SlurmdParameters=config_overrides
# Virtual nodes share a file system: what a node calls its own carries its name.
SlurmdSpoolDir={folder}/%n/spool
SlurmdPidFile={folder}/%n/slurmd.pid
SlurmdLogFile={folder}/%n/slurmd.log
TmpFS={folder}/%n/tmp
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=1
ReturnToService=2
JobRequeue=1
KillWait=20
SlurmctldTimeout=10
SlurmdTimeout=6
InactiveLimit=0
NodeName=n[1-{nodes}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first_port}-{last_port}] CPUs={cpus} RealMemory=4000
PartitionName=toy Nodes=ALL Default=YES OverSubscribe=YES MaxTime=INFINITE State=UP
"""


def missing_programs():
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def free_ports(count):
    """The first of `count` free ports in a row."""
    for _ in range(1000):
        first = 20000 + secrets.randbelow(30000)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, each in enumerate(sockets):
                each.bind(("", first + offset))
            return first
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    raise AssertionError("no free ports in a row")


def processes_with(*variables):
    """Pids of all processes but this one that have these environment variables."""
    wanted = {text.encode() for text in variables}
    pids = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and wanted <= set(
                    (entry / "environ").read_bytes().split(b"\0")):
                pids.append(int(entry.name))
        except OSError:
            continue  # it ended while we looked, or is not ours
    return pids


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def guard(configuration):
    """Waits until its standard input ends, as it does when the test stops or dies; then kills what the cluster was."""
    sys.stdin.read()
    end = time.monotonic() + 10
    while (pids := processes_with(f"SLURM_CONF={configuration}")) and time.monotonic() < end:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)


class Cluster:
    """Started when made; `stop` ends every daemon and everything jobs have left behind."""

    def __init__(self, folder, nodes=4, cpus=4, **environment):
        self.folder = pathlib.Path(folder)
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        # Open MPI takes virtual nodes for hosts of their own: no shared memory between them, and more ranks than cores
        # without knowing. With Debian's Open MPI, PMIx and Slurm a rank may leave MPI_Init before another has got through
        # the first of its two fences, and sends it what that one cannot take yet; without that fence this does not happen.
        self.environment = outside | dict(
            PATH=PATH, SLURM_CONF=str(self.folder / "slurm.conf"), OMPI_MCA_btl="self,tcp",
            OMPI_MCA_btl_tcp_if_include="lo", OMPI_MCA_pml="ob1", OMPI_MCA_mpi_yield_when_idle="1",
            OMPI_MCA_pmix_base_async_modex="1", OMPI_MCA_pmix_base_collect_data="0") | environment
        self.daemons = {}
        # No child of this process: a test that takes too long is killed with all its children.
        self.guard = subprocess.Popen(["setsid", "--fork", sys.executable, __file__, str(self.folder / "slurm.conf")],
                                      stdin=subprocess.PIPE, env=outside)
        self.guard.wait()
        port = free_ports(nodes + 1)
        for name in ("state", *(f"{node}/{part}" for node in self.nodes for part in ("spool", "tmp"))):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(
            folder=self.folder, user=getpass.getuser(), nodes=nodes, cpus=cpus, controller_port=port,
            first_port=port + 1, last_port=port + nodes))
        try:
            self._start_munge()
            self._start("slurmctld", ["slurmctld", "-D", "-c"])
            for node in self.nodes:
                self.start_node(node)
            self.wait_for(lambda: self.nodes_in("idle") == set(self.nodes), "all nodes idle", 60)
        except BaseException:
            self.stop()
            raise

    def _start(self, name, words):
        with open(self.folder / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(words, env=self.environment,
                                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _start_munge(self):
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self._start("munged", ["munged", "--foreground", "--force", f"--key-file={key}",
                               f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munged.pid",
                               f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munge.seed"])
        self.wait_for(lambda: (self.folder / "munge.socket").exists(), "munged's socket", 20)

    def start_node(self, node):
        self._start(node, ["slurmd", "-D", "-N", node])

    def stop_node(self, node):
        """Ends a node's slurmd as a crash would; what it has started lives on."""
        daemon = self.daemons.pop(node)
        daemon.kill()
        daemon.wait()

    def kill_node(self, node):
        """Ends a node and everything on it; what it kept in its own folders is gone, as after a reboot."""
        self.stop_node(node)
        tasks = self.processes(f"SLURMD_NODENAME={node}")
        for pid in {*tasks, *map(parent_of, tasks)}:
            os.kill(pid, signal.SIGKILL)
        for part in ("spool", "tmp"):
            shutil.rmtree(self.folder / node / part)
            (self.folder / node / part).mkdir()

    def stop(self):
        self.guard.stdin.close()
        self.wait_for(lambda: not self.processes(), "all of the cluster's processes gone", 20)
        for daemon in self.daemons.values():
            daemon.wait()

    def processes(self, *variables):
        """Pids of the cluster's daemons, and of all that its jobs started, that have these environment variables."""
        return processes_with(f"SLURM_CONF={self.folder}/slurm.conf", *variables)

    def execute(self, words, folder=None, **environment):
        """A finished program with its output; a hang is a failure."""
        return subprocess.run([str(word) for word in words], env=self.environment | environment, timeout=120, text=True,
                              cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def command(self, *words, folder=None, **environment):
        result = self.execute(words, folder, **environment)
        if result.returncode != 0:
            raise AssertionError(f"{words}: {result.stdout}")
        return result.stdout

    def nodes_in(self, state):
        return set(self.execute(["sinfo", "-h", "-N", "-t", state, "-o", "%N"]).stdout.split())

    def submit(self, words, folder, **environment):
        """The id of a batch job."""
        return int(self.command("sbatch", "--parsable", *words, folder=folder, **environment))

    def job(self, number):
        """What scontrol says of a job: {"JobState": "RUNNING", "Restarts": "1", …}."""
        return dict(re.findall(r"(\w+)=(\S*)", self.execute(["scontrol", "show", "job", str(number)]).stdout))

    def wait_for_job(self, number, *states, seconds=120):
        self.wait_for(lambda: self.job(number).get("JobState") in states, f"job {number} {' or '.join(states)}", seconds)
        return self.job(number)

    def wait_for(self, condition, what, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                log = (self.folder / "slurmctld.log").read_text().splitlines()[-20:]
                raise AssertionError("\n".join([f"after {seconds} s still not: {what}; slurmctld's last words:", *log]))
            time.sleep(0.1)


if __name__ == "__main__":
    guard(sys.argv[1])
