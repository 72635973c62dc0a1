import pytest
from dotenv import dotenv_values

from product_classifier.runtime.dotenv import (
    complete_dotenv,
    complete_grafana_password,
    private_secret,
)

NAMES = (
    "AIRFLOW_ADMIN_PASSWORD",
    "AIRFLOW_TRIGGER_PASSWORD",
    "ADMIN_PASSWORD",
    "SMOKE_PASSWORD",
)


@pytest.fixture(autouse=True)
def _no_password_in_the_environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def mode(path):
    return path.stat().st_mode & 0o777


def test_a_first_start_generates_passwords_into_a_private_file(tmp_path):
    path = tmp_path / ".env"
    generated = complete_dotenv(path)
    written = dotenv_values(path)
    assert set(written) == set(NAMES)
    assert len(set(written.values())) == len(NAMES)
    assert all(len(value) >= 16 for value in written.values())
    assert written["AIRFLOW_ADMIN_PASSWORD"] == generated.airflow_password
    assert written["ADMIN_PASSWORD"] == generated.admin_password
    assert mode(path) == 0o600
    assert not any(value in repr(generated) for value in written.values())


def test_only_what_is_missing_is_generated(tmp_path):
    path = tmp_path / ".env"
    path.write_text("ADMIN_PASSWORD=of my own\nSMOKE_PASSWORD=\n")
    generated = complete_dotenv(path)
    assert generated.admin_password is None
    assert set(generated.passwords) == set(NAMES) - {"ADMIN_PASSWORD"}
    assert dotenv_values(path)["ADMIN_PASSWORD"] == "of my own"
    assert len(dotenv_values(path)["SMOKE_PASSWORD"]) >= 16


def test_no_password_is_made_up_for_an_administrator_who_is_there(tmp_path):
    generated = complete_dotenv(tmp_path / ".env", has_users=True)
    assert generated.admin_password is None
    assert "ADMIN_PASSWORD" not in dotenv_values(tmp_path / ".env")


def test_a_second_start_changes_nothing(tmp_path):
    path = tmp_path / ".env"
    complete_dotenv(path)
    before = path.read_bytes()
    assert complete_dotenv(path).airflow_password is None
    assert path.read_bytes() == before


@pytest.mark.parametrize("last", ["DATA_SOURCE=rakuten", "AIRFLOW_ADMIN_PASSWORD=\n"])
def test_lines_that_are_there_stay_as_they_are(tmp_path, last):
    path = tmp_path / ".env"
    path.write_text(f"# mine\nTEST_USER='a b'\n{last}")
    generated = complete_dotenv(path)
    assert path.read_text().startswith(f"# mine\nTEST_USER='a b'\n{last}")
    assert dotenv_values(path)["AIRFLOW_ADMIN_PASSWORD"] == generated.airflow_password


def test_a_password_of_the_users_own_is_kept_and_the_file_made_private(tmp_path):
    path = tmp_path / ".env"
    content = "".join(f"{name}=mine\n" for name in NAMES)
    path.write_text(content)
    path.chmod(0o644)
    assert complete_dotenv(path).airflow_password is None
    assert path.read_text() == content
    assert mode(path) == 0o600


def test_a_password_in_the_environment_is_not_written_down(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "exported")
    assert complete_dotenv(tmp_path / ".env").airflow_password is None
    assert not (tmp_path / ".env").exists()


def test_a_linked_env_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / ".env").symlink_to("elsewhere")
    complete_dotenv(tmp_path / ".env")
    assert (tmp_path / ".env").is_symlink()
    assert "AIRFLOW_ADMIN_PASSWORD" in (tmp_path / "elsewhere").read_text()


def test_a_private_secret_is_made_once(tmp_path):
    first = private_secret(tmp_path / "jwt.secret")
    assert len(first) >= 48
    assert private_secret(tmp_path / "jwt.secret") == first
    assert mode(tmp_path / "jwt.secret") == 0o600


def test_grafanas_password_is_made_where_there_is_a_grafana(tmp_path):
    path = tmp_path / ".env"
    assert complete_dotenv(path).grafana_password is None
    password = complete_dotenv(path, grafana=True).grafana_password
    assert password
    assert f"GRAFANA_ADMIN_PASSWORD={password}\n" in path.read_text()
    assert complete_dotenv(path, grafana=True).grafana_password is None
    assert complete_dotenv(tmp_path / "stack.env", stack=True).grafana_password


def test_the_monitoring_alone_needs_no_other_password(tmp_path):
    path = tmp_path / ".env"
    password = complete_grafana_password(path).grafana_password
    assert [line for line in path.read_text().splitlines() if not line.startswith("#")] == [
        f"GRAFANA_ADMIN_PASSWORD={password}"
    ]
    assert path.stat().st_mode & 0o077 == 0
