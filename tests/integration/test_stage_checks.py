"""The command `check` with each stage's real probe, as the DAG calls it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("stage", ["ingest", "train", "gate", "predict"])
def test_check_of_a_fresh_checkout_says_that_the_stage_must_run(stage: str, tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    environment = {key: value for key, value in os.environ.items() if key not in ("DATA_SOURCE",)}
    # No ImageNet download from a test.
    params = (tmp_path / "params.yaml").read_text().replace("weights: auto", "weights: random")
    (tmp_path / "params.yaml").write_text(params)
    result = subprocess.run(
        [sys.executable, "-m", "product_classifier", "check", stage],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{stage} must run" in result.stdout
