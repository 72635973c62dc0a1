"""The engine: bounded, fair, and free of mixed answers."""

import asyncio
import os
import threading
import time
from collections.abc import Callable

import httpx
import pytest
from starlette.types import Message

from prediction_app import client_of, live_model, make_app, make_engine, running
from product_classifier.core.workspace import Workspace
from product_classifier.modeling.predictor import Predictor, ProductInput
from product_classifier.serve.engine import Engine
from product_classifier.serve.job_queue import Job, JobQueue, Lane, QueueFull
from product_classifier.serve.live_model import LiveModel, Scored
from product_classifier.web.problems import Problem
from upload_corpus import encode, picture

PRODUCTS = [
    ProductInput(f"Livre {number}", "roman", encode(picture(seed=number), "JPEG"))
    for number in range(6)
]


class HeldModel(LiveModel):
    """A real model whose workers wait at a gate, so that a queue fills for certain."""

    def __init__(self, model: LiveModel) -> None:
        super().__init__(model.predictor, model.loaded_at, model.lone_extractor)
        object.__setattr__(self, "gate", threading.Event())
        object.__setattr__(self, "titles", [])
        object.__setattr__(self, "were_alone", [])

    gate: threading.Event
    titles: list[str | None]
    were_alone: list[bool]

    def score(
        self, product: ProductInput, wait: float = 0.0, alone: Callable[[], bool] = lambda: False
    ) -> Scored:
        """Notes the order in which products are taken, waits, notes whether it is alone, and scores."""
        self.titles.append(product.title)
        self.gate.wait(120)
        self.were_alone.append(alone())
        return super().score(product, wait, alone)


async def until(said: Callable[[], bool]) -> None:
    """Waits for a fact."""
    deadline = time.monotonic() + 60
    while not said():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_answers_are_those_of_the_predictor_in_order(trained_workspace: Workspace) -> None:
    async def work() -> list[int]:
        async with running(make_engine(4), trained_workspace.candidate) as engine:
            answers = await engine.predict(PRODUCTS)
            singles = await asyncio.gather(*(engine.predict([one]) for one in PRODUCTS))
            assert [one.scored[0].prediction for one in singles] == [
                one.prediction for one in answers.scored
            ]
            assert (await engine.predict([])).scored == []
            return [one.prediction.code for one in answers.scored]

    predictor = Predictor.load(trained_workspace.candidate)
    assert asyncio.run(work()) == [one.code for one in predictor.predict(PRODUCTS)]


