import socket

import pytest

from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime.ports import is_free, next_free, require_free
from product_classifier.runtime.services import Service


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def service(tmp_path, port):
    return Service("mlflow", ("x",), tmp_path, {}, port=port, port_setting="MLFLOW_PORT")


def test_a_port_is_taken_while_somebody_listens(taken_port):
    assert not is_free(taken_port)
    assert is_free(next_free(taken_port))


def test_a_taken_port_is_refused_with_its_holder_and_what_to_set(tmp_path, taken_port):
    with pytest.raises(ConfigurationError) as caught:
        require_free([service(tmp_path, taken_port)], set())
    message = str(caught.value)
    assert f"Port {taken_port} for mlflow is taken by" in message
    assert "python" in message or "pytest" in message
    assert f"MLFLOW_PORT={next_free(taken_port)}" in message


def test_a_port_that_our_own_service_holds_is_fine(tmp_path, taken_port):
    require_free([service(tmp_path, taken_port)], {"mlflow"})
