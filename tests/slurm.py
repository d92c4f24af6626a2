"""A Slurm of one node, all of whose files lie in one folder, for tests of jobs."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

CONF = """ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MinJobAge=300
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
SRUN = """#!/bin/sh
# a job step is started without SLURM_CONF, as on a cluster whose settings lie in /etc
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running(folder: Path):
    """Inside it a Slurm works in `folder`; the environment of those who hand it jobs."""
    for name in ("munge", "state", "spool", "bin"):
        (folder / name).mkdir(parents=True, mode=0o700 if name == "munge" else 0o755)
    folder.chmod(0o755)
    facts = dict(folder=folder, host=socket.gethostname().split(".")[0], user=getpass.getuser())
    facts |= dict(ports=free_ports(2), cores=os.cpu_count(), srun=shutil.which("srun"))
    (folder / "slurm.conf").write_text(CONF.format(**facts))
    (folder / "bin/srun").write_text(SRUN.format(**facts))
    (folder / "bin/srun").chmod(0o755)
    (folder / "munge/key").write_bytes(os.urandom(128))
    (folder / "munge/key").chmod(0o400)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge/socket", *munge],
        ["slurmctld", "-D", "-c", "-f", folder / "slurm.conf"],
        ["slurmd", "-D", "-c", "-f", folder / "slurm.conf"],
    ]
    processes = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("w") as out:
                processes.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment))
            time.sleep(1)
        wait_for(lambda: "idle" in asked(environment, "sinfo", "-h", "-o", "%T"))
        yield environment
    finally:
        asked(environment, "scancel", "-u", getpass.getuser())
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


def asked(environment: dict, *command: str) -> str:
    """What a command of Slurm answers."""
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    ).stdout


def jobs(environment: dict) -> list[str]:
    """The numbers of the jobs that wait or run."""
    return asked(environment, "squeue", "-h", "-o", "%i", "-t", "PENDING,RUNNING").split()


def wait_for(happened, seconds: float = 60.0):
    """What `happened` gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := happened():
            return found
        time.sleep(0.2)
    raise AssertionError("did not happen")
