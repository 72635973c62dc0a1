"""The error tree, and the exit codes that the stage commands share with Airflow."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a stage command returns. The DAG's operators rely on these numbers."""

    DONE = 0
    FAULT = 1
    BAD_INPUT = 2  # bad configuration or input: trying again can't help
    NOTHING_TO_DO = 99


class ProductClassifierError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code: ExitCode = ExitCode.FAULT


class ConfigurationError(ProductClassifierError):
    """A setting, a parameter or a command-line value can't be used."""

    exit_code = ExitCode.BAD_INPUT


class DataValidationError(ProductClassifierError):
    """The catalogue breaks a rule that training or scoring relies on."""

    exit_code = ExitCode.BAD_INPUT


class ArtifactError(ProductClassifierError):
    """A bundle, cache or other artefact is missing, damaged or of another schema version."""


class VersioningError(ProductClassifierError):
    """DVC could not record, push, verify or restore a state."""


class TrackingError(ProductClassifierError):
    """The MLflow server could not take or give a run. Never ends a training."""


class SourceError(ProductClassifierError):
    """The data source can't be reached or does not deliver what it promised."""


class RuntimeServiceError(ProductClassifierError):
    """A service of the embedded run did not start, answer or stop."""


class NothingToDo(ProductClassifierError):
    """Nothing changed since the last run: an outcome, not a failure."""

    exit_code = ExitCode.NOTHING_TO_DO
