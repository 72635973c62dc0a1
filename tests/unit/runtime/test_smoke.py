"""The proof of a deployment, against a small real server that answers well, or otherwise."""

import importlib.util
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.workspace import Workspace
from product_classifier.modeling.predictor import Predictor, ProductInput
from product_classifier.runtime.example import choose_example
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.smoke import smoke

_PATH = Path(__file__).parents[1] / "client" / "api_server.py"
_SPEC = importlib.util.spec_from_file_location("smoke_api_server", _PATH)
api_server = importlib.util.module_from_spec(_SPEC)
sys.modules["smoke_api_server"] = api_server
_SPEC.loader.exec_module(api_server)


@pytest.fixture(scope="module")
def deployed(trained_workspace, tmp_path_factory):
    """A workspace with a champion, and what its model says about the example."""
    root = tmp_path_factory.mktemp("smoke")
    workspace = Workspace(root)
    (root / "data").mkdir()
    workspace.raw.symlink_to(trained_workspace.raw)
    (root / "dvc.yaml").write_text("stages: {}\n")
    release = publish_release(workspace, trained_workspace.candidate)
    point_champion(workspace, release.release_id, "a test")
    example = choose_example(workspace)
    product = ProductInput(example.product.title, example.product.description, example.photo)
    (local,) = Predictor.load(workspace.champion).predict([product])
    return workspace, release.release_id, local


@pytest.fixture
def api(deployed):
    _, bundle_id, local = deployed
    api = api_server.FakeAPI()
    best = {"label": "x", "confidence": local.confidence, "prediction": local.code}
    api.prediction = {"predictions": [best]}
    api.shared = {"bundle_id": bundle_id}
    server = api_server.serve(api)
    yield api
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(deployed, api, settings):
    port = int(api.url.rpartition(":")[2])
    secret = SecretStr("smoke and mirrors")
    chosen = settings.model_copy(update={"serve_port": port, "smoke_password": secret})
    return lambda **changes: smoke(Layout(deployed[0].root), chosen.model_copy(update=changes))


def test_an_api_that_agrees_with_the_model_on_disk_passes(api, run):
    run()
    assert api.paths() == ["/predict", "/token", "/predict", "/logout"]
    assert "Authorization" not in api.received[0].headers
    names = [name for name, _, _ in api.received[2].parts()]
    assert {"designation", "image"} <= set(names)


@pytest.mark.parametrize(
    ("best", "message"),
    [({"prediction": -1}, "The API says -1"), ({"confidence": -0.002}, "with confidence")],
)
def test_another_answer_than_the_models_fails(api, run, best, message):
    answer = api.prediction["predictions"][0]
    if "confidence" in best:
        best = {"confidence": answer["confidence"] + best["confidence"]}
    api.prediction = {"predictions": [{**answer, **best}]}
    with pytest.raises(RuntimeServiceError, match=message):
        run()


def test_another_bundle_than_the_champion_fails(api, run, deployed):
    api.shared = {"bundle_id": "0" * 16}
    with pytest.raises(RuntimeServiceError, match=f"Expected the champion, {deployed[1]}"):
        run()


def test_an_api_that_asks_for_no_token_fails(api, run):
    api.open_to_all = True
    with pytest.raises(RuntimeServiceError, match="must be refused with 401. Received: 200"):
        run()


def test_a_refused_account_fails_with_the_apis_reason_and_no_password(api, run):
    problem = {"title": "Unauthorized", "status": 401, "detail": "wrong password"}
    api.token_answer = (401, problem, {})
    with pytest.raises(RuntimeServiceError, match="refused smoke: 401 Unauthorized") as caught:
        run()
    assert "mirrors" not in str(caught.value)


def test_nobody_there_fails(run, settings):
    from product_classifier.runtime.ports import next_free

    with pytest.raises(RuntimeServiceError, match="does not answer"):
        run(serve_port=next_free(settings.serve_port))


def test_without_a_password_it_says_what_to_set(run):
    with pytest.raises(ConfigurationError, match="SMOKE_PASSWORD is not set"):
        run(smoke_password=None)
