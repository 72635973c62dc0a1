"""The hot swap: under load, with damaged bundles, and without any."""

import asyncio
import logging
import weakref
from pathlib import Path

import httpx
import psutil
import pytest
from test_serve_engine import PRODUCTS, until

from prediction_app import client_of, live_model, make_app, make_engine, make_variant, running
from product_classifier.core import bundle as parts
from product_classifier.core.files import symlink_atomic
from product_classifier.core.workspace import Workspace
from product_classifier.serve.bundle_source import ChampionSource
from product_classifier.serve.engine import Engine
from product_classifier.serve.live_model import LiveModel
from product_classifier.serve.reload import Reloader
from upload_corpus import encode, picture

SWAPS = 40
CLIENTS = 8
TITLES = [f"Chaise longue numéro {number}" for number in range(5)]
MOST_GROWTH_BYTES = 150_000_000


@pytest.fixture(scope="module")
def releases(trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the releases a, b and a damaged one; no champion."""
    workspace = Workspace(tmp_path_factory.mktemp("releases"))
    for seed, name in enumerate(("a", "b", "damaged")):
        make_variant(trained_workspace.candidate, workspace.releases / name, seed)
    network = workspace.releases / "damaged" / Path(parts.IMAGE_HEAD_NETWORK).with_suffix(".bin")
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.unlink()
    network.write_bytes(content)
    return workspace


@pytest.fixture
def champion(releases: Workspace, tmp_path: Path) -> Workspace:
    """A workspace of the test's own on those releases."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "releases").symlink_to(releases.releases)
    return Workspace(tmp_path)


def point(workspace: Workspace, name: str) -> None:
    symlink_atomic(f"releases/{name}", workspace.champion)


def bundle_id(workspace: Workspace, name: str) -> str:
    return live_model(workspace.releases / name).bundle_id


def swaps(engine: Engine, outcome: str) -> float:
    value: float = engine.metrics.swaps[outcome]._value.get()
    return value


def is_refused(engine: Engine) -> bool:
    return bool(engine.metrics.refused._value.get())


def test_swaps_under_load_lose_and_mix_nothing(champion: Workspace) -> None:
    wanted = {}
    for name in ("a", "b"):
        model = live_model(champion.releases / name)
        for title in TITLES:
            answer = model.score(PRODUCTS[0].__class__(title, None, PRODUCTS[0].photo)).prediction
            wanted[model.bundle_id, title] = [ranked.confidence for ranked in answer.top]
    assert (
        wanted[bundle_id(champion, "a"), TITLES[0]] != wanted[bundle_id(champion, "b"), TITLES[0]]
    )
    seen: set[str] = set()
    stop = asyncio.Event()

    async def ask(client: httpx.AsyncClient, number: int) -> int:
        count = 0
        while not stop.is_set():
            title = TITLES[(number + count) % len(TITLES)]
            answer = await client.post(
                "/predict",
                data={"designation": title},
                files={"image": ("p.jpg", PRODUCTS[0].photo, "image/jpeg")},
            )
            assert answer.status_code == 200, answer.text
            content = answer.json()
            found = [one["confidence"] for one in content["top"]]
            assert found == pytest.approx(wanted[content["bundle_id"], title], abs=1e-5)
            seen.add(content["bundle_id"])
            count += 1
        return count

    async def work() -> tuple[list[int], int]:
        point(champion, "a")
        async with running(make_engine(3)) as engine:
            reloader = Reloader(engine, ChampionSource(champion), poll_seconds=3600)
            await reloader.start()
            process = psutil.Process()
            async with client_of(make_app(engine)) as client:
                clients = [asyncio.create_task(ask(client, n)) for n in range(CLIENTS)]
                before = 0
                for number in range(SWAPS):
                    point(champion, "ba"[number % 2])
                    told = await reloader.reload()
                    assert told["outcome"] == "swapped"
                    if number == 5:
                        before = process.memory_info().rss
                stop.set()
                counts = await asyncio.gather(*clients)
            await reloader.stop()
            assert swaps(engine, "swapped") == SWAPS + 1
            return counts, process.memory_info().rss - before

    counts, growth = asyncio.run(work())
    assert all(counts)
    assert len(seen) == 2
    assert growth < MOST_GROWTH_BYTES


def test_a_champion_that_moves_is_followed_and_a_damaged_one_refused_once(
    champion: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        point(champion, "a")
        async with running(make_engine(1)) as engine:
            reloader = Reloader(engine, ChampionSource(champion), poll_seconds=0.02)
            await reloader.start()

            def live() -> str | None:
                return engine.model.bundle_id if engine.model else None

            assert live() == bundle_id(champion, "a")
            assert not is_refused(engine)
            point(champion, "b")
            await until(lambda: live() == bundle_id(champion, "b"))
            point(champion, "damaged")
            await until(lambda: swaps(engine, "refused") == 1)
            looks = 0
            look = reloader._source.look

            def counted() -> object:
                nonlocal looks
                looks += 1
                return look()

            reloader._source.look = counted  # type: ignore[method-assign,assignment]
            await until(lambda: looks >= 5)
            assert swaps(engine, "refused") == 1
            assert live() == bundle_id(champion, "b")
            assert (await engine.predict([PRODUCTS[0]])).bundle_id == bundle_id(champion, "b")
            told = await reloader.reload()
            assert (told["outcome"], told["bundle_id"]) == ("refused", bundle_id(champion, "b"))
            assert "image_head.bin" in told["detail"]
            assert is_refused(engine)
            point(champion, "b")  # back to what is live all the while
            await until(lambda: not is_refused(engine))
            point(champion, "a")
            await until(lambda: live() == bundle_id(champion, "a"))
            point(champion, "damaged")
            await until(lambda: swaps(engine, "refused") == 3)
            assert is_refused(engine)
            await reloader.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(work())
    refusals = [record for record in caplog.records if "was refused" in record.getMessage()]
    assert len(refusals) == 3


def test_without_a_champion_the_service_waits_for_one(champion: Workspace) -> None:
    async def work() -> None:
        async with running(make_engine(1)) as engine:
            reloader = Reloader(engine, ChampionSource(champion), poll_seconds=0.02)
            await reloader.start()
            assert engine.model is None
            assert (await reloader.reload())["outcome"] == "refused"
            assert not is_refused(engine)  # there is nothing yet that should be live
            point(champion, "a")
            await until(lambda: engine.model is not None)
            assert swaps(engine, "refused") == 0
            assert (await reloader.reload())["outcome"] == "unchanged"
            await reloader.stop()

    asyncio.run(work())


def test_reloads_at_the_same_time_are_one_after_the_other(champion: Workspace) -> None:
    async def work() -> list[str]:
        point(champion, "a")
        async with running(make_engine(1)) as engine:
            reloader = Reloader(engine, ChampionSource(champion), poll_seconds=3600)
            await reloader.start()
            point(champion, "b")
            told = await asyncio.gather(*(reloader.reload() for _ in range(4)))
            await reloader.stop()
            return [one["outcome"] for one in told]

    assert asyncio.run(work()) == ["swapped", "unchanged", "unchanged", "unchanged"]


def test_the_old_model_is_freed(champion: Workspace) -> None:
    async def work() -> None:
        async with running(make_engine(2)) as engine:
            old = LiveModel.load(champion.releases / "a")
            watched = weakref.ref(old.predictor)
            engine.swap(old)
            del old
            await engine.predict(PRODUCTS)
            async with client_of(make_app(engine)) as client:
                await client.post("/predict", files={"designation": (None, "Livre")})
            engine.swap(live_model(champion.releases / "b"))
            # At once: waiting for the garbage collector would be 60 MB more for every swap.
            await until(lambda: watched() is None)

    asyncio.run(work())


def test_a_bundle_that_is_sound_by_its_hashes_and_no_model_is_refused(
    champion: Workspace, trained_workspace: Workspace, tmp_path: Path
) -> None:
    def spoil(folder: Path) -> None:
        (folder / parts.TOKENIZER).unlink()
        (folder / parts.TOKENIZER).write_bytes(encode(picture(), "PNG"))

    make_variant(trained_workspace.candidate, tmp_path / "spoilt", 7)
    spoil(tmp_path / "spoilt")
    make_again = make_variant(tmp_path / "spoilt", tmp_path / "again", 8)  # hashes made anew

    async def work() -> None:
        point(champion, "a")
        async with running(make_engine(1)) as engine:
            reloader = Reloader(engine, ChampionSource(champion), poll_seconds=3600)
            await reloader.start()
            symlink_atomic(str(make_again), champion.champion)
            told = await reloader.reload()
            assert told["outcome"] == "refused"
            assert "tokenizer" in told["detail"]
            await reloader.stop()

    asyncio.run(work())
