"""A Slurm of two nodes on this machine: controller and node daemons, in mount namespaces that know the names of the nodes."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

TOOLS = ("slurmctld", "slurmd", "sbatch", "unshare")
CONF = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first} CPUs=8
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={second} CPUs=8
PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL State=UP PriorityTier=10
"""


def missing() -> str:
    """Why there can be no Slurm here, if there can be none."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return (
        f"needs {', '.join(absent)}: apt install slurm-wlm"
        if absent
        else ""
        if os.geteuid() == 0
        else "needs root"
    )


class Slurm:
    """Use with `with`; `conf` is what SLURM_CONF is to be."""

    def __init__(self, folder: Path, port: int = 17_100):
        self.folder, self.conf = folder, folder / "slurm.conf"
        self._port = port
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for name in ("state", "spool-n1", "spool-n2"):
            (self.folder / name).mkdir(parents=True)
        port = self._port
        self.conf.write_text(
            CONF.format(folder=self.folder, port=port, first=port + 1, second=port + 2)
        )
        (self.folder / "hosts").write_text(
            f"{Path('/etc/hosts').read_text()}\n127.0.0.1 {socket.gethostname()} n1 n2\n"
        )
        for daemon in (
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "n1"],
            ["slurmd", "-D", "-N", "n2"],
        ):
            self._daemons.append(self._inside(*daemon))
        deadline = time.monotonic() + 30
        while (
            self.ask(
                "sinfo", "--noheader", "--partition=low", "--states=idle", "--format=%D"
            ).strip()
            != "2"
        ):
            if time.monotonic() > deadline:
                self.close()
                raise TimeoutError("".join(path.read_text() for path in self.folder.glob("*.out")))
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.ask("scancel", "--user=root")
        self.close()

    def close(self) -> None:
        """Ends the daemons."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(30)

    def _inside(self, *argv: str) -> subprocess.Popen[bytes]:
        bind = 'mount --bind "$0" /etc/hosts && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", bind, str(self.folder / "hosts"), *argv]
        with (self.folder / f"{argv[0]}.out").open("ab") as output:
            return subprocess.Popen(command, env=self.environment(), stdout=output, stderr=output)

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """What clients need."""
        return {**os.environ, **(more or {}), "SLURM_CONF": str(self.conf)}

    def ask(self, *argv: str) -> str:
        """What one of Slurm's commands says."""
        return subprocess.run(
            argv, env=self.environment(), capture_output=True, text=True, check=False, timeout=60
        ).stdout
