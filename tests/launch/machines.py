"""Three machines on this one: network namespaces on a bridge, each with a name of its own and a real sshd."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

TOOLS = ("ip", "unshare", "ssh", "ssh-keygen", "sshd")
SSHD = """
Port 22
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
"""
CLIENT = """
Host *
  User root
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking accept-new
"""


def missing() -> str:
    """Why there can be no machines here, if there can be none."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt install iproute2 openssh-server"
    return "" if os.geteuid() == 0 else "needs root"


class Machines:
    """Use with `with`."""

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...] = ("host-a", "host-b", "host-c"),
        net: str = "10.77.0",
    ):
        self.folder, self.names, self._net = folder, names, net
        self.config = folder / "config"
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._bridge = "e5jax-test"

    def address(self, number: int) -> str:
        return f"{self._net}.{number + 11}"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("key", "host_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name))
        self.config.write_text(
            CLIENT.format(folder=self.folder) + "".join(map(self._entry, range(len(self.names))))
        )
        lines = [f"{self.address(number)} {name}" for number, name in enumerate(self.names)]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        self.remove()
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "address", "add", f"{self._net}.1/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        for number, name in enumerate(self.names):
            self._add(number, name)
        return self

    def _entry(self, number: int) -> str:
        return f"Host {self.names[number]}\n  HostName {self.address(number)}\n"

    def _add(self, number: int, name: str) -> None:
        outer, address = f"e5jax-{number}", self.address(number)
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", outer, "master", self._bridge, "up")
        for words in (
            ["address", "add", f"{address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            _run("ip", "-n", name, *words)
        conf = self.folder / f"sshd-{name}"
        conf.write_text(SSHD.format(address=address, folder=self.folder))
        begin = 'hostname "$0" && mount --bind "$1" /etc/hosts && exec /usr/sbin/sshd -D -e -f "$2"'
        words = ["ip", "netns", "exec", name, "unshare", "--uts", "--mount", "sh", "-c", begin]
        with (self.folder / f"{name}.log").open("wb") as log:
            self._daemons.append(
                subprocess.Popen(
                    [*words, name, str(self.folder / "hosts"), str(conf)], stdout=log, stderr=log
                )
            )
        deadline = time.monotonic() + 30
        while subprocess.run(
            ["ssh", "-F", str(self.config), name, "true"], capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < deadline, (self.folder / f"{name}.log").read_text()
            time.sleep(0.1)

    def cut(self, number: int) -> None:
        """Nothing comes or goes any more."""
        _run("ip", "link", "set", f"e5jax-{number}", "down")

    def mend(self, number: int) -> None:
        _run("ip", "link", "set", f"e5jax-{number}", "up")

    def __exit__(self, *_: object) -> None:
        for daemon in self._daemons:
            daemon.terminate()
            daemon.wait(30)
        self.remove()

    def remove(self) -> None:
        """Deletes namespaces and bridge, if they are there."""
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self._bridge], capture_output=True, check=False)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
