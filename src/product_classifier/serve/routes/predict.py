"""`POST /predict`, its alias of the earlier system, and `POST /predict/batch`."""

import asyncio
import json
import time
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from product_classifier.modeling.predictor import ProductInput
from product_classifier.serve.answers import check_product, encode_answer, refusal
from product_classifier.serve.engine import MAX_BATCH_PRODUCTS, Answers, Engine
from product_classifier.serve.explain import Explainer, NoExplanation
from product_classifier.serve.live_model import LiveModel, Scored
from product_classifier.serve.schemas import (
    BatchAnswer,
    BatchProduct,
    ExplanationFigures,
    ItemError,
    PredictAnswer,
    ProductAnswer,
    ProductFields,
    RefusedProduct,
)
from product_classifier.serve.uploads import (
    FormLimits,
    as_request_error,
    files,
    invalid,
    read_form,
    text_fields,
)
from product_classifier.web.problems import Problem, describe_errors, problem_responses

router = APIRouter(tags=["predict"])

T = TypeVar("T")

_SINGLE = FormLimits(fields=16, field_bytes=256 * 1024, files=4)
_BATCH = FormLimits(fields=4, field_bytes=8 * 1024 * 1024, files=MAX_BATCH_PRODUCTS)
_RESPONSES = problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 431, 500, 503)
_CLIENT_GONE = 499  # nobody reads it; the log does
_BOOLEAN: TypeAdapter[bool] = TypeAdapter(bool)


