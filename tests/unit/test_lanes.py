"""All tests in two lanes: nothing is left out, and a failure in either lane counts."""

import sys
from pathlib import Path

import pytest

from lanes import LIVE_MONITORING, NO_TESTS_COLLECTED, ROOT, lanes, run

PASSES = (sys.executable, "-c", "print('passed here')")
FAILS = (sys.executable, "-c", "import sys; print('failed here'); sys.exit(1)")
KILLED = (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
FINDS_NONE = (sys.executable, "-c", f"raise SystemExit({NO_TESTS_COLLECTED})")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([PASSES], [PASSES], 0),
        ([PASSES, FINDS_NONE], [FINDS_NONE], 0),
        ([FINDS_NONE], [FINDS_NONE], NO_TESTS_COLLECTED),
        ([FAILS, PASSES], [PASSES], 1),
        ([PASSES], [FAILS, PASSES], 1),
        ([PASSES], [KILLED], 1),
    ],
)
def test_a_failure_in_either_lane_counts(first, second, expected):
    assert run(first, second) == expected


def test_the_second_lane_is_shown_too(capfd):
    run([PASSES], [FAILS])
    shown = capfd.readouterr().out
    assert shown.index("passed here") < shown.index("failed here")


def test_every_test_file_is_in_one_lane():
    taken = [arguments for lane in lanes(()) for command in lane for arguments in command]
    folders = {name for name in taken if (ROOT / name).is_dir()}
    files = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")}
    left = {path.parts[1] for path in files if not any(path.is_relative_to(f) for f in folders)}
    assert left == {"containers"}
    assert all((ROOT / path).is_file() and f"--ignore={path}" in taken for path in LIVE_MONITORING)
    assert all(path in taken for path in LIVE_MONITORING)
    assert Path(taken[0]).is_file()
