import pytest

from product_classifier.core import errors
from product_classifier.core.errors import ExitCode, ProductClassifierError


def test_exit_codes_are_what_the_dag_relies_on() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 99]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigurationError, ExitCode.BAD_INPUT),
        (errors.DataValidationError, ExitCode.BAD_INPUT),
        (errors.ArtifactError, ExitCode.FAULT),
        (errors.VersioningError, ExitCode.FAULT),
        (errors.TrackingError, ExitCode.FAULT),
        (errors.SourceError, ExitCode.FAULT),
        (errors.RuntimeServiceError, ExitCode.FAULT),
        (errors.NothingToDo, ExitCode.NOTHING_TO_DO),
    ],
)
def test_each_error_ends_with_its_code(error: type[ProductClassifierError], code: ExitCode) -> None:
    assert error("why").exit_code == code
    assert issubclass(error, ProductClassifierError)
