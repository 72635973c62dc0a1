import os
import socket
import time
from contextlib import closing

import psutil
import pytest

from listening_service import listening_service
from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime.ports import is_free, listened_on, next_free, require_free
from product_classifier.runtime.services import Service
from product_classifier.runtime.supervision import Supervisor
from unused_ports import free_port


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        # No port of the kernel's choice: those beside it come and go, and the next free one is looked for.
        port = free_port()
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield port


class Supervised:
    """A supervisor that says what runs, and which processes that is."""

    def __init__(self, names, processes=()):
        self._names, self._processes = names, processes

    def running(self):
        return self._names

    def processes(self):
        return self._processes


def service(tmp_path, port):
    return Service("mlflow", ("x",), tmp_path, {}, port=port, port_setting="MLFLOW_PORT")


def test_a_port_is_taken_while_somebody_listens(taken_port):
    assert not is_free(taken_port)
    assert is_free(next_free(taken_port))


def test_a_taken_port_is_refused_with_its_holder_and_what_to_set(tmp_path, taken_port):
    with pytest.raises(ConfigurationError) as caught:
        require_free([service(tmp_path, taken_port)], Supervised(set()))
    message = str(caught.value)
    assert f"Port {taken_port} for mlflow is taken by" in message
    assert "python" in message or "pytest" in message
    assert f"MLFLOW_PORT={next_free(taken_port)}" in message


def test_a_port_that_our_own_service_holds_is_fine(tmp_path, taken_port):
    require_free([service(tmp_path, taken_port)], Supervised({"mlflow"}, [psutil.Process()]))


@pytest.mark.parametrize("running", [{"mlflow"}, {"mlflow", "serve"}])
def test_a_service_that_runs_in_vain_beside_the_holder_of_its_port_is_refused(
    tmp_path, taken_port, running
):
    with pytest.raises(ConfigurationError, match=f"Port {taken_port} for mlflow is taken"):
        require_free([service(tmp_path, taken_port)], Supervised(running))


def test_a_service_that_is_not_running_may_not_have_the_port_of_another_of_ours(
    tmp_path, taken_port
):
    with pytest.raises(ConfigurationError, match="for mlflow is taken"):
        require_free([service(tmp_path, taken_port)], Supervised({"serve"}, [psutil.Process()]))


def test_ports_listened_on_are_those_of_the_processes_alone(taken_port):
    with closing(socket.create_connection(("127.0.0.1", taken_port))) as client:
        found = listened_on([psutil.Process()])
        assert taken_port in found
        assert client.getsockname()[1] not in found  # connected, not listening
    assert taken_port not in listened_on([psutil.Process(os.getppid())])
    assert listened_on([]) == set()


def test_a_child_of_a_supervised_service_that_hides_its_mark_holds_its_port(layout):
    port = free_port()
    supervisor = Supervisor(layout)
    try:
        supervisor.apply([listening_service(layout, "mlflow", port)])
        deadline = time.monotonic() + 120
        while port not in listened_on(supervisor.processes()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        require_free([service(layout.root, port)], supervisor)
    finally:
        supervisor.stop()
    assert supervisor.processes() == []
