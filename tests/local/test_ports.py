"""Ports: chosen, remembered, checked; whoever holds one is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from refund.errors import PortTakenError, SettingsError
from refund.local.ports import Ports, check_port_free, holder_of
from tests.conftest import free_port

LISTEN = """
import socket, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listener() -> Iterator[tuple[int, int]]:
    """A process that listens: its pid and its port."""
    with subprocess.Popen([sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=10)


def test_environment_goes_before_memory_and_memory_before_defaults() -> None:
    remembered = Ports(postgres=1111, s3=2222, airflow=3333)
    chosen = Ports.resolve({"REFUND_PORT_S3": " 4444 "}, remembered=remembered)
    assert chosen == Ports(postgres=1111, s3=4444, airflow=3333)
    assert Ports.resolve({}) == Ports(postgres=15432, s3=19000, airflow=18080)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "80.5", "٣x"])
def test_a_value_that_is_no_port_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match=r"REFUND_PORT_AIRFLOW must be a port from 1 to 65535, got"):
        Ports.resolve({"REFUND_PORT_AIRFLOW": text})


def test_two_equal_ports_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"three different ports, got REFUND_PORT_POSTGRES=19000, REFUND_PORT_S3=1"):
        Ports.resolve({"REFUND_PORT_POSTGRES": "19000"})


def test_a_taken_port_names_the_process_that_holds_it(listener: tuple[int, int]) -> None:
    pid, port = listener
    ports = Ports(postgres=free_port(), s3=port, airflow=free_port())
    with pytest.raises(PortTakenError) as caught:
        ports.check_free()
    text = str(caught.value)
    assert f"port {port}, wanted for the S3 server, is held by process {pid} (" in text
    assert "import socket, sys" in text, "the command line tells which of many Pythons it is"
    assert text.endswith("REFUND_PORT_S3=PORT")


def test_a_holder_that_the_system_does_not_show_is_described_all_the_same() -> None:
    assert holder_of(free_port()) == "a process that is not ours to see (of another user, or outside this container)"


def test_a_free_port_passes_again_once_its_holder_is_gone() -> None:
    port = free_port()
    check_port_free(port, purpose="a test", setting="REFUND_PORT_S3")
    check_port_free(port, purpose="a test", setting="REFUND_PORT_S3")
