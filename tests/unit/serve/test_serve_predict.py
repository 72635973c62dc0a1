"""The prediction routes on a really trained bundle."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from prediction_app import client_of, make_app, make_engine, running, with_client
from product_classifier.core.workspace import Workspace
from product_classifier.modeling.predictor import Predictor, ProductInput
from upload_corpus import encode, picture

TEXTS = {"designation": "Chaise longue pliante", "description": "Très belle chaise en bois"}
PHOTO = encode(picture(), "JPEG")


def post(workspace: Workspace, path: str = "/predict", **options: Any) -> httpx.Response:
    return with_client(workspace.candidate, lambda client: client.post(path, **options))


def image(data: bytes = PHOTO, name: str = "photo.jpg") -> dict[str, Any]:
    return {"image": (name, data, "image/jpeg")}


# A form without a file is urlencoded by the client; a field without file name makes it multipart.
def texts(**fields: str) -> dict[str, Any]:
    return {name: (None, text) for name, text in fields.items()}


FORM = {"content-type": "multipart/form-data; boundary=b"}


def form(fields: dict[str, str]) -> bytes:
    parts = (
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in fields.items()
    )
    return ("".join(parts) + "--b--\r\n").encode()


def test_texts_and_photo_are_answered_in_full(trained_workspace: Workspace) -> None:
    data = {**TEXTS, "product_id": "77", "imageid": "88", "product_identifier": "x-1"}
    answer = post(trained_workspace, data=data, files=image())
    assert answer.status_code == 200
    content = answer.json()
    predictor = Predictor.load(trained_workspace.candidate)
    source = ProductInput(TEXTS["designation"], TEXTS["description"], PHOTO)
    [wanted] = predictor.predict([source])
    [legacy] = content["predictions"]
    assert legacy["prediction"] == wanted.code == content["top"][0]["code"]
    assert legacy["confidence"] == pytest.approx(wanted.confidence, abs=1e-3)
    names = predictor.bundle.manifest.names[str(wanted.code)]
    assert (legacy["label"], content["top"][0]["name_en"]) == (names.fr, names.en)
    assert len(content["top"]) == 3
    assert content["decision"] == wanted.decision
    assert content["threshold"] is None or content["threshold"] <= 1
    assert content["modalities"] == "text+image"
    assert content["photo_error"] is None
    assert content["bundle_id"] == predictor.bundle.bundle_id
    assert content["milliseconds"] > 0
    given = (content["product_identifier"], content["product_id"], content["imageid"])
    assert given == ("x-1", "77", "88")
    assert names.fr in content["message"]
    assert content["explanation"] is None


@pytest.mark.parametrize(
    ("files", "modalities"),
    [(texts(**TEXTS), "text"), (texts(designation="Livre"), "text"), (image(), "image")],
    ids=["texts", "title", "photo"],
)
def test_one_modality_is_enough(
    trained_workspace: Workspace, files: dict[str, Any], modalities: str
) -> None:
    answer = post(trained_workspace, files=files)
    assert answer.status_code == 200
    assert answer.json()["modalities"] == modalities


def test_the_earlier_address_answers_the_same_and_is_marked(trained_workspace: Workspace) -> None:
    async def both(client: httpx.AsyncClient) -> list[httpx.Response]:
        paths = ("/predict", "/predict_code")
        answers = [await client.post(path, data=TEXTS, files=image()) for path in paths]
        return [*answers, await client.get("/openapi.json")]

    new, old, document = with_client(trained_workspace.candidate, both)
    assert new.json()["top"] == old.json()["top"]
    routes = document.json()["paths"]
    assert routes["/predict_code"]["post"]["deprecated"] is True
    assert "deprecated" not in routes["/predict"]["post"]


def test_a_bad_photo_beside_texts_is_told_and_the_texts_answer(
    trained_workspace: Workspace,
) -> None:
    answer = post(trained_workspace, data=TEXTS, files=image(b"broken"))
    assert answer.status_code == 200
    assert answer.json()["modalities"] == "text"
    assert "none of JPEG" in answer.json()["photo_error"]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({"files": texts(description="Bois")}, 422, "designation or image"),
        ({"files": texts(designation="  ")}, 422, "designation or image"),
        ({"files": texts(designation="nan")}, 422, "no usable character"),
        ({"files": texts(designation="x" * 1001)}, 422, "designation"),
        ({"files": texts(designation="x", description="x" * 50_001)}, 422, "description"),
        ({"files": texts(designation="x", product_id="9" * 65)}, 422, "product_id"),
        ({"files": texts(designation="x", explain="perhaps")}, 422, "explain"),
        ({"files": texts(image="no file")}, 422, "image"),
        ({"files": {"designation": ("a.txt", b"text")}}, 422, "designation"),
        ({"files": [("image", ("a", PHOTO)), ("image", ("b", PHOTO))]}, 422, "image"),
        ({"files": [("image", ("a", PHOTO))] * 5}, 400, "Too many files"),
        ({"files": texts(**{f"f{number}": "x" for number in range(17)})}, 400, "Too many fields"),
        ({"files": texts(designation="x" * 300_000)}, 400, "maximum size"),
        ({"json": TEXTS}, 415, "multipart"),
        ({"data": TEXTS}, 415, "multipart"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        (
            {
                "content": b"--a\r\n\xff\xff",
                "headers": {"content-type": "multipart/form-data; boundary=a"},
            },
            400,
            "can't be read",
        ),
        (
            {
                "content": b"",
                "headers": {"content-type": "multipart/form-data; boundary=a; charset=utf-7"},
            },
            415,
            "UTF-8",
        ),
    ],
)
def test_what_can_not_be_judged_is_refused_with_the_reason(
    trained_workspace: Workspace, options: dict[str, Any], status: int, said: str
) -> None:
    answer = post(trained_workspace, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.text


@pytest.mark.parametrize(
    "text",
    [
        "Livre\0 ancien",
        "Livre \udcff",
        "\U0001f600 jeu",
        "&#999999999999;",
        "<b>" * 300 + "sac",
        "é" * 900,
    ],
    ids=["nul", "surrogate", "emoji", "reference", "tags", "accents"],
)
def test_odd_texts_are_answered(trained_workspace: Workspace, text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    files = {"designation": (None, body), "product_id": (None, body[:20])}
    assert post(trained_workspace, files=files).status_code == 200


def test_a_batch_is_answered_item_by_item(trained_workspace: Workspace) -> None:
    items: list[Any] = [
        {"designation": "Chaise", "product_identifier": 12},
        {"image": "a.jpg", "product_id": "p"},
        {"description": "only"},
        {"image": "missing.jpg"},
        {"designation": "Livre", "image": "missing.jpg"},
        {"image": "bad.jpg"},
        {"designation": "x" * 2000},
        "no object",
        {"designation": "Livre \ud800\0", "imageid": "\ud800"},
    ]
    answer = post(
        trained_workspace,
        "/predict/batch",
        data={"products": json.dumps(items)},
        files=[("images", ("a.jpg", PHOTO)), ("images", ("bad.jpg", b"broken"))],
    )
    assert answer.status_code == 200, answer.text
    content = answer.json()
    statuses = [one.get("error", {}).get("status", 200) for one in content["results"]]
    assert statuses == [200, 200, 422, 422, 200, 415, 422, 422, 200]
    results = content["results"]
    assert results[0]["product_identifier"] == "12"
    assert (results[1]["modalities"], results[1]["product_id"]) == ("image", "p")
    assert "No uploaded file" in results[4]["photo_error"]
    assert content["message"] == "4 produits classés, 5 refusés."
    assert content["bundle_id"] == Predictor.load(trained_workspace.candidate).bundle.bundle_id


def test_a_batch_of_one_is_told_in_the_singular(trained_workspace: Workspace) -> None:
    products = json.dumps([{"designation": "Chaise"}])
    answer = post(trained_workspace, "/predict/batch", files={"products": (None, products)})
    assert answer.json()["message"] == "1 produit classé, 0 refusé."


@pytest.mark.parametrize(
    "products",
    [
        *("", "{}", "[]", "[" * 100_000, "1" * 5000, json.dumps([{}] * 65), "[NaN", "nul"),
        *("[" + "[]," * 200_000 + "[]]", '[{"a": [' + "{}," * 200_000 + "{}]}]"),
    ],
    ids=range(10),
)
def test_a_batch_that_is_no_list_of_products_is_refused(
    trained_workspace: Workspace, products: str
) -> None:
    answer = post(trained_workspace, "/predict/batch", files=texts(products=products))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "products"


def test_a_batch_costs_its_number_of_products(trained_workspace: Workspace) -> None:
    async def work() -> list[tuple[str, int]]:
        async with running(make_engine(), trained_workspace.candidate) as engine:
            app = make_app(engine)
            async with client_of(app) as client:
                await client.post("/predict", files=texts(designation="Livre"))
                files = texts(products=json.dumps([{"designation": "Livre"}] * 7))
                await client.post("/predict/batch", files=files)
            charged: list[tuple[str, int]] = app.state.limits.charged
            return charged

    assert asyncio.run(work()) == [("10/minute", 1), ("200/minute", 1), ("200/minute", 6)]


@pytest.mark.parametrize("body", [b"nonsense", form({"products": "nonsense"})])
def test_a_batch_that_can_not_be_read_is_not_free(
    trained_workspace: Workspace, body: bytes
) -> None:
    async def work() -> tuple[int, list[tuple[str, int]]]:
        async with running(make_engine(), trained_workspace.candidate) as engine:
            app = make_app(engine)
            async with client_of(app) as client:
                answer = await client.post("/predict/batch", content=body, headers=FORM)
            return answer.status_code, app.state.limits.charged

    status, charged = asyncio.run(work())
    assert status in (400, 422)
    assert charged == [("200/minute", 1)]


def test_a_product_of_a_batch_with_many_fields_is_refused_by_itself(
    trained_workspace: Workspace,
) -> None:
    many = {"designation": "Livre", **{f"k{number}": 1 for number in range(50_000)}}
    files = texts(products=json.dumps([many, {"designation": "Livre"}]))
    answer = post(trained_workspace, "/predict/batch", files=files)
    first, second = answer.json()["results"]
    assert first["error"]["status"] == 422
    assert "at most 16 fields" in first["error"]["detail"]
    assert second["modalities"] == "text"


@pytest.mark.parametrize("line", [b"\r\n--bX", b"\r\n--b-", b"\r\n--b\r"])
def test_a_photo_full_of_near_boundaries_is_400_at_once(
    trained_workspace: Workspace, line: bytes
) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    content = head + line * 1_000_000 + b"\r\n--b--\r\n"
    warm = form({"designation": "Livre"})  # what is imported once does not count
    assert post(trained_workspace, content=warm, headers=FORM).status_code == 200
    started = time.process_time()
    answer = post(trained_workspace, content=content, headers=FORM)
    assert answer.status_code == 400
    assert "boundary" in answer.json()["detail"]
    assert time.process_time() - started < 6


def test_a_form_that_breaks_off_is_400_and_its_photo_is_not_lost_in_silence(
    trained_workspace: Workspace,
) -> None:
    whole = form({"designation": "Livre", "description": "Bois"})
    assert post(trained_workspace, content=whole, headers=FORM).status_code == 200
    for cut in (len(whole) - 6, len(whole) - 20, whole.rindex(b"--b")):
        answer = post(trained_workspace, content=whole[:cut], headers=FORM)
        assert answer.status_code == 400
        assert "last boundary" in answer.json()["detail"]


def test_without_a_model_the_answer_is_503_with_retry_after() -> None:
    for path in ("/predict", "/predict_code", "/predict/batch"):
        answer = with_client(None, lambda client, path=path: client.post(path, data=TEXTS))  # type: ignore[misc]
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.headers["content-type"] == "application/problem+json"


def test_an_explanation_comes_on_request(trained_workspace: Workspace) -> None:
    answer = post(trained_workspace, data={**TEXTS, "explain": "true"}, files=image())
    content = answer.json()
    assert set(content["explanation"]["modalities"]) == {"text", "image"}
    assert {word["field"] for word in content["explanation"]["words"]} == {
        "designation",
        "description",
    }
    assert content["explanation_missing"] is None