def _body(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def _text(description: str, limit: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": limit, "description": description}


_FILE = {"type": "string", "format": "binary"}
_PREDICT_BODY = _body(
    {
        "product_identifier": _text("Given back as it came", 64),
        "designation": _text("Title; it or the photo is required", 1_000),
        "description": _text("Description; HTML is allowed", 50_000),
        "product_id": _text("Given back as it came", 64),
        "imageid": _text("Given back as it came", 64),
        "image": {**_FILE, "description": "Photo: JPEG, PNG, WEBP, GIF or BMP, 9 MB at most"},
        "explain": {"type": "boolean", "description": "Say how the answer came about"},
    },
    [],
)
_BATCH_BODY = _body(
    {
        "products": {
            "type": "string",
            "description": (
                f"JSON list of 1 to {MAX_BATCH_PRODUCTS} objects with the fields of /predict; "
                "`image` is the name of an uploaded file"
            ),
        },
        "images": {"type": "array", "items": _FILE, "maxItems": MAX_BATCH_PRODUCTS},
    },
    ["products"],
)


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


EngineState = Annotated[Engine, Depends(_engine)]


async def _charge_one(request: Request) -> None:
    """Counts one request of the caller, before its body is read."""
    state = request.app.state
    await state.limits.charge(request, state.settings.predict_rate_limit, 1)


@router.post(
    "/predict",
    response_model=PredictAnswer,
    responses=_RESPONSES,
    openapi_extra=_PREDICT_BODY,
    dependencies=[Depends(_charge_one)],
)
async def predict(request: Request, engine: EngineState) -> Any:
    """Find the type of one product from its texts, its photo, or both."""
    return await _predict(request, engine)


@router.post(
    "/predict_code",
    response_model=PredictAnswer,
    responses=_RESPONSES,
    openapi_extra=_PREDICT_BODY,
    dependencies=[Depends(_charge_one)],
    deprecated=True,
)
async def predict_code(request: Request, engine: EngineState) -> Any:
    """Do what `POST /predict` does, at the address of the earlier system."""
    return await _predict(request, engine)


@router.post(
    "/predict/batch",
    response_model=BatchAnswer,
    responses=_RESPONSES,
    openapi_extra=_BATCH_BODY,
)
async def predict_batch(request: Request, engine: EngineState) -> Any:
    """Find the types of up to 64 products; one that can't be judged does not spoil the others."""
    started = time.perf_counter()
    engine.current()
    try:
        async with read_form(request, _BATCH) as form:
            items = _read_items(text_fields(form, {"products": str}))
            state = request.app.state
            await state.limits.charge(request, state.settings.predict_batch_rate_limit, len(items))
            photos = await _read_photos(files(form, "images"))
        return await _answer_batch(request, engine, items, photos, started)
    except ClientDisconnect:
        return Response(status_code=_CLIENT_GONE)


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
        answers = await _unless_gone(request, engine.predict([source]))
        return await _answer_one(request, answers, product, source, explain, started)
    except ClientDisconnect:
        return Response(status_code=_CLIENT_GONE)


async def _answer_one(
    request: Request,
    answers: Answers,
    product: ProductFields,
    source: ProductInput,
    explain: bool,
    started: float,
) -> PredictAnswer:
    scored = answers.scored[0]
    _note(request, answers)
    if problem := refusal(scored.prediction):
        raise problem
    answer = encode_answer(answers.model, product, scored.prediction, None)
    explanation, missing = None, None
    if explain:
        explanation, missing = await _explain(request, answers.model, source, scored)
    return PredictAnswer(
        **answer.model_dump(),
        bundle_id=answers.bundle_id,
        request_id=_request_id(request),
        milliseconds=_milliseconds(started),
        explanation=explanation,
        explanation_missing=missing,
    )


async def _explain(
    request: Request, model: LiveModel, source: ProductInput, scored: Scored
) -> tuple[ExplanationFigures | None, str | None]:
    explainer: Explainer = request.app.state.explainer
    try:
        found = await _unless_gone(request, explainer.explain(model, source, scored))
    except NoExplanation as error:
        return None, str(error)
    return ExplanationFigures.model_validate(asdict(found)), None


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Waits for work for as long as the caller does.

    Raises:
        ClientDisconnect: the caller has closed the connection; the work was cancelled.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


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


def _read_items(texts: dict[str, str]) -> list[Any]:
    try:
        items = json.loads(texts.get("products", ""))
    except (ValueError, RecursionError):
        raise invalid("products", "must be a JSON list") from None
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_BATCH_PRODUCTS:
        raise invalid("products", f"must be a JSON list of 1 to {MAX_BATCH_PRODUCTS} products")
    return items


async def _read_photos(uploads: list[UploadFile]) -> dict[str, bytes]:
    photos: dict[str, bytes] = {}
    for upload in uploads:
        name = upload.filename or ""
        if name in photos:
            raise invalid("images", "two files have the same name")
        photos[name] = await upload.read()
    return photos


async def _answer_batch(
    request: Request, engine: Engine, items: list[Any], photos: dict[str, bytes], started: float
) -> BatchAnswer:
    results: list[ProductAnswer | RefusedProduct | None] = [None] * len(items)
    wanted: list[tuple[int, BatchProduct, ProductInput]] = []
    for index, item in enumerate(items):
        try:
            product = BatchProduct.model_validate(item)
            photo = photos.get(product.image) if product.image else None
            check_product(product, photo is not None)
        except ValidationError as error:
            results[index] = _refuse(_invalid_item(error), None)
        except Problem as problem:
            results[index] = _refuse(problem, product)
        else:
            source = ProductInput(product.designation, product.description, photo)
            wanted.append((index, product, source))
            engine.metrics.live.add_input(product.designation, product.description)
    work = engine.predict([source for _, _, source in wanted])
    answers = await _unless_gone(request, work)
    for (index, product, source), scored in zip(wanted, answers.scored, strict=True):
        results[index] = _item_answer(answers.model, product, source, scored)
    _note(request, answers)
    refused = sum(isinstance(result, RefusedProduct) for result in results)
    return BatchAnswer(
        results=[result for result in results if result is not None],
        bundle_id=answers.bundle_id,
        request_id=_request_id(request),
        milliseconds=_milliseconds(started),
        message=f"{len(items) - refused} produits classés, {refused} refusés.",
    )


def _item_answer(
    model: LiveModel, product: BatchProduct, source: ProductInput, scored: Scored
) -> ProductAnswer | RefusedProduct:
    if problem := refusal(scored.prediction):
        return _refuse(problem, product)
    lost = product.image is not None and source.photo is None
    missing = "No uploaded file has the name that image gives." if lost else None
    return encode_answer(model, product, scored.prediction, missing)


def _invalid_item(error: ValidationError) -> Problem:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{one['field'] or 'product'}: {one['message']}" for one in describe_errors(errors)]
    return Problem(422, "Unprocessable Content", "; ".join(told))


def _refuse(problem: Problem, product: BatchProduct | None) -> RefusedProduct:
    kept = {"product_identifier", "product_id", "imageid"}
    names = product.model_dump(include=kept) if product else {}
    error = ItemError(status=problem.status, title=problem.title, detail=problem.detail)
    return RefusedProduct(error=error, **names)


def _note(request: Request, answers: Answers) -> None:
    request.scope.setdefault("state", {})["bundle_id"] = answers.bundle_id


def _request_id(request: Request) -> str | None:
    found: str | None = request.scope.get("state", {}).get("request_id")
    return found


def _milliseconds(started: float) -> float:
    return round(1000 * (time.perf_counter() - started), 3)
