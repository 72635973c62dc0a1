#!/usr/bin/env python3
"""Stands in for `product-classifier` in the DAG's tests: quick, and it keeps a record of its calls.

Run in a workspace. `calls.jsonl` gets a line per call. A stage counts as unchanged once `version`
(or `gate`) marked it in `done/`; running it again with `outputs/STAGE` in place makes the stages
after it changed. `control.json` says what a command does instead: {"train": {"exit": 1, "times":
2}} or {"train": {"hang": true}}.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLLOWERS = {"ingest": ["train"], "train": ["gate"], "gate": ["predict"], "predict": []}


def say(level, message, **extra):
    sys.stdout.write(
        json.dumps({"level": level, "message": message, "stage": "fake", **extra}) + "\n"
    )
    sys.stdout.flush()


def append(name, value):
    with open(name, "a") as file:
        file.write(json.dumps(value) + "\n")


def read(name, default):
    path = Path(name)
    return json.loads(path.read_text()) if path.exists() else default


def hang():
    """Ignores SIGTERM with a child that does the same: only SIGKILL of the group ends them."""
    signal.signal(signal.SIGTERM, lambda *_: append("signals.jsonl", "SIGTERM"))
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal,time;signal.signal(15,signal.SIG_IGN);time.sleep(600)",
        ]
    )
    append("hanging.jsonl", [os.getpid(), child.pid])
    say("INFO", "hanging")
    deadline = time.time() + 600
    while time.time() < deadline:
        time.sleep(0.2)


def controlled(name):
    rule = read("control.json", {}).get(name)
    if not rule:
        return
    count = [json.loads(c)["name"] for c in Path("calls.jsonl").read_text().splitlines()].count(
        name
    )
    if count > rule.get("times", 10**9):
        return
    if rule.get("hang"):
        hang()
    say("ERROR", rule.get("message", "told to fail"))
    sys.exit(rule["exit"])


def run(arguments):
    done = Path("done")
    done.mkdir(exist_ok=True)
    command, *rest = arguments
    if command == "check":
        stage = rest[0]
        if "--force" in rest or not (done / stage).exists():
            say("INFO", "changed: fake inputs", reason=f"{stage} has new inputs")
            return 0
        say("INFO", "nothing changed", reason=f"{stage} is unchanged")
        return 99
    if command == "version":
        (done / rest[0]).touch()
    elif command == "gate":
        if (done / "gate").exists() and "--force" not in rest:
            say("INFO", "gate: nothing to do")
            return 99
        (done / "gate").touch()
        (done / "predict").unlink(missing_ok=True)
    elif command in FOLLOWERS:
        say("WARNING", f"{command} works", products=3)
        if read("control.json", {}).get("same_output"):
            return 0
        for follower in FOLLOWERS[command]:
            (done / follower).unlink(missing_ok=True)
    return 0


def main():
    arguments = sys.argv[1:]
    name = (
        " ".join(arguments[:2])
        if arguments[0] in ("check", "version", "params", "deploy")
        else arguments[0]
    )
    contract = (
        "AIRFLOW_RUN_ID",
        "AIRFLOW_TASK_ID",
        "AIRFLOW_TRY_NUMBER",
        "AIRFLOW_MAP_INDEX",
        "DATA_SOURCE",
    )
    environment = {key: os.environ.get(key) for key in contract}
    airflow = sorted(key for key in os.environ if key.startswith("AIRFLOW__"))
    append(
        "calls.jsonl",
        {"name": name, "arguments": arguments, "environment": environment, "leaked": airflow},
    )
    controlled(name)
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
