"""`POST /predict`, and its alias of the earlier system."""

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect

from product_classifier.modeling.predictor import ProductInput
from product_classifier.serve.answers import check_product, encode_answer, refusal
from product_classifier.serve.caller import (
    milliseconds,
    note_bundle,
    request_id,
    unless_gone,
)
from product_classifier.serve.dependencies import EngineDep
from product_classifier.serve.engine import Answers, Engine
from product_classifier.serve.explain import Explainer, NoExplanation
from product_classifier.serve.live_model import LiveModel, Scored
from product_classifier.serve.schemas import ExplanationFigures, PredictAnswer, ProductFields
from product_classifier.serve.uploads import (
    FILE,
    FormLimits,
    as_request_error,
    describe_form,
    describe_text,
    files,
    invalid,
    read_form,
    text_fields,
)
from product_classifier.web.problems import CLIENT_LEFT, problem_responses

router = APIRouter(tags=["predict"])

_SINGLE = FormLimits(fields=16, field_bytes=256 * 1024, files=4)
RESPONSES = problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 431, 500, 503)
_BOOLEAN: TypeAdapter[bool] = TypeAdapter(bool)


_PREDICT_BODY = describe_form(
    {
        "product_identifier": describe_text("Given back as it came", 64),
        "designation": describe_text("Title; it or the photo is required", 1_000),
        "description": describe_text("Description; HTML is allowed", 50_000),
        "product_id": describe_text("Given back as it came", 64),
        "imageid": describe_text("Given back as it came", 64),
        "image": {**FILE, "description": "Photo: JPEG, PNG, WEBP, GIF or BMP, 9 MB at most"},
        "explain": {"type": "boolean", "description": "Say how the answer came about"},
    },
    [],
)


async def _charge_one(request: Request) -> None:
    """Counts one request of the caller, before its body is read."""
    state = request.app.state
    await state.limits.charge(request, state.settings.predict_rate_limit, 1)


@router.post(
    "/predict",
    response_model=PredictAnswer,
    responses=RESPONSES,
    openapi_extra=_PREDICT_BODY,
    dependencies=[Depends(_charge_one)],
)
async def predict(request: Request, engine: EngineDep) -> Any:
    """Find the type of one product from its texts, its photo, or both."""
    return await _predict(request, engine)


@router.post(
    "/predict_code",
    response_model=PredictAnswer,
    responses=RESPONSES,
    openapi_extra=_PREDICT_BODY,
    dependencies=[Depends(_charge_one)],
    deprecated=True,
)
async def predict_code(request: Request, engine: EngineDep) -> Any:
    """Do what `POST /predict` does, at the address of the earlier system."""
    return await _predict(request, engine)


async def _predict(request: Request, engine: Engine) -> PredictAnswer | Response:
    started = time.perf_counter()
    engine.current()
    try:
        async with read_form(request, _SINGLE) as form:
            texts = text_fields(form, {**ProductFields.model_fields, "explain": bool})
            explain = _read_flag(texts.pop("explain", "false"))
            product = _validate(texts)
            uploads = files(form, "image")
            if len(uploads) > 1:
                raise invalid("image", "must come once")
            photo = await uploads[0].read() if uploads else None
        check_product(product, photo is not None)
        source = ProductInput(product.designation, product.description, photo)
        engine.metrics.live.add_input(product.designation, product.description)
        answers = await unless_gone(request, engine.predict([source]))
        return await _answer_one(request, answers, product, source, explain, started)
    except ClientDisconnect:
        return Response(status_code=CLIENT_LEFT)


async def _answer_one(
    request: Request,
    answers: Answers,
    product: ProductFields,
    source: ProductInput,
    explain: bool,
    started: float,
) -> PredictAnswer:
    scored = answers.scored[0]
    note_bundle(request, answers)
    if problem := refusal(scored.prediction):
        raise problem
    answer = encode_answer(answers.model, product, scored.prediction, None)
    explanation, missing = None, None
    if explain:
        explanation, missing = await _explain(request, answers.model, source, scored)
    return PredictAnswer(
        **answer.model_dump(),
        bundle_id=answers.bundle_id,
        request_id=request_id(request),
        milliseconds=milliseconds(started),
        explanation=explanation,
        explanation_missing=missing,
    )


async def _explain(
    request: Request, model: LiveModel, source: ProductInput, scored: Scored
) -> tuple[ExplanationFigures | None, str | None]:
    explainer: Explainer = request.app.state.explainer
    try:
        found = await unless_gone(request, explainer.explain(model, source, scored))
    except NoExplanation as error:
        return None, str(error)
    return ExplanationFigures.model_validate(asdict(found)), None


def _validate(texts: dict[str, str]) -> ProductFields:
    try:
        return ProductFields.model_validate(texts)
    except ValidationError as error:
        raise as_request_error(error) from None


def _read_flag(text: str) -> bool:
    try:
        return _BOOLEAN.validate_python(text.strip().lower())
    except ValidationError:
        raise invalid("explain", "must be true or false") from None
