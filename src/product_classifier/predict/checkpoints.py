"""Finished work on disk: chunks that a killed run goes on from, and the parts of a sharded run."""

import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from product_classifier.core.errors import ArtifactError, ConfigurationError
from product_classifier.core.files import canonical_json, write_bytes_atomic
from product_classifier.predict.answers import Answer
from product_classifier.predict.rows import ScoringRow

logger = logging.getLogger(__name__)

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Shard:
    """Which share of the rows a run scores: those whose position leaves `number - 1` when divided by `of`."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads `i/n`.

        Raises:
            ConfigurationError: it is not `i/n` with i from 1 to n.
        """
        match = _SHARD.fullmatch(text.strip())
        if match and 1 <= int(match[1]) <= int(match[2]):
            return cls(int(match[1]), int(match[2]))
        raise ConfigurationError(
            f"--shard: expected i/n with i from 1 to n, as 2/4. Received: {text!r}."
        )

    @property
    def name(self) -> str:
        """Names the part."""
        return f"part-{self.number}-of-{self.of}.json"

    def rows(self, rows: Sequence[ScoringRow]) -> list[ScoringRow]:
        """Gives the rows of this shard, in order."""
        return [row for row in rows if row.position % self.of == self.number - 1]


class ChunkStore:
    """Answers of finished chunks, one file each; a file is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, index: int) -> Path:
        return self.folder / f"chunk-{index:06d}.json"

    def save(self, index: int, answers: Sequence[Answer]) -> None:
        """Keeps the answers of one chunk."""
        write_bytes_atomic(self._path(index), encode_answers(answers))

    def load(self, index: int, chunk: Sequence[ScoringRow]) -> list[Answer] | None:
        """Gives the answers of a chunk, or None where they are not there or not for these rows."""
        path = self._path(index)
        try:
            answers = decode_answers(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("Checkpoint %s is damaged and done again: %s", path.name, error)
            return None
        if [one.position for one in answers] != [row.position for row in chunk]:
            return None
        return answers

    def remove(self) -> None:
        """Removes all chunks."""
        shutil.rmtree(self.folder, ignore_errors=True)


def encode_answers(answers: Sequence[Answer]) -> bytes:
    """Encodes answers; equal ones give equal bytes."""
    return canonical_json([one.to_json() for one in answers])


def decode_answers(data: bytes) -> list[Answer]:
    """Reads what `encode_answers` gave.

    Raises:
        ValueError: it is something else.
    """
    try:
        return [Answer.from_json(one) for one in json.loads(data)]
    except (TypeError, KeyError) as error:
        raise ValueError(f"no answers: {error}") from error


def read_parts(folder: Path, shards: int, rows: Sequence[ScoringRow]) -> list[Answer]:
    """Puts the parts of a sharded run together, in the order of the rows.

    Raises:
        ArtifactError: parts are missing or damaged; names them.
    """
    parts = [Shard(number, shards) for number in range(1, shards + 1)]
    if missing := [part.name for part in parts if not (folder / part.name).is_file()]:
        raise ArtifactError(
            f"{len(missing)} of {shards} parts are missing for these products and this bundle: "
            f"{', '.join(missing)}. Expected in {folder}. Run `product-classifier predict --shard i/{shards}` "
            "for each."
        )
    answers: list[Answer] = []
    for part in parts:
        try:
            answers += decode_answers((folder / part.name).read_bytes())
        except ValueError as error:
            raise ArtifactError(
                f"{part.name} is damaged: {error}. Run that shard again."
            ) from error
    answers.sort(key=lambda one: one.position)
    if [one.position for one in answers] != [row.position for row in rows]:
        raise ArtifactError(
            f"The parts in {folder} do not hold each row once. Run the shards again."
        )
    return answers
