"""Every move of the champion: `models/champion_history.jsonl`, one line each, only appended to."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from product_classifier.core.workspace import Workspace

HISTORY_FILE = "champion_history.jsonl"

MoveKind = Literal["gate", "rollback", "restore"]


@dataclass(frozen=True)
class Move:
    """One line of the history."""

    at: str
    from_release: str | None
    to_release: str
    kind: MoveKind
    reason: str

    def as_json(self) -> dict[str, Any]:
        """What the line says."""
        return {
            "at": self.at,
            "from": self.from_release,
            "to": self.to_release,
            "kind": self.kind,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Move":
        """Reads what `as_json` gave."""
        return cls(
            content["at"], content["from"], content["to"], content["kind"], content["reason"]
        )


def _path(workspace: Workspace) -> Path:
    return workspace.models / HISTORY_FILE


def champion_history(workspace: Workspace) -> list[Move]:
    """Lists the champion's moves, oldest first; a line that a kill has torn is skipped."""
    path = _path(workspace)
    moves = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            moves.append(Move.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            continue
    return moves


def append_move(workspace: Workspace, move: Move) -> None:
    """Adds a line in one write, unless it is the last one already."""
    moves = champion_history(workspace)
    if moves and moves[-1] == move:
        return
    path = _path(workspace)
    line = json.dumps(move.as_json(), sort_keys=True, ensure_ascii=False).encode() + b"\n"
    content = path.read_bytes() if path.exists() else b""
    torn = bool(content) and not content.endswith(b"\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, b"\n" + line if torn else line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def previous_champion(workspace: Workspace) -> str | None:
    """Gives the release that a rollback goes to, or None.

    Rolling back twice goes two champions back, not to and fro.
    """
    line: list[str] = []
    for move in champion_history(workspace):
        if move.kind == "rollback" and move.to_release in line:
            last = len(line) - 1 - line[::-1].index(move.to_release)
            del line[last + 1 :]
        else:
            line.append(move.to_release)
    return line[-2] if len(line) > 1 else None