def test_many_threads_get_what_one_thread_gets(trained_workspace: Workspace) -> None:
    predictor = Predictor.load(trained_workspace.candidate)
    wanted = [predictor.predict([one])[0] for one in PRODUCTS]
    wrong: list[object] = []

    def ask(offset: int) -> None:
        for number in range(20):
            index = (offset + number) % len(PRODUCTS)
            found = predictor.predict([PRODUCTS[index]])[0]
            if found != wanted[index]:
                wrong.append((index, found))

    threads = [threading.Thread(target=ask, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_full_queue_is_answered_503_at_once(trained_workspace: Workspace) -> None:
    async def work() -> list[httpx.Response]:
        async with running(make_engine(1, queue=2)) as engine:
            model = HeldModel(live_model(trained_workspace.candidate))
            engine.swap(model)
            async with client_of(make_app(engine)) as client:
                files = {"designation": (None, "Livre")}
                held = [asyncio.create_task(client.post("/predict", files=files))]
                await until(lambda: engine.in_flight == 1 and engine.waiting == 0)
                held += [
                    asyncio.create_task(client.post("/predict", files=files)) for _ in range(2)
                ]
                await until(lambda: engine.waiting == 2)
                refused = await client.post("/predict", files=files)  # answered though all is held
                model.gate.set()
                return [refused, *await asyncio.gather(*held)]

    refused, *held = asyncio.run(work())
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["title"] == "Service Unavailable"
    assert [answer.status_code for answer in held] == [200] * 3


def test_a_cancelled_caller_frees_the_place(trained_workspace: Workspace) -> None:
    async def work() -> list[str | None]:
        async with running(make_engine(1, queue=1)) as engine:
            model = HeldModel(live_model(trained_workspace.candidate))
            engine.swap(model)
            first = asyncio.create_task(engine.predict([PRODUCTS[0]]))
            await until(lambda: engine.in_flight == 1 and engine.waiting == 0)
            gone = asyncio.create_task(engine.predict([PRODUCTS[1]]))
            await until(lambda: engine.waiting == 1)
            gone.cancel()
            await until(lambda: engine.waiting == 0)
            last = asyncio.create_task(engine.predict([PRODUCTS[2]]))
            await until(lambda: engine.waiting == 1)
            model.gate.set()
            await asyncio.gather(first, last)
            return model.titles

    assert asyncio.run(work()) == ["Livre 0", "Livre 2"]


def test_a_client_that_goes_frees_the_place(trained_workspace: Workspace) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="designation"\r\n\r\nLivre\r\n--b--\r\n'
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "raw_path": b"/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=b")],
    }

    async def work() -> None:
        async with running(make_engine(1)) as engine:
            model = HeldModel(live_model(trained_workspace.candidate))
            engine.swap(model)
            busy = asyncio.create_task(engine.predict([PRODUCTS[0]]))
            await until(lambda: engine.in_flight == 1 and engine.waiting == 0)
            messages: asyncio.Queue[Message] = asyncio.Queue()
            sent: list[Message] = []

            async def send(message: Message) -> None:
                sent.append(message)

            messages.put_nowait({"type": "http.request", "body": body, "more_body": False})
            request = asyncio.create_task(make_app(engine)(dict(scope), messages.get, send))
            await until(lambda: engine.waiting == 1)
            messages.put_nowait({"type": "http.disconnect"})
            await request
            assert engine.waiting == 0
            assert sent[0]["status"] == 499
            model.gate.set()
            await busy
            assert model.titles == ["Livre 0"]

    asyncio.run(work())


def test_a_batch_leaves_single_products_their_turn(trained_workspace: Workspace) -> None:
    async def work() -> list[str | None]:
        async with running(make_engine(2)) as engine:
            model = HeldModel(live_model(trained_workspace.candidate))
            engine.swap(model)
            batch = [ProductInput(f"batch {number}") for number in range(64)]
            whole = asyncio.create_task(engine.predict(batch))
            await until(lambda: engine.waiting == 63)  # one worker stays free for single products
            single = asyncio.create_task(engine.predict([ProductInput("single")]))
            await until(lambda: engine.in_flight == 65 and engine.waiting == 63)
            await until(lambda: len(model.titles) == 2)
            assert sorted(model.titles) == ["batch 0", "single"]  # 63 of the batch wait
            model.gate.set()
            await asyncio.gather(single, whole)
            return model.titles

    assert len(asyncio.run(work())) == 65


def test_a_fault_reaches_only_the_one_who_asked(trained_workspace: Workspace) -> None:
    async def work() -> None:
        async with running(make_engine(2), trained_workspace.candidate) as engine:
            bad = ProductInput(title=object())  # type: ignore[arg-type]
            with pytest.raises((TypeError, AttributeError)):
                await engine.predict([bad])
            with pytest.raises((TypeError, AttributeError)):
                await engine.predict([PRODUCTS[0], bad, PRODUCTS[1]])
            assert len((await engine.predict(PRODUCTS)).scored) == len(PRODUCTS)
            # A worker gives its answer first and its place back then.
            await until(lambda: engine.in_flight == 0)

    asyncio.run(work())


def test_what_waits_is_answered_before_the_end(trained_workspace: Workspace) -> None:
    async def work() -> int:
        engine = make_engine(2)
        engine.swap(live_model(trained_workspace.candidate))
        engine.start()
        asked = [asyncio.create_task(engine.predict([PRODUCTS[0]])) for _ in range(20)]
        await until(lambda: engine.in_flight > 0)
        await engine.stop(30)
        answers = await asyncio.gather(*asked)
        with pytest.raises(Problem, match="No model"):
            await engine.predict([PRODUCTS[0]])
        return len(answers)

    assert asyncio.run(work()) == 20


