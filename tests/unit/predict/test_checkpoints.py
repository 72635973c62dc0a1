"""Shards, chunks and parts on disk."""

from pathlib import Path

import pytest

from product_classifier.core.errors import ArtifactError, ConfigurationError
from product_classifier.predict.answers import Answer, refuse
from product_classifier.predict.checkpoints import ChunkStore, Shard, encode_answers, read_parts
from product_classifier.predict.rows import ScoringRow

ROWS = [ScoringRow(i, i + 2, i, None, "no product") for i in range(7)]


def answered(rows: list[ScoringRow]) -> list[Answer]:
    return [refuse(row, "why") for row in rows]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "1/2/3", "-1/2", "", "1.0/2"])
def test_shard_out_of_range_or_shape_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--shard: expected i/n") as caught:
        Shard.parse(text)
    assert caught.value.exit_code == 2


def test_shards_take_every_nth_row_and_miss_none() -> None:
    shares = [Shard.parse(f"{i}/3").rows(ROWS) for i in (1, 2, 3)]
    assert [[row.position for row in share] for share in shares] == [[0, 3, 6], [1, 4], [2, 5]]


def test_chunk_comes_back_as_it_was(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path / "a" / "b")
    full = Answer(3, 5, 3, 10, 20, ((40, 0.7), (10, 0.2)), "auto", 0.5, "text", None, "no photo")
    store.save(0, [full])
    assert store.load(0, [ROWS[3]]) == [full]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"position": 1}]', b"[{}]", b"3"])
def test_damaged_chunk_is_done_again(tmp_path: Path, content: bytes) -> None:
    store = ChunkStore(tmp_path)
    store.save(0, answered(ROWS[:2]))
    (tmp_path / "chunk-000000.json").write_bytes(content)
    assert store.load(0, ROWS[:2]) is None


def test_chunk_of_other_rows_is_not_taken(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    store.save(0, answered(ROWS[:2]))
    assert store.load(0, ROWS[1:3]) is None
    assert store.load(1, ROWS[2:4]) is None


def test_parts_come_together_in_the_order_of_the_rows(tmp_path: Path) -> None:
    for number in (2, 1):
        shard = Shard(number, 2)
        (tmp_path / shard.name).write_bytes(encode_answers(answered(shard.rows(ROWS))))
    assert [one.position for one in read_parts(tmp_path, 2, ROWS)] == list(range(7))


def test_missing_parts_are_named(tmp_path: Path) -> None:
    (tmp_path / Shard(2, 3).name).write_bytes(encode_answers([]))
    with pytest.raises(ArtifactError, match=r"part-1-of-3.json, part-3-of-3.json") as caught:
        read_parts(tmp_path, 3, ROWS)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("content", [b"{", encode_answers([])], ids=["no-json", "rows-missing"])
def test_damaged_part_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / Shard(1, 1).name).write_bytes(content)
    with pytest.raises(ArtifactError, match="Run"):
        read_parts(tmp_path, 1, ROWS)
