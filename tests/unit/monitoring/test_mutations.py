"""The sweep over the rules: what it changes, and that it says what no test notices."""

import sys
from pathlib import Path

import pytest
import yaml

import promtool
from monitoring.prometheus import mutate
from monitoring.prometheus.mutations import mutate_duration, mutate_expression

RULE = """
groups:
  - name: sample
    rules:
      - alert: TooMany
        expr: max by (job) (waiting{state="new"}) > 10
        for: 2m
        keep_firing_for: 10m
        labels: {severity: page}
"""
WEAK = """
rule_files: [../rules/sample.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: waiting{job="a",state="new"}
        values: 50x10
    alert_rule_test:
      - eval_time: 5m
        alertname: TooMany
        exp_alerts: [{exp_labels: {severity: page, job: a}}]
"""
WEAK_ABOUT = {
    "TooMany: max -> min",
    'TooMany: state="new" -> nothing',
    "TooMany: > -> >=",
    "TooMany: 10 -> 9",
    "TooMany: 10 -> 11",
    "TooMany: for 2m -> 60s",
    "TooMany: for 2m -> 240s",
    "TooMany: for 2m -> none",
    "TooMany: keep_firing_for 10m -> 300s",
    "TooMany: keep_firing_for 10m -> 1200s",
    "TooMany: keep_firing_for 10m -> none",
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a > 20", ["a >= 20", "a < 20", "a > 18", "a > 22"]),
        ("a == 0", ["a != 0", "a == -1", "a == 1"]),
        ("rate(a[5m])", ["rate(a[150s])", "rate(a[600s])"]),
        ("a offset 3h", ["a offset 5400s", "a offset 21600s"]),
        ("a and b", ["a or b", "a unless b"]),
        ("a unless b", ["a and b", "a or b"]),
        ("sum by (x, y) (a)", ["max by (x, y) (a)", "count by (x, y) (a)"]),
        ('a{x="1"}', ['a{x!="1"}', "a{}"]),
        ('a{x="1",y=~"2|3"}', ['a{x!="1",y=~"2|3"}', 'a{y=~"2|3"}', 'a{x="1",y!~"2|3"}']),
    ],
    ids=[
        "limit",
        "state",
        "range",
        "offset",
        "and",
        "unless",
        "aggregation",
        "matcher",
        "matchers",
    ],
)
def test_changes_of_an_expression(expression: str, expected: list[str]) -> None:
    assert expected == [changed for _, changed in mutate_expression(expression)][: len(expected)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sum by (x, y) (a)", {"sum by (y) (a)", "sum by (x) (a)"}),
        ("a and on (x) b", {"a and on () b"}),
        ('a{y=~"2|3"}', {'a{y=~"3"}', 'a{y=~"2"}'}),
    ],
    ids=["by", "on", "alternatives"],
)
def test_labels_are_left_out_one_by_one(expression: str, expected: set[str]) -> None:
    assert expected <= {changed for _, changed in mutate_expression(expression)}


def test_texts_and_names_are_left_alone() -> None:
    assert not list(mutate_expression("job:or_errors:increase5m{}"))


def test_equal_changes_are_numbered() -> None:
    names = [name for name, _ in mutate_expression("a > 0 or b > 0")]
    assert len(names) == len(set(names)) == 10


def test_durations_are_halved_and_doubled() -> None:
    assert mutate_duration("1h") == ("1800s", "7200s")
    with pytest.raises(ValueError, match="Received: '1h30m'"):
        mutate_duration("1h30m")


@pytest.fixture
def weak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A rule, and a test that notices few of its mutants."""
    promtool.require_promtool()
    for name, text in (("rules", RULE), ("tests", WEAK)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sample.yml").write_text(text)
        monkeypatch.setattr(mutate, name.upper(), tmp_path / name)
    (tmp_path / "equivalents.yml").write_text("{}")
    monkeypatch.setattr(mutate, "EQUIVALENTS", tmp_path / "equivalents.yml")
    monkeypatch.setattr(mutate, "tests_of", mutate.tests_of.__wrapped__)
    return tmp_path


def test_survivors_are_named(weak: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutate.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    found = {line.removeprefix("survived: ") for line in lines if line.startswith("survived: ")}
    assert found == WEAK_ABOUT


def test_justified_survivors_are_no_fault(weak: Path) -> None:
    (weak / "equivalents.yml").write_text(yaml.safe_dump(dict.fromkeys(WEAK_ABOUT, "a reason")))
    assert mutate.main([]) == 0


def test_justification_of_a_killed_mutant_is_a_fault(
    weak: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    justified = {*WEAK_ABOUT, "TooMany: > -> <"}
    (weak / "equivalents.yml").write_text(yaml.safe_dump(dict.fromkeys(justified, "a reason")))
    assert mutate.main([]) == 1
    assert "no survivor, but in equivalents.yml: TooMany: > -> <" in capsys.readouterr().out


def test_failing_tests_end_the_sweep_at_once(
    weak: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (weak / "tests" / "sample.yml").write_text(WEAK.replace("50x10", "5x10"))
    assert mutate.main([]) == 2
    assert "fail on the rules as they are" in capsys.readouterr().out


def test_rules_without_a_test_are_named(weak: Path) -> None:
    (weak / "tests" / "sample.yml").write_text(WEAK.replace("sample.yml", "other.yml"))
    with pytest.raises(FileNotFoundError, match=r"reads \.\./rules/sample\.yml"):
        mutate.main([])


def test_sweep_over_one_rule_file_as_a_program() -> None:
    promtool.require_promtool()
    program = (sys.executable, "-m", "monitoring.prometheus.mutate", "auth")
    assert "auth: 32 mutants, 32 killed" in promtool.ask(*program, folder=promtool.REPOSITORY)
