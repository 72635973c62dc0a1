"""`product-classifier smoke`: a real prediction through the deployed API, checked against the model on disk."""

import logging

import httpx

from product_classifier.client import APIError, Client, Prediction
from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.api_services import serve_url
from product_classifier.runtime.deploy import expected_bundle
from product_classifier.runtime.example import Example, choose_example
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.services import stage_workspace

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
ATTEMPTS = 3  # the champion may move between the question and the comparison
MAX_WAIT_SECONDS = 75.0  # a rate limit of some requests per minute has passed by then


def smoke(layout: Layout, settings: Settings) -> None:
    """Signs in as SMOKE_USER, asks for one product's type, and checks the answer.

    Raises:
        ConfigurationError: SMOKE_PASSWORD is not set.
        RuntimeServiceError: the API refuses, or answers otherwise than the model does here.
    """
    if settings.smoke_password is None:
        raise ConfigurationError("SMOKE_PASSWORD is not set: `make start` generates it into .env.")
    workspace = Workspace(stage_workspace(layout, settings))
    example = choose_example(workspace)
    _check_refusal(serve_url(settings))
    for attempt in range(1, ATTEMPTS + 1):
        before = expected_bundle(layout, settings)
        answer = _ask(settings, example)
        if before == expected_bundle(layout, settings) or attempt == ATTEMPTS:
            break
        logger.info("The champion moved meanwhile: asking again.")
    _compare(workspace, example, answer, before)


def _check_refusal(url: str) -> None:
    fields = {"designation": (None, "a product")}
    try:
        answer = httpx.post(f"{url}/predict", files=fields, timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        raise RuntimeServiceError(f"{url} does not answer: {type(error).__name__}.") from error
    if answer.status_code != httpx.codes.UNAUTHORIZED:
        raise RuntimeServiceError(
            f"/predict without a token must be refused with 401. Received: {answer.status_code}."
        )
    logger.info("Without a token: refused.", extra={"status": answer.status_code})


def _ask(settings: Settings, example: Example) -> Prediction:
    assert settings.smoke_password is not None
    product = example.product
    with Client(
        serve_url(settings),
        max_wait_seconds=MAX_WAIT_SECONDS,
        trust_env=False,
    ) as client:
        try:
            client.login(settings.smoke_user, settings.smoke_password.get_secret_value())
            answer = client.predict(
                designation=product.title, description=product.description, image=example.photo
            )
            client.logout()
        except APIError as error:
            raise RuntimeServiceError(f"The API refused {settings.smoke_user}: {error}") from error
    return answer


def _compare(
    workspace: Workspace, example: Example, answer: Prediction, expected: str | None
) -> None:
    from product_classifier.modeling.predictor import Predictor, ProductInput

    found = {
        "row": example.product.row,
        "code": answer.code,
        "confidence": answer.confidence,
        "bundle_id": answer.bundle_id,
        "modalities": answer.modalities,
        "milliseconds": answer.milliseconds,
    }
    logger.info("The API answered.", extra=found)
    if expected is None:
        logger.info("Its model comes from BUNDLE_SOURCE: there is none here to compare it with.")
        return
    if answer.bundle_id != expected:
        raise RuntimeServiceError(
            f"The API answered with bundle {answer.bundle_id}. Expected the champion, {expected}."
        )
    product = ProductInput(example.product.title, example.product.description, example.photo)
    (local,) = Predictor.load(workspace.releases / expected, "LATENCY").predict([product])
    difference = abs(local.confidence - answer.confidence)
    if local.code != answer.code or difference > TOLERANCE:
        raise RuntimeServiceError(
            f"The API says {answer.code} with confidence {answer.confidence:.6f}, the same model "
            f"here {local.code} with {local.confidence:.6f}, for row {example.product.row}."
        )
    logger.info("The model here agrees.", extra={"difference": difference})
