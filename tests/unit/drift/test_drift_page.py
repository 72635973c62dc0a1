"""The HTML page: right figures, self-contained, and nothing is sent to anybody."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_observations import make_comparison, make_rows

from product_classifier.drift.page import draw, render_page

CHROMIUM = shutil.which("chromium")
# Runs before anything is imported: whoever opens a connection, or starts a program, ends the process.
GUARDED = """
import os, socket, subprocess, sys

def refuse(*arguments, **_options):
    sys.stderr.write(f"NETWORK {arguments!r}")
    sys.stderr.flush()
    os._exit(77)

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = refuse
subprocess.Popen.__init__ = refuse

sys.path[:0] = sys.argv[1:2]
from made_observations import make_comparison, make_rows
from product_classifier.drift.page import render_page

print(len(render_page(make_comparison(make_rows(300, seed=2)))))
print(os.environ["DO_NOT_TRACK"], os.path.exists(os.path.expanduser("~/.config/evidentlyai")), flush=True)
socket.getaddrinfo("127.0.0.1", 9)
"""


@pytest.fixture(scope="module")
def page() -> str:
    """A page of darkened photos and unsure answers."""
    return render_page(make_comparison(make_rows(400, seed=3, light=0.5, confidence=-0.2)))


def test_the_figures_shown_are_those_of_serve_and_the_alerts() -> None:
    comparison = make_comparison(make_rows(400, seed=3, light=0.5))
    shown = {
        metric["config"]["column"]: (metric["value"], metric["config"]["threshold"])
        for metric in draw(comparison).dict()["metrics"]
        if "column" in metric["config"]
    }
    found = comparison.figures.features
    assert len(shown) == 8
    assert shown == {name: (one.psi, one.limit) for name, one in found.items()}
    count = draw(comparison).dict()["metrics"][0]["value"]["count"]
    assert count == len(comparison.figures.drifted) == 2


def test_a_second_page_does_not_show_the_figures_of_the_first() -> None:
    # Evidently keeps tests by name, for the whole process.
    for light in (0.5, 1.0):
        comparison = make_comparison(make_rows(400, seed=3, light=light))
        drawn = {
            metric["config"].get("column"): metric["value"]
            for metric in draw(comparison).dict()["metrics"]
        }
        assert drawn["brightness"] == comparison.figures.features["brightness"].psi


def test_the_summary_says_what_came_of_it(page: str) -> None:
    summary = page[page.index("<section") : page.index("</section>")]
    assert "Drift of brightness, sharpness, confidence. The expected accuracy is low." in summary
    assert "Current: 400 of 400 products." in summary
    assert "Reference: 600 held-out products of bundle c0ffeec0ffeec0ff." in summary
    assert summary.count(">drift</td>") == 3
    assert summary.count(">as in the reference</td>") == 5


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    markup = re.sub(r"<script\b[^>]*>.*?</script>", "<script></script>", page, flags=re.DOTALL)
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)=[\"']?(https?:)?//", page)
    assert "content=\"default-src 'unsafe-inline' 'unsafe-eval' data: blob:\"" in page
    assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", markup)


def test_words_from_outside_are_words_in_the_page() -> None:
    comparison = make_comparison(
        make_rows(60, seed=2), context={"dataset": "<script>alert(1)</script>"}, subject="<b>it</b>"
    )
    html = render_page(comparison)
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>it" not in html


def test_features_that_no_product_has_are_left_out() -> None:
    comparison = make_comparison(make_rows(80, seed=2, photos=False))
    shown = {metric["config"].get("column") for metric in draw(comparison).dict()["metrics"]} - {
        None
    }
    assert "brightness" not in shown
    assert {"text_length", "language", "predicted_code", "confidence"} <= shown
    assert "photo 100.0% (0.0%)" in render_page(comparison)


def test_one_product_is_enough_for_a_page() -> None:
    assert "too few to tell" in render_page(make_comparison(make_rows(1, seed=2)))


def test_no_telemetry_is_sent_and_no_user_id_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, str(Path(__file__).parent)],
        env={"HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    size, marks = done.stdout.splitlines()
    assert int(size) > 1_000_000
    assert marks == "1 False"
    # Its last line asks for a connection: the guard would have seen an earlier one.
    assert done.stderr.endswith("NETWORK ('127.0.0.1', 9)")
    assert done.returncode == 77


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_without_a_network_draws_it(page: str, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    (tmp_path / "report.html").write_text(page)
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--proxy-server=127.0.0.1:9", "--virtual-time-budget=15000", "--dump-dom"),
            *(f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "report.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "Data Drift Summary" in done.stdout, done.stderr[-2000:]
    assert "Drift is detected for 37.5% of columns (3 out of 8)" in done.stdout
