"""Where a process stands: as the launcher says, and listening where nobody else can."""

import pytest

from e5jax.distributed.process import ProcessInfo, listens_at, read_process_info
from e5jax.errors import ConfigError

SAID = {"JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2", "JAX_COORDINATOR_ADDRESS": "10.0.0.7:8476"}


def test_a_process_of_which_nothing_is_said_is_alone():
    assert (
        read_process_info({"JAX_COORDINATOR_ADDRESS": "10.0.0.7:8476"})
        == ProcessInfo()
        == ProcessInfo(0, 1)
    )


def test_what_a_launcher_says_is_taken():
    assert read_process_info(SAID) == ProcessInfo(2, 4, "10.0.0.7:8476")
    assert (
        read_process_info({**SAID, "JAX_COORDINATOR_BIND_ADDRESS": "0.0.0.0:1"}).bind == "0.0.0.0:1"
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"JAX_PROCESS_ID": ""},
            ["JAX_NUM_PROCESSES=4 without JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS"],
        ),
        ({"JAX_PROCESS_ID": "4"}, ["JAX_PROCESS_ID=4", "below JAX_NUM_PROCESSES=4"]),
        ({"JAX_PROCESS_ID": "-1"}, ["JAX_PROCESS_ID='-1'", "whole number"]),
        ({"JAX_NUM_PROCESSES": "two"}, ["JAX_NUM_PROCESSES='two'", "whole number"]),
        (
            {"JAX_COORDINATOR_ADDRESS": "10.0.0.7"},
            ["JAX_COORDINATOR_ADDRESS='10.0.0.7'", "host:port"],
        ),
    ],
)
def test_half_a_place_is_refused(change, named):
    with pytest.raises(ConfigError) as caught:
        read_process_info({**SAID, **change})
    for words in named:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("coordinator", "at"),
    [
        ("127.0.0.1:8476", "127.0.0.1:8476"),
        ("localhost:8476", "127.0.0.1:8476"),
        ("10.1.2.3:8476", "10.1.2.3:8476"),
        ("[fd00::7]:8476", "[fd00::7]:8476"),
    ],
)
def test_the_service_listens_at_its_own_address_alone(coordinator, at):
    assert listens_at(ProcessInfo(0, 2, coordinator)) in (at, "[::1]:8476")


def test_a_public_address_is_refused_unless_it_is_asked_for():
    with pytest.raises(
        ConfigError, match=r"8\.8\.8\.8 is a public address.*JAX_COORDINATOR_BIND_ADDRESS"
    ):
        listens_at(ProcessInfo(0, 2, "8.8.8.8:8476"))
    assert listens_at(ProcessInfo(0, 2, "8.8.8.8:8476", "8.8.8.8:8476")) == "8.8.8.8:8476"


def test_a_host_that_nobody_knows_is_named():
    with pytest.raises(ConfigError, match=r"JAX_COORDINATOR_ADDRESS=nowhere\.invalid:8476"):
        listens_at(ProcessInfo(0, 2, "nowhere.invalid:8476"))
