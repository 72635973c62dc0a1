"""Code, `.env.example` and docs name the same settings."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from product_classifier.core.settings import Settings
from product_classifier.runtime.dotenv import STACK_SECRETS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / ".env.example"
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FIELDS = {name.upper(): field for name, field in Settings.model_fields.items()}
# Read by docker-compose.yml alone: no program of ours holds them.
COMPOSE_SECRETS = frozenset(STACK_SECRETS)
UNITS = {"SECONDS": "seconds", "MINUTES": "minutes", "BYTES": "bytes"}
# Settings of ours begin so; a name in the docs that begins so and is none is a mistake.
PREFIXES = tuple(sorted({name.split("_")[0] + "_" for name in FIELDS} | {"DATA_"}))
# Names in the docs that belong to other programs, or tell our process what only its starter knows.
FOREIGN = re.compile(
    r"^(AIRFLOW__\w+|AIRFLOW_(HOME|RUN_ID|VERSION)|MLFLOW_(HTTP|SERVER)_\w+|COMPOSE_(ENV_FILES|FILE|PROFILES)"
    r"|PROMETHEUS_(MULTIPROC_DIR|URL)|PIPELINE_METRICS_PATH)$"
)

_ENTRY = re.compile(r"(?P<off># ?)?(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>\S*)")


@dataclass(frozen=True)
class Entry:
    """One line of `.env.example` with the comment that stands above it or above its group."""

    name: str
    value: str
    active: bool
    comment: str


def read_example() -> list[Entry]:
    entries: list[Entry] = []
    comment: list[str] = []
    after_entry = False
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if match := _ENTRY.fullmatch(line):
            text = " ".join(comment)
            entries.append(Entry(match["name"], match["value"], not match["off"], text))
            after_entry = True
        elif line.startswith("#"):
            comment = [line] if after_entry else [*comment, line]
            after_entry = False
        else:
            comment, after_entry = [], False
    return entries


ENTRIES = {entry.name: entry for entry in read_example()}


def is_secret(field: FieldInfo) -> bool:
    return SecretStr.__name__ in f"{field.annotation} {field.metadata}"


def test_example_lists_every_setting_once_and_nothing_else() -> None:
    assert sorted(entry.name for entry in read_example()) == sorted([*FIELDS, *COMPOSE_SECRETS])


@pytest.mark.parametrize("name", sorted(COMPOSE_SECRETS))
def test_a_secret_of_the_stack_has_no_default(name: str) -> None:
    assert ENTRIES[name].value == ""
    assert ENTRIES[name].comment


@pytest.mark.parametrize("name", FIELDS)
def test_example_shows_the_default(name: str) -> None:
    entry, default = ENTRIES[name], FIELDS[name].default
    if not entry.active:  # an example of a value where there is no default
        assert default is None
    elif isinstance(default, int | float):
        assert float(entry.value) == default
    else:
        assert entry.value == str(default or "")


@pytest.mark.parametrize("name", FIELDS)
def test_example_explains_it_with_its_unit(name: str) -> None:
    comment = ENTRIES[name].comment.lower()
    assert len(comment) > len("# default")
    unit = UNITS.get(name.rsplit("_", 1)[-1])
    assert unit is None or unit in comment


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if is_secret(field)])
def test_secret_has_no_default(name: str) -> None:
    assert FIELDS[name].default is None
    assert ENTRIES[name].value == ""


def test_there_are_secrets_to_test() -> None:
    assert is_secret(FIELDS["SECRET_KEY"])
    assert is_secret(FIELDS["DAGSHUB_TOKEN"])


def test_example_copied_to_env_changes_nothing() -> None:
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_docs_name_no_setting_that_is_none(path: Path) -> None:
    names = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", path.read_text(encoding="utf-8")))
    unknown = {
        name
        for name in names
        if name.startswith(PREFIXES)
        and name not in FIELDS
        and name not in COMPOSE_SECRETS
        and not FOREIGN.match(name)
    }
    assert unknown == set()


def test_environment_is_read_through_settings_alone() -> None:
    """Else a name could be read that `.env` and `.env.example` know nothing of."""
    known = {
        "IMAGE_DIGEST",
        "KERAS_HOME",
        "AIRFLOW_RUN_ID",
        "GIT_COMMIT",
        "DOCKER_HOST",
        "ADMIN_PASSWORD",
        "AIRFLOW_ADMIN_PASSWORD",
    }
    pattern = re.compile(r"(?:environ\.get\(|getenv\(|environ\[)\s*\"([A-Z_]+)\"(?!\]\s*=)")
    found = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in pattern.findall(path.read_text(encoding="utf-8"))
    }
    assert found <= known
