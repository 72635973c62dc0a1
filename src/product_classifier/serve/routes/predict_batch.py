"""`POST /predict/batch`: many products in one request, each with an answer or an error of its own."""

import json
import time
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
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
from product_classifier.serve.engine import MAX_BATCH_PRODUCTS, Engine
from product_classifier.serve.live_model import LiveModel, Scored
from product_classifier.serve.routes.predict import RESPONSES
from product_classifier.serve.schemas import (
    BatchAnswer,
    BatchProduct,
    ItemError,
    ProductAnswer,
    RefusedProduct,
)
from product_classifier.serve.uploads import (
    FILE,
    FormLimits,
    describe_form,
    files,
    invalid,
    read_form,
    text_fields,
)
from product_classifier.web.problems import CLIENT_LEFT, Problem, describe_errors

router = APIRouter(tags=["predict"])

# What makes Python's reader of JSON slow, and hold many times the text: counted before, also inside of texts.
_STRUCTURE, _MAX_STRUCTURE = ("[", "{", ":"), 200_000
_MAX_KEYS = 16
_BATCH = FormLimits(fields=4, field_bytes=8 * 1024 * 1024, files=MAX_BATCH_PRODUCTS)
_BATCH_BODY = describe_form(
    {
        "products": {
            "type": "string",
            "description": (
                f"JSON list of 1 to {MAX_BATCH_PRODUCTS} objects with the fields of /predict; "
                "`image` is the name of an uploaded file"
            ),
        },
        "images": {"type": "array", "items": FILE, "maxItems": MAX_BATCH_PRODUCTS},
    },
    ["products"],
)


async def _charge(request: Request, products: int, paid: int = 0) -> None:
    state = request.app.state
    rate = state.settings.predict_batch_rate_limit
    await state.limits.charge(request, rate, products, paid)


async def _charge_first(request: Request) -> None:
    """Counts one product before 64 MB of body are read: one that is not readable is not free."""
    await _charge(request, 1)


@router.post(
    "/predict/batch",
    response_model=BatchAnswer,
    responses=RESPONSES,
    openapi_extra=_BATCH_BODY,
    dependencies=[Depends(_charge_first)],
)
async def predict_batch(request: Request, engine: EngineDep) -> Any:
    """Find the types of up to 64 products; one that can't be judged does not spoil the others."""
    started = time.perf_counter()
    engine.current()
    try:
        async with read_form(request, _BATCH) as form:
            items = _read_items(text_fields(form, {"products": str}))
            await _charge(request, len(items), paid=1)
            photos = await _read_photos(files(form, "images"))
        return await _answer_batch(request, engine, items, photos, started)
    except ClientDisconnect:
        return Response(status_code=CLIENT_LEFT)


def _read_items(texts: dict[str, str]) -> list[Any]:
    text = texts.get("products", "")
    if sum(map(text.count, _STRUCTURE)) > _MAX_STRUCTURE:
        raise invalid("products", "must be a JSON list of products, not so nested")
    try:
        items = json.loads(text)
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
        product: BatchProduct | None = None
        try:
            product = BatchProduct.model_validate(_check_size(item))
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
    answers = await unless_gone(request, work)
    for (index, product, source), scored in zip(wanted, answers.scored, strict=True):
        results[index] = _item_answer(answers.model, product, source, scored)
    note_bundle(request, answers)
    refused = sum(isinstance(result, RefusedProduct) for result in results)
    return BatchAnswer(
        results=[result for result in results if result is not None],
        bundle_id=answers.bundle_id,
        request_id=request_id(request),
        milliseconds=milliseconds(started),
        message=_message(len(items) - refused, refused),
    )


def _message(scored: int, refused: int) -> str:
    """Says in French how it went, where 0 and 1 are singular."""
    first = f"{scored} produits classés" if scored > 1 else f"{scored} produit classé"
    return f"{first}, {refused} {'refusés' if refused > 1 else 'refusé'}."


def _item_answer(
    model: LiveModel, product: BatchProduct, source: ProductInput, scored: Scored
) -> ProductAnswer | RefusedProduct:
    if problem := refusal(scored.prediction):
        return _refuse(problem, product)
    lost = product.image is not None and source.photo is None
    missing = "No uploaded file has the name that image gives." if lost else None
    return encode_answer(model, product, scored.prediction, missing)


def _check_size(item: Any) -> Any:
    """Gives a product's fields; pydantic would make an error of each of half a million."""
    if isinstance(item, dict) and len(item) > _MAX_KEYS:
        raise Problem(422, "Unprocessable Content", f"A product has at most {_MAX_KEYS} fields.")
    return item


def _invalid_item(error: ValidationError) -> Problem:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{one['field'] or 'product'}: {one['message']}" for one in describe_errors(errors)]
    return Problem(422, "Unprocessable Content", "; ".join(told))


def _refuse(problem: Problem, product: BatchProduct | None) -> RefusedProduct:
    kept = {"product_identifier", "product_id", "imageid"}
    names = product.model_dump(include=kept) if product else {}
    error = ItemError(status=problem.status, title=problem.title, detail=problem.detail)
    return RefusedProduct(error=error, **names)
