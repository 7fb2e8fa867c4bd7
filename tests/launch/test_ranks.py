"""Which process of which run this is, by what Slurm, MPI, SkyPilot and TPU machines say."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from jax._src.clusters.ompi_cluster import OmpiCluster
from jax._src.clusters.slurm_cluster import SlurmCluster

from e5jax.distributed.process import ProcessInfo, read_process_info
from e5jax.errors import ConfigError
from launch.launcher import ranks

SLURM = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}
NODES = ["n1", "n1,n2", "n[003-5,7],m1", "gpu-[12,14]", "a-b-001", "x[1-2]", "rack1-n[0001-0040]"]


@pytest.mark.parametrize("nodes", NODES)
def test_slurm_is_read_as_jax_reads_it(nodes, monkeypatch):
    environment = {**SLURM, "SLURM_STEP_NODELIST": nodes}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wanted = SlurmCluster.get_coordinator_address(10, None)
    assert read_process_info(ranks.slurm(environment)) == ProcessInfo(2, 4, wanted)
    assert SlurmCluster.get_process_id() == 2


@pytest.mark.parametrize("version", [4, 5])
def test_mpi_says_who_and_the_command_says_where(version, monkeypatch):
    environment = {
        "OMPI_COMM_WORLD_SIZE": "3",
        "OMPI_COMM_WORLD_RANK": "1",
        "JAX_COORDINATOR_ADDRESS": "10.0.0.7:8476",
    }
    if version == 4:
        environment["OMPI_MCA_orte_hnp_uri"] = "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert (OmpiCluster.get_process_id(), OmpiCluster.get_process_count()) == (1, 3)
    assert read_process_info(ranks.mpi(environment)) == ProcessInfo(1, 3, "10.0.0.7:8476")


def test_sky_lists_its_nodes_in_order():
    environment = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2\n"}
    assert read_process_info(ranks.sky(environment)) == ProcessInfo(1, 2, "10.0.0.1:8476")


def test_a_process_on_its_own_is_told_nothing():
    assert ranks.sky({"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "10.0.0.1"}) == {}


GKE = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "s-0-0.s,s-0-1.s,s-0-2.s,s-0-3.s"}
SLICE = {
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "s-0-0.s:8080",
}
METADATA = {
    "new": {
        "agent-worker-number": "2",
        "worker-network-endpoints": "10.0.0.1,10.0.0.2,10.0.0.3",
        "tpu-env": "NAME: 'x'\n",
    },
    "old": {
        "agent-worker-number": "2",
        "worker-network-endpoints": "h:1:10.0.0.1,h:2:10.0.0.2,h:3:10.0.0.3",
        "tpu-env": "",
    },
    "slices": {
        "agent-worker-number": "0",
        "worker-network-endpoints": "10.1.0.1,10.1.0.2",
        "tpu-env": "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\nMEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1'\n",
    },
}


def test_pods_with_tpus_say_it_in_the_environment():
    assert read_process_info(ranks.tpu(GKE)) == ProcessInfo(1, 4, "s-0-0.s:8476")
    assert read_process_info(ranks.tpu({**GKE, **SLICE})) == ProcessInfo(5, 8, "s-0-0.s:8476")


class Server(BaseHTTPRequestHandler):
    """A metadata server: attributes by name, only for who asks in Google's way."""

    attributes: dict[str, str] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        value = self.attributes.get(self.path.rpartition("/")[2])
        good = value is not None and self.headers.get("Metadata-Flavor") == "Google"
        self.send_response(200 if good else 403)
        self.end_headers()
        self.wfile.write((value or "").encode() if good else b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch) -> Iterator[type[Server]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(ranks, "METADATA", f"http://127.0.0.1:{server.server_port}/attributes/")
        yield Server
        server.shutdown()


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("new", ProcessInfo(2, 3, "10.0.0.1:8476")),
        ("old", ProcessInfo(2, 3, "10.0.0.1:8476")),
        ("slices", ProcessInfo(2, 4, "10.0.0.1:8476")),
    ],
)
def test_virtual_machines_with_tpus_ask_the_metadata_server(kind, place, metadata, monkeypatch):
    monkeypatch.setattr(metadata, "attributes", METADATA[kind])
    assert read_process_info(ranks.tpu({})) == place


def test_where_there_is_none_it_is_said(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(ranks, "METADATA", f"http://127.0.0.1:{closed.getsockname()[1]}/")
        with pytest.raises(ConfigError, match="this is not a TPU VM"):
            ranks.tpu({})


@pytest.mark.parametrize("kind", ["slurm", "mpi", "sky"])
def test_who_was_not_started_so_is_told(kind):
    with pytest.raises(
        ConfigError,
        match=f"--rank={kind}: .* is not set; {kind} has not started this process",
    ):
        ranks.variables_of(kind, {})
