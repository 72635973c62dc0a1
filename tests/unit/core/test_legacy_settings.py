"""Names in `.env` files of the earlier system: each one still changes what it is there to change.

DATASET_PATH, DATA_PATH, IMAGES_PATH and PREDICTIONS_PATH are tested with their stages, the paths of
exported models in `test_export.py`, PROJECT_HOST_PATH with the runtime.
"""

import json
import logging
import logging.handlers
from pathlib import Path

import pytest
from pydantic import ValidationError

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.logging import configure_logging
from product_classifier.core.settings import Settings, get_settings, is_placeholder

LOGGERS = {
    "IMPORT_DATA_LOGGER_PATH": "ingest",
    "TRAIN_MODEL_LOGGER_PATH": "train",
    "TEST_MODEL_LOGGER_PATH": "predict",
    "AUTH_SERVICE_LOGGER_PATH": "auth",
    "SERVING_LOGGER_PATH": "serve",
}
KEY = "k8Zr1" * 8
WHOLE = f"""
TOKENIZER_CONFIG_PATH=models/tokenizer_config.json
LSTM_MODEL_PATH=models/best_lstm_model.h5
VGG16_MODEL_PATH="models/best_vgg16_model.h5"
BEST_WEIGHTS_PATH=models/best_weights.json
BEST_WEIGHTS_PATH_PKL=models/best_weights.pkl
MAPPER_PATH=models/mapper.json
MAPPER_PATH_PKL=models/mapper.pkl
DATASET_PATH=data/preprocessed
DATA_PATH=data/preprocessed/X_train_update.csv
IMAGES_PATH=data/preprocessed/image_train
PREDICTIONS_PATH=data/predictions/predictions.json
CONCATENATED_MODEL_PATH=models/concatenate.h5
SERVING_LOGGER_PATH=logs/serve.log
TRAIN_MODEL_LOGGER_PATH=logs/train.log
TEST_MODEL_LOGGER_PATH=logs/predict.log
IMPORT_DATA_LOGGER_PATH=logs/ingest.log
AUTH_SERVICE_LOGGER_PATH=logs/auth.log

# authentication
SECRET_KEY={KEY}
ALGORITHM=HS256
ACCESS_TOKEN_EXPIRE_MINUTES=45
MLFLOW_TRACKING_URI=https://dagshub.com/jane/shop.mlflow
MLFLOW_EXPERIMENT_NAME=ProductCodeClassifier
DAGSHUB_USERNAME=jane
DAGSHUB_TOKEN=0123456789abcdef
AIRFLOW_UID=50000
PROJECT_HOST_PATH=/home/jane/shop
TEST_USER=jane
TEST_USER_FULLNAME='Jane Doe'
TEST_USER_PASSWORD=a-fine-password
SOMETHING_ELSE=ignored
"""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


def test_whole_file_of_that_shape_loads(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(WHOLE)
    settings = get_settings()
    names = {line.split("=")[0] for line in WHOLE.splitlines() if "=" in line} - {"SOMETHING_ELSE"}
    unset = [name for name in names if getattr(settings, name.lower()) is None]
    assert unset == []
    assert settings.check_auth() == []


def test_file_with_nothing_but_names_is_the_same_as_none(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("".join(f"{name.upper()}=\n" for name in Settings.model_fields))
    assert get_settings() == Settings(_env_file=None)


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("MLFLOW_EXPERIMENT_NAME=file\n")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "environment")
    assert get_settings().mlflow_experiment_name == "environment"


@pytest.mark.parametrize(("name", "stage"), LOGGERS.items(), ids=LOGGERS)
def test_logger_path_adds_a_rotating_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stage: str
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "logs" / "stage.log"))
    configure_logging(stage)
    logging.getLogger("product_classifier.test").info("read %d rows", 3)
    [handler] = [
        h
        for h in logging.getLogger().handlers
        if isinstance(h, logging.handlers.RotatingFileHandler)
    ]
    assert handler.backupCount > 0
    event = json.loads((tmp_path / "logs" / "stage.log").read_text())
    assert (event["message"], event["stage"]) == ("read 3 rows", stage)


@pytest.mark.parametrize(("name", "stage"), LOGGERS.items(), ids=LOGGERS)
def test_logger_path_of_another_stage_adds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stage: str
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "stage.log"))
    configure_logging("train" if stage != "train" else "ingest")
    assert not (tmp_path / "stage.log").exists()


