"""A span of time of serve's requests, as the API's table tells it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from made_observations import make_rows, publish_referenced

from product_classifier.core.errors import ConfigurationError, DataValidationError, NothingToDo
from product_classifier.core.workspace import Workspace
from product_classifier.drift.window import compare_window, parse_span
from product_classifier.modeling.observation_table import format_table

MakeBundle = Callable[..., Path]
SINCE = datetime(2026, 11, 20, 9, tzinfo=UTC)
UNTIL = datetime(2026, 11, 21, 9, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def bundle_id(workspace: Workspace, make_bundle: MakeBundle) -> str:
    return publish_referenced(workspace, make_bundle(workspace.candidate))


def table(rows: list, bundle_ids: list[str]) -> str:
    times = ["2026-11-21T08:00:00.000+00:00"] * len(rows)
    return format_table(rows, {"time": times, "bundle_id": bundle_ids})


def test_requests_are_compared_with_the_bundle_that_answered_them(
    workspace: Workspace, bundle_id: str
) -> None:
    rows = make_rows(300, seed=4, light=0.5)
    found = compare_window(workspace, table(rows, [bundle_id] * 300), SINCE, UNTIL)
    assert found.kind == "window"
    assert found.current == rows
    assert found.figures.drifted == ["brightness", "sharpness"]
    assert found.bundle_id == bundle_id
    assert found.context == {
        "since": "2026-11-20T09:00:00+00:00",
        "until": "2026-11-21T09:00:00+00:00",
    }


def test_answers_of_an_earlier_bundle_are_left_out(workspace: Workspace, bundle_id: str) -> None:
    rows = make_rows(160, seed=4, light=0.5) + make_rows(100, seed=5)
    text = table(rows, ["0" * 16] * 160 + [bundle_id] * 100)
    found = compare_window(workspace, text, SINCE, UNTIL)
    assert (found.figures.products, found.population) == (100, 260)
    assert found.figures.drifted == []


def test_no_request_is_nothing_to_report_on(workspace: Workspace, bundle_id: str) -> None:
    with pytest.raises(
        NothingToDo, match=r"There is no product in the requests from 2026-11-20T09"
    ):
        compare_window(workspace, table([], []), SINCE, UNTIL)


def test_a_reference_of_few_products_is_nothing_to_compare_with(
    workspace: Workspace, make_bundle: MakeBundle
) -> None:
    bundle_id = publish_referenced(workspace, make_bundle(workspace.candidate), products=19)
    with pytest.raises(NothingToDo, match="is 19 test products"):
        compare_window(workspace, table(make_rows(60, seed=4), [bundle_id] * 60), SINCE, UNTIL)


def test_a_bundle_that_is_elsewhere_is_named(workspace: Workspace, bundle_id: str) -> None:
    text = table(make_rows(60, seed=4), ["abc123"] * 60)
    with pytest.raises(ConfigurationError, match="abc123, is not in"):
        compare_window(workspace, text, SINCE, UNTIL)


def test_a_bundle_id_is_no_way_out_of_the_folder(workspace: Workspace, bundle_id: str) -> None:
    text = table(make_rows(60, seed=4), [f"../releases/{bundle_id}"] * 60)
    with pytest.raises(ConfigurationError, match="is not in"):
        compare_window(workspace, text, SINCE, UNTIL)


@pytest.mark.parametrize(
    "text",
    [
        "<html>a proxy's page</html>\n<p>",
        "time,bundle_id\n1,abc\n",
        format_table(make_rows(2, seed=1)),
    ],
    ids=["no table", "other columns", "no bundle"],
)
def test_another_table_is_refused(workspace: Workspace, bundle_id: str, text: str) -> None:
    with pytest.raises(DataValidationError):
        compare_window(workspace, text.replace("abc", bundle_id), SINCE, UNTIL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(hours=24)),
        (" 7d ", timedelta(days=7)),
    ],
)
def test_a_span_is_minutes_hours_or_days(text: str, expected: timedelta) -> None:
    assert parse_span(text) == expected


@pytest.mark.parametrize("text", ["", "24", "0h", "-1h", "1.5h", "1w", "999999d", "h"])
def test_any_other_span_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="as 90m, 24h or 7d"):
        parse_span(text)
