"""Where this process stands in a run, as its launcher says in the environment. Imports no JAX."""

import ipaddress
import socket
from collections.abc import Mapping
from typing import NamedTuple

from e5jax.errors import ConfigError

COORDINATOR, PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
BIND = "JAX_COORDINATOR_BIND_ADDRESS"


class ProcessInfo(NamedTuple):
    """Process `process` of `processes`; the first one offers the coordination service at `coordinator`, as host:port."""

    process: int = 0
    processes: int = 1
    coordinator: str = ""
    bind: str = ""  # where the service listens, if not at `coordinator`


def read_process_info(environment: Mapping[str, str]) -> ProcessInfo:
    """The place of this process; that of an only one where the environment says nothing. Raises ConfigError."""
    said = {name: environment.get(name, "") for name in (PROCESSES, PROCESS, COORDINATOR)}
    if not said[PROCESSES]:
        return ProcessInfo()
    if missing := [name for name, value in said.items() if not value]:
        raise ConfigError(
            f"{PROCESSES}={said[PROCESSES]} without {' and '.join(missing)}: a launcher sets all of {', '.join(said)}, or none"
        )
    processes, process = (_number(name, said[name]) for name in (PROCESSES, PROCESS))
    if not 0 <= process < processes:
        raise ConfigError(
            f"{PROCESS}={process}: must be at least 0 and below {PROCESSES}={processes}"
        )
    host, _, port = said[COORDINATOR].rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"{COORDINATOR}={said[COORDINATOR]!r}: must be host:port, such as 10.0.0.2:8476"
        )
    return ProcessInfo(process, processes, said[COORDINATOR], environment.get(BIND, ""))


def listens_at(place: ProcessInfo) -> str:
    """Where the coordination service listens: nowhere but at the coordinator's own address, which must not be public.

    It asks nobody for a password, and JAX would have it listen to the whole world. Raises ConfigError.
    """
    if place.bind:
        return place.bind
    host, _, port = place.coordinator.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise ConfigError(
            f"{COORDINATOR}={place.coordinator}: {host} cannot be found ({error}); name the first machine"
        ) from error
    address = ipaddress.ip_address(found)
    if address.is_global:
        raise ConfigError(
            f"{COORDINATOR}={place.coordinator}: {found} is a public address, and whoever reaches the coordination service can end "
            f"or disturb the run; use the machine's private address, or say {BIND} where a firewall protects it"
        )
    return f"[{found}]:{port}" if address.version == 6 else f"{found}:{port}"


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise ConfigError(f"{name}={value!r}: must be a whole number")
    return int(value)