# Tracking

DAGSHUB = "https://dagshub.com/jane/shop.mlflow"
LOCAL = "http://127.0.0.1:5000"


def test_tracking_uri_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, MLFLOW_TRACKING_URI="https://mlflow.example.com")
    assert settings.tracking_uri(LOCAL) == "https://mlflow.example.com"
    assert settings.remote_url("dvc-remote") == "dvc-remote"
    assert read(monkeypatch, MLFLOW_TRACKING_URI="").tracking_uri(LOCAL) == LOCAL


def test_experiment_name_has_its_default_and_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch).mlflow_experiment_name == "ProductCodeClassifier"
    assert read(monkeypatch, MLFLOW_EXPERIMENT_NAME="mine").mlflow_experiment_name == "mine"


def test_dagshub_names_and_token_sign_in_at_dagshub(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, MLFLOW_TRACKING_URI=DAGSHUB).tracking_credentials() is None
    settings = read(monkeypatch, DAGSHUB_USERNAME="jane", DAGSHUB_TOKEN="t0k3n")
    assert settings.tracking_credentials() == ("jane", "t0k3n")
    assert settings.remote_url("dvc-remote") == "s3://dvc"
    assert settings.s3_credentials() == {
        "endpointurl": "https://dagshub.com/jane/shop.s3",
        "access_key_id": "t0k3n",
        "secret_access_key": "t0k3n",
    }


def test_dagshub_token_signs_in_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, MLFLOW_TRACKING_URI=DAGSHUB, DAGSHUB_TOKEN="t0k3n")
    assert settings.tracking_credentials() == ("token", "t0k3n")


@pytest.mark.parametrize("uri", ["", "http://127.0.0.1:5000", "https://dagshub.com.evil.example/x"])
def test_dagshub_token_is_shown_to_nobody_else(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    settings = read(monkeypatch, MLFLOW_TRACKING_URI=uri, DAGSHUB_TOKEN="t0k3n")
    assert settings.tracking_credentials() is None
    assert settings.s3_credentials() == {}


def test_dagshub_token_is_not_shown_to_another_s3_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch,
        DAGSHUB_REPOSITORY="jane/shop",
        DAGSHUB_TOKEN="t0k3n",
        DVC_S3_ENDPOINT_URL="http://s3:8333",
    )
    assert settings.s3_credentials() == {"endpointurl": "http://s3:8333"}


@pytest.mark.parametrize(
    "given",
    [
        "ann/shop",
        "https://dagshub.com/ann/shop",
        "https://dagshub.com/ann/shop.git",
        "https://dagshub.com/ann/shop.mlflow/",
    ],
)
def test_dagshub_repository_is_taken_as_people_copy_it(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    settings = read(
        monkeypatch, DAGSHUB_REPOSITORY=given, DAGSHUB_USERNAME="jane", DAGSHUB_TOKEN="t0k3n"
    )
    assert settings.tracking_uri(LOCAL) == "https://dagshub.com/ann/shop.mlflow"
    assert settings.tracking_credentials() == ("jane", "t0k3n")
    assert settings.s3_credentials()["endpointurl"] == "https://dagshub.com/ann/shop.s3"


def test_dagshub_repository_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="expected owner/name"):
        read(monkeypatch, DAGSHUB_REPOSITORY="shop")


def test_a_dagshub_of_ones_own_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch,
        DAGSHUB_URL="https://hub.example.com:8443/",
        MLFLOW_TRACKING_URI="https://hub.example.com:8443/jane/shop.mlflow",
        DAGSHUB_TOKEN="t0k3n",
    )
    assert settings.dagshub_slug() == "jane/shop"
    assert settings.tracking_credentials() == ("token", "t0k3n")
    assert settings.s3_credentials()["endpointurl"] == "https://hub.example.com:8443/jane/shop.s3"


def test_own_dvc_remote_wins_over_dagshub(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch,
        MLFLOW_TRACKING_URI=DAGSHUB,
        DAGSHUB_TOKEN="t0k3n",
        DVC_REMOTE_URL="s3://mine",
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="b",
    )
    assert settings.remote_url("dvc-remote") == "s3://mine"
    assert settings.s3_credentials() == {"access_key_id": "a", "secret_access_key": "b"}


