"""Changes each alert and recording rule a little and says which changes no rules test notices.

    python -m monitoring.prometheus.mutate            # all rule files, as many mutants at a time as processors
    python -m monitoring.prometheus.mutate host slo   # these only

A change is a mutant: a threshold by a tenth, another comparison, a `for`, a `keep_firing_for` or a range halved or
doubled, a label selector or a grouping label left out, `and` for `or`. The tests of the rule file run on each; a mutant
that they all accept survived. Exit code 0: none did. 1: some did, or a justified one (`equivalents.yml`) no longer
does. 2: the tests fail on the rules as they are, or there is no promtool.
"""

import argparse
import copy
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from monitoring.prometheus.mutations import mutate_duration, mutate_expression

HERE = Path(__file__).resolve().parent
RULES, TESTS = HERE / "rules", HERE / "tests"
EQUIVALENTS = HERE / "equivalents.yml"
TIMEOUT_SECONDS = 60
# A rule without `for` gets this one: its test must look before it is over.
ADDED_FOR = "5m"


@dataclass(frozen=True)
class Mutant:
    """One rule file with one change.

    Attributes:
        file: Name of the rule file, without ending.
        change: Rule and change, for people and for the list of equivalents.
        content: The whole file with the change.
    """

    file: str
    change: str
    content: dict[str, Any]


def changed_rules(rule: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each change of a rule, with what it says of itself."""
    for text, expression in mutate_expression(rule["expr"]):
        yield text, rule | {"expr": expression}
    if "alert" not in rule:
        return
    yield from _changed_waits(rule, "for")
    if "for" not in rule:
        yield f"for none -> {ADDED_FOR}", rule | {"for": ADDED_FOR}
    yield from _changed_waits(rule, "keep_firing_for")
    other = "ticket" if rule["labels"]["severity"] == "page" else "page"
    yield f"severity -> {other}", rule | {"labels": rule["labels"] | {"severity": other}}


def _changed_waits(rule: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Halves, doubles and leaves out how long a rule waits, where it does."""
    if key not in rule:
        return
    for duration in mutate_duration(rule[key]):
        yield f"{key} {rule[key]} -> {duration}", rule | {key: duration}
    yield f"{key} {rule[key]} -> none", {k: v for k, v in rule.items() if k != key}


def mutants(file: Path) -> Iterator[Mutant]:
    """Yields every mutant of a rule file."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    for group_at, group in enumerate(document["groups"]):
        for rule_at, rule in enumerate(group["rules"]):
            name = rule.get("alert") or rule["record"]
            for text, changed in changed_rules(rule):
                content = copy.deepcopy(document)
                content["groups"][group_at]["rules"][rule_at] = changed
                yield Mutant(file.stem, f"{name}: {text}", content)


@cache
def tests_of(file: str) -> list[Path]:
    """Finds the test files that read a rule file.

    Raises:
        FileNotFoundError: there is none.
    """
    wanted = f"../rules/{file}.yml"
    found = [path for path in sorted(TESTS.glob("*.yml")) if wanted in _rule_files(path)]
    if not found:
        raise FileNotFoundError(f"No file in {TESTS} reads {wanted}.")
    return found


def _rule_files(test: Path) -> list[str]:
    return list(yaml.safe_load(test.read_text(encoding="utf-8"))["rule_files"])


def passes(file: str, content: dict[str, Any]) -> bool:
    """Runs a rule file's tests on some content of it.

    Raises:
        ValueError: the content is no rule file: the change made no valid expression.
    """
    with tempfile.TemporaryDirectory() as folder:
        rules, tests = Path(folder) / "rules", Path(folder) / "tests"
        rules.mkdir()
        tests.mkdir()
        for path in tests_of(file):
            shutil.copy(path, tests)
        (rules / f"{file}.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
        command = ["promtool", "test", "rules", *(path.name for path in tests_of(file))]
        ended = subprocess.run(  # noqa: S603
            command, cwd=tests, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    output = ended.stdout + ended.stderr
    if "parse error" in output:
        raise ValueError(output)
    return ended.returncode == 0


def check_baseline(files: list[Path]) -> str | None:
    """Says what is wrong before any change; None where all is well."""
    if shutil.which("promtool") is None:
        return "promtool is not installed; it comes with Prometheus."
    for file in files:
        if not passes(file.stem, yaml.safe_load(file.read_text(encoding="utf-8"))):
            return f"The tests of {file.name} fail on the rules as they are: promtool test rules says why."
    return None


def say(*lines: str) -> None:
    """Writes lines to stdout."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def report(found: list[Mutant], survived: set[str], all_files: bool) -> list[str]:
    """Prints each file's figures; gives what is wrong."""
    justified = yaml.safe_load(EQUIVALENTS.read_text(encoding="utf-8")) or {}
    for file in dict.fromkeys(mutant.file for mutant in found):
        changes = [mutant.change for mutant in found if mutant.file == file]
        alive = [change for change in changes if change in survived]
        equivalent = [change for change in alive if change in justified]
        killed = len(changes) - len(alive)
        say(f"{file}: {len(changes)} mutants, {killed} killed, {len(equivalent)} equivalent")
    wrong = [f"survived: {change}" for change in sorted(survived - justified.keys())]
    known = {mutant.change for mutant in found}
    stale = {change for change in justified if change in known or all_files} - survived
    return wrong + [f"no survivor, but in {EQUIVALENTS.name}: {change}" for change in sorted(stale)]


def main(arguments: list[str]) -> int:
    """Runs the sweep; gives the exit code."""
    parser = argparse.ArgumentParser(
        description="Change each rule a little; the tests must notice."
    )
    parser.add_argument("files", nargs="*", help="rule files without ending; all if left out")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time")
    options = parser.parse_args(arguments)
    files = [RULES / f"{name}.yml" for name in options.files] or sorted(RULES.glob("*.yml"))
    trouble = check_baseline(files)
    if trouble:
        say(trouble)
        return 2
    started = time.monotonic()
    found = [mutant for file in files for mutant in mutants(file)]
    with ThreadPoolExecutor(options.jobs) as pool:
        alive = list(pool.map(lambda mutant: passes(mutant.file, mutant.content), found))
    survived = {mutant.change for mutant, lives in zip(found, alive, strict=True) if lives}
    wrong = report(found, survived, all_files=not options.files)
    seconds = time.monotonic() - started
    say(f"{len(found)} mutants in {seconds:.0f} s, {len(survived)} alive.", *wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
