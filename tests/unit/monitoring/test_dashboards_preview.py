"""The preview asks as Grafana asks, and draws what came."""

import http.server
import json
import math
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dashboards
from monitoring.grafana import preview
from monitoring.grafana.panel_queries import QueryError, Series, Window, ask, ask_panel, expand
from monitoring.grafana.preview_table import Table
from monitoring.grafana.preview_units import shown

NOW = 1_800_000_000.0
WINDOW = Window(NOW - 1800, NOW)


class FakePrometheus(http.server.BaseHTTPRequestHandler):
    """Answers every query with the series that the test has set; remembers what was asked."""

    series: list[dict[str, str]] = []
    refuses = ""
    asked: list[tuple[str, dict[str, str]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        kind = self.path.rpartition("/")[2]
        type(self).asked.append((kind, dict(urllib.parse.parse_qsl(body))))
        if self.refuses:
            self.answer(400, {"status": "error", "error": self.refuses})
            return
        points = [[NOW - 60, "0.25"], [NOW, "0.5"]]
        found = [
            {
                "metric": labels,
                **({"values": points} if kind == "query_range" else {"value": points[-1]}),
            }
            for labels in self.series
        ]
        shape = "matrix" if kind == "query_range" else "vector"
        self.answer(200, {"status": "success", "data": {"resultType": shape, "result": found}})

    def answer(self, status: int, content: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def prometheus() -> Iterator[str]:
    FakePrometheus.series = [{"job": "fastapi", "feature": "language"}, {"job": "auth"}]
    FakePrometheus.refuses = ""
    FakePrometheus.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakePrometheus)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def pixels(path: Path) -> Any:
    from matplotlib import image

    return image.imread(path)


@pytest.mark.parametrize("name", dashboards.NAMES)
def test_every_panel_of_a_dashboard_is_drawn(name: str, prometheus: str, tmp_path: Path) -> None:
    found = dashboards.dashboard(name)
    preview.draw(found, prometheus, WINDOW, tmp_path / "board.png")

    drawn = pixels(tmp_path / "board.png")
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in found["panels"])
    assert drawn.shape[0] == pytest.approx(60 + 40 * lines, abs=2)
    assert drawn.std() > 0.05
    asked = {body["query"] for _, body in FakePrometheus.asked}
    assert asked == {expand(one, WINDOW) for one in dashboards.expressions(name)}


def test_a_panel_without_data_looks_different(prometheus: str, tmp_path: Path) -> None:
    found = dashboards.dashboard("host")
    preview.draw(found, prometheus, WINDOW, tmp_path / "full.png")
    FakePrometheus.series = []
    preview.draw(found, prometheus, WINDOW, tmp_path / "empty.png")

    full, empty = pixels(tmp_path / "full.png"), pixels(tmp_path / "empty.png")
    assert full.shape == empty.shape
    assert (full != empty).any()


def test_a_refused_query_is_named(prometheus: str) -> None:
    FakePrometheus.refuses = "parse error"

    with pytest.raises(QueryError, match=r"^up\(: .*parse error"):
        ask(prometheus, {"expr": "up(", "refId": "A"}, WINDOW)


def test_an_address_where_nobody_answers_is_named() -> None:
    with pytest.raises(QueryError, match=r"^http://127\.0\.0\.1:9/api/v1/query"):
        ask("http://127.0.0.1:9", {"expr": "up", "refId": "A"}, WINDOW)


def test_instant_and_range_queries_are_told_apart(prometheus: str) -> None:
    panel = {
        "targets": [
            {"expr": "a", "refId": "A", "instant": True, "legendFormat": "{{job}} x"},
            {"expr": "b", "refId": "B", "instant": False, "legendFormat": "__auto"},
        ]
    }
    found = ask_panel(prometheus, panel, WINDOW)

    assert [kind for kind, _ in FakePrometheus.asked] == ["query", "query_range"]
    assert [(one.ref, one.name, len(one.points)) for one in found] == [
        ("A", "fastapi x", 1),
        ("A", "auth x", 1),
        ("B", "fastapi, language", 2),
        ("B", "auth", 2),
    ]
    assert found[0].last == 0.5


@pytest.mark.parametrize(
    ("minutes", "rate", "range_"),
    [(5, "40s", "300s"), (60, "40s", "3600s"), (24 * 60, "442s", "86400s")],
)
def test_grafanas_variables_are_put_in(minutes: int, rate: str, range_: str) -> None:
    window = Window(NOW - 60 * minutes, NOW)

    assert (
        expand("rate(x[$__rate_interval]) + x[$__range]", window)
        == f"rate(x[{rate}]) + x[{range_}]"
    )


def test_marks_are_the_times_that_the_values_say(prometheus: str) -> None:
    live = {"expr": "a", "iconColor": "purple", "useValueForTime": "on"}
    alert = {"expr": "b", "iconColor": "red"}
    found = {"annotations": {"list": [live, alert]}}

    # values of 0.25 and 0.5 are long before the window; an alert is marked where it began
    assert preview.marked_times(found, prometheus, WINDOW) == [(NOW - 60, "red"), (NOW - 60, "red")]


def test_a_table_joins_its_queries_by_label() -> None:
    panel = next(one for one in dashboards.panels("model") if one["title"] == "Drift by feature")
    series = [
        Series("A", "", {"feature": "language"}, [(NOW, 0.5)]),
        Series("A", "", {"feature": "aspect"}, [(NOW, 0.01)]),
        Series("C", "", {"feature": "language"}, [(NOW, 2.0)]),
    ]
    table = Table(panel, series)

    assert table.header == ["feature", "PSI", "limit", "share of limit", "products"]
    assert [[text for text, _ in line] for line in table.lines] == [
        ["aspect", "0.01", "", "", ""],
        ["language", "0.5", "", "200 %", ""],
    ]
    assert table.lines[1][3][1] == "#e8750a"


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.995, "percentunit", 2, "99.50 %"),
        (0.0034, "s", None, "3.4 ms"),
        (5400, "s", None, "1.5 hours"),
        (0, "s", None, "0 s"),
        (3 * 2**30, "bytes", None, "3 GiB"),
        (1500, "Bps", None, "1.5 kB/s"),
        (0.25, "reqps", None, "0.25 req/s"),
        (84916, "none", None, "84916"),
        (3830, "short", None, "3.83 K"),
        (math.nan, "s", None, "NaN"),
    ],
)
def test_numbers_are_written_as_grafana_writes_them(
    value: float, unit: str, decimals: int | None, text: str
) -> None:
    assert shown(value, unit, decimals) == text


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="Received: parsecs"):
        shown(1, "parsecs")


def test_the_command_says_why_there_is_no_preview(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["preview", "--prometheus", "http://127.0.0.1:9", "--out", str(tmp_path / "out")],
    )

    with pytest.raises(SystemExit, match="No preview of service: http://127.0.0.1:9"):
        preview.main()


def test_the_command_draws_a_picture_per_dashboard(
    prometheus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(preview.NAMES) == set(dashboards.NAMES)
    monkeypatch.setattr(preview, "NAMES", ("host",))
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["preview", "--prometheus", prometheus, "--out", str(out)])
    preview.main()

    assert [path.name for path in out.iterdir()] == ["host.png"]