def test_one_worker_uses_all_processors_for_one_photo() -> None:
    assert make_engine(1).hint == "LATENCY"
    assert make_engine(0).hint == make_engine(3).hint == "THROUGHPUT"
    assert make_engine(0).workers >= 2


def test_only_a_product_that_is_alone_gets_all_processors(trained_workspace: Workspace) -> None:
    async def work() -> list[bool]:
        engine = make_engine(1)
        model = HeldModel(live_model(trained_workspace.candidate))
        engine.swap(model)
        engine.start()
        asked = [asyncio.create_task(engine.predict([product])) for product in PRODUCTS[:3]]
        await until(lambda: engine.in_flight == 3)
        model.gate.set()
        await asyncio.gather(*asked)
        await engine.stop(30)
        return model.were_alone

    assert asyncio.run(work()) == [False, False, True]


def test_all_processors_on_one_photo_give_the_same_answer(trained_workspace: Workspace) -> None:
    model = live_model(trained_workspace.candidate)
    if len(os.sched_getaffinity(0)) > 1:
        assert model.lone_extractor is not model.predictor.extractor
        assert model.lone_extractor.requests == 1
    alone = [model.score(product, alone=lambda: True) for product in PRODUCTS]
    beside = [model.score(product) for product in PRODUCTS]
    for one, other in zip(alone, beside, strict=True):
        assert one.prediction.code == other.prediction.code
        assert one.prediction.confidence == pytest.approx(other.prediction.confidence, abs=1e-3)
    latency = live_model(trained_workspace.candidate, "LATENCY")
    assert latency.lone_extractor is latency.predictor.extractor  # nothing is compiled twice


def test_the_queue_refuses_what_does_not_fit_as_a_whole(trained_workspace: Workspace) -> None:
    model = live_model(trained_workspace.candidate)
    queue = JobQueue(2, 3, 1)

    def jobs(count: int, lane: Lane) -> list[Job]:
        return [Job(model, ProductInput("x"), lane) for _ in range(count)]

    with pytest.raises(QueueFull):
        queue.put(jobs(3, Lane.SINGLE))
    queue.put(jobs(2, Lane.SINGLE))
    queue.put(jobs(3, Lane.BATCH))
    for lane in Lane:
        with pytest.raises(QueueFull):
            queue.put(jobs(1, lane))
    assert queue.waiting() == 5
    queue.close()
    taken = [queue.take() for _ in range(3)]
    assert [job.lane for job in taken if job] == [Lane.SINGLE, Lane.SINGLE, Lane.BATCH]
    for job in taken:
        assert job is not None
        queue.finish(job)


def test_single_products_do_not_starve_a_batch(trained_workspace: Workspace) -> None:
    model = live_model(trained_workspace.candidate)
    queue = JobQueue(100, 100, 1)
    queue.put([Job(model, ProductInput("batch"), Lane.BATCH) for _ in range(2)])
    queue.put([Job(model, ProductInput("single"), Lane.SINGLE) for _ in range(20)])
    order = []
    for _ in range(12):
        job = queue.take()
        assert job is not None
        order.append(job.lane)
        queue.finish(job)
    assert order.count(Lane.BATCH) == 2


def test_metrics_say_what_happened(trained_workspace: Workspace) -> None:
    async def work(engine: Engine) -> None:
        async with running(engine, trained_workspace.candidate):
            await engine.predict([*PRODUCTS, ProductInput("Livre", None, b"broken")])

    engine = make_engine(2)
    registry = engine.metrics
    asyncio.run(work(engine))
    answered = sum(
        sample.value
        for metric in registry.predictions.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )
    assert answered == 7
    live = registry.live.kpis()
    assert (live["answered"], live["photo_errors"]) == (7, 1)
    assert live["modalities"] == {"text+image": 6, "text": 1}
    assert sum(live["confidence"]["counts"]) == 7
    assert sum(registry.live.feature_distribution()["predicted_share"].values()) == pytest.approx(1)
