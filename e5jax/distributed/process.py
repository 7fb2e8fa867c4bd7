"""The rank of this process in a run, read from the launcher's environment variables.

Imports no JAX, so that a launcher can use it.
"""

import ipaddress
import socket
from collections.abc import Mapping
from typing import NamedTuple

from e5jax.errors import ConfigError

COORDINATOR, PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
BIND = "JAX_COORDINATOR_BIND_ADDRESS"


class ProcessInfo(NamedTuple):
    """Process number `process` of `processes`.

    Process 0 runs the coordination service at `coordinator` (host:port).
    """

    process: int = 0
    processes: int = 1
    coordinator: str = ""
    bind: str = ""  # where the service listens if not at `coordinator`


def read_process_info(environment: Mapping[str, str]) -> ProcessInfo:
    """Reads the rank of this process; without any of the variables it is the only one.

    Raises ConfigError if a variable is missing or invalid.
    """
    values = {name: environment.get(name, "") for name in (PROCESSES, PROCESS, COORDINATOR)}
    if not values[PROCESSES]:
        return ProcessInfo()
    if missing := [name for name, value in values.items() if not value]:
        raise ConfigError(
            f"{PROCESSES}={values[PROCESSES]} without {' and '.join(missing)}: "
            f"a launcher sets all of {', '.join(values)}, or none"
        )
    processes, process = (_number(name, values[name]) for name in (PROCESSES, PROCESS))
    if not 0 <= process < processes:
        raise ConfigError(
            f"{PROCESS}={process}: must be at least 0 and below {PROCESSES}={processes}"
        )
    host, _, port = values[COORDINATOR].rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"{COORDINATOR}={values[COORDINATOR]!r}: must be host:port, such as 10.0.0.2:8476"
        )
    return ProcessInfo(process, processes, values[COORDINATOR], environment.get(BIND, ""))


def listens_at(info: ProcessInfo) -> str:
    """Returns the address (host:port) at which the coordination service listens.

    The service has no password, and by default JAX makes it listen on every interface. Here it
    listens on the coordinator's own address only, which must be private. Raises ConfigError.
    """
    if info.bind:
        return info.bind
    host, _, port = info.coordinator.rpartition(":")
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(
            f"{COORDINATOR}={info.coordinator}: {host} cannot be found ({error}); "
            "name the first machine"
        ) from error
    address = ipaddress.ip_address(addresses[0][4][0])
    if address.is_global:
        raise ConfigError(
            f"{COORDINATOR}={info.coordinator}: {address} is a public address, and whoever reaches "
            "the coordination service can end or disturb the run; use the machine's private "
            f"address, or set {BIND} where a firewall protects it"
        )
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise ConfigError(f"{name}={value!r}: must be a whole number")
    return int(value)
