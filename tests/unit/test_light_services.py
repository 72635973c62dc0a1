"""What the services' images install and load: no TensorFlow, and nothing of the other stages."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "tensorflow",
    "keras",
    "nncf",
    "scikit-learn",
    "matplotlib",
    "dvc",
    "mlflow",
    "mlflow-skinny",
}
ABSENT = {
    "auth": HEAVY | {"numpy", "openvino", "pillow", "tokenizers", "slowapi", "redis", "httpx"},
    "serve": HEAVY | {"sqlalchemy", "bcrypt", "alembic", "boto3"},
}
MODULES = {
    "auth": (
        "tensorflow",
        "keras",
        "mlflow",
        "dvc",
        "numpy",
        "openvino",
        "PIL",
        "slowapi",
        "redis",
    ),
    # Not bcrypt: cryptography imports that itself where it is installed.
    "serve": ("tensorflow", "keras", "mlflow", "dvc", "sklearn", "sqlalchemy", "alembic"),
}


def locked_packages() -> dict[str, list[dict[str, Any]]]:
    content = tomllib.loads((ROOT / "uv.lock").read_text())
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in content["package"]:
        packages.setdefault(package["name"], []).append(package)
    return packages


def installed_by(extra: str) -> set[str]:
    """Names all that an extra can install, on any platform (markers are not read)."""
    packages = locked_packages()
    found: set[tuple[str, str | None]] = set()
    waiting: list[tuple[str, str | None]] = [
        ("product-classifier", None),
        ("product-classifier", extra),
    ]
    while waiting:
        name, wanted = one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        for package in packages[name]:
            needs = package.get("optional-dependencies", {}).get(wanted, []) if wanted else None
            for need in package.get("dependencies", []) if needs is None else needs:
                waiting += [(need["name"], part) for part in (None, *need.get("extra", []))]
    return {name for name, _ in found}


@pytest.mark.parametrize("service", ["auth", "serve"])
def test_extra_of_a_service_installs_nothing_heavy(service: str) -> None:
    names = installed_by(service)

    assert {"fastapi", "uvicorn", "python-jose"} <= names  # the walk did go somewhere
    assert not names & ABSENT[service]


def test_walk_over_the_lock_file_finds_tensorflow_where_it_is() -> None:
    assert {"tensorflow", "keras", "nncf"} <= installed_by("train")


@pytest.mark.parametrize("service", ["auth", "serve"])
def test_app_of_a_service_loads_nothing_heavy(service: str, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        f"import product_classifier.{service}.app, product_classifier.commands.{service}\n"
        f"print(sorted(set(sys.modules) & set({MODULES[service]!r})))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