# Auth


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "SECRET_KEY is missing"),
        ("short", "at least 32 bytes"),
        ("k" * 31, "It has 31"),
        ("your-secret-key-of-at-least-32-bytes", "placeholder"),
        ("<generate one with openssl rand -hex 32>", "placeholder"),
    ],
)
def test_hs256_without_a_good_key_is_refused(
    monkeypatch: pytest.MonkeyPatch, key: str, problem: str
) -> None:
    [found] = read(monkeypatch, ALGORITHM="HS256", SECRET_KEY=key).check_auth()
    assert problem in found
    assert not key or key not in found


def test_hs256_with_a_good_key_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, ALGORITHM="HS256", SECRET_KEY=KEY).check_auth() == []


def test_default_algorithm_needs_no_shared_key(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch)
    assert (settings.algorithm, settings.check_auth()) == ("ES256", [])


@pytest.mark.parametrize("algorithm", ["none", "HS512", "hs256"])
def test_other_algorithms_are_refused(monkeypatch: pytest.MonkeyPatch, algorithm: str) -> None:
    monkeypatch.setenv("ALGORITHM", algorithm)
    with pytest.raises(ConfigurationError, match="ALGORITHM: .*'ES256' or 'HS256'"):
        get_settings()


def test_token_lifetime_is_taken_in_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch).token_lifetime_seconds == 1800
    settings = read(monkeypatch, ACCESS_TOKEN_EXPIRE_MINUTES="5")
    assert settings.token_lifetime_seconds == 300


@pytest.mark.parametrize("minutes", ["0", "-1", "100000", "soon"])
def test_token_lifetime_out_of_bounds_is_refused(
    monkeypatch: pytest.MonkeyPatch, minutes: str
) -> None:
    monkeypatch.setenv("ACCESS_TOKEN_EXPIRE_MINUTES", minutes)
    with pytest.raises(ConfigurationError, match="ACCESS_TOKEN_EXPIRE_MINUTES"):
        get_settings()


def test_full_name_stands_in_for_the_user_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch).test_user_name is None
    assert read(monkeypatch, TEST_USER="jane").test_user_name == "jane"
    assert read(monkeypatch, TEST_USER_FULLNAME="Jane Doe").test_user_name == "Jane Doe"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"TEST_USER": "jane"}, "without TEST_USER_PASSWORD"),
        ({"TEST_USER_PASSWORD": "a-fine-password"}, "without TEST_USER:"),
        ({"TEST_USER_FULLNAME": "Jane"}, "without TEST_USER:"),
        ({"TEST_USER": "jane", "TEST_USER_PASSWORD": "seven77"}, "fewer than 8"),
        ({"TEST_USER": "jane", "TEST_USER_PASSWORD": "password"}, "placeholder"),
        ({"TEST_USER": "jane", "TEST_USER_PASSWORD": "é" * 37}, "more than 72 bytes"),
    ],
)
def test_test_user_that_can_not_be_made_is_named(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], problem: str
) -> None:
    [found] = read(monkeypatch, **values).check_auth()
    assert problem in found


@pytest.mark.parametrize("uid", ["-1", "me"])
def test_airflow_uid_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, uid: str) -> None:
    monkeypatch.setenv("AIRFLOW_UID", uid)
    with pytest.raises(ConfigurationError, match="AIRFLOW_UID"):
        get_settings()


def test_error_never_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "very-private")
    monkeypatch.setenv("ALGORITHM", "none")
    with pytest.raises(ConfigurationError) as caught:
        get_settings()
    assert "very-private" not in str(caught.value)
    assert "very-private" not in repr(Settings(_env_file=None, algorithm="HS256"))


@pytest.mark.parametrize(
    "secret", ["changeme", "CHANGE_ME", "<token>", "xxxx", "your_token", "***"]
)
def test_placeholders_are_recognised(secret: str) -> None:
    assert is_placeholder(secret)


@pytest.mark.parametrize("secret", [KEY, "0f3a9c1e77", "testimony-of-9-crows", "admin-Xk93-qq"])
def test_real_secrets_are_no_placeholders(secret: str) -> None:
    assert not is_placeholder(secret)
