"""The workflows: valid, pinned to commits, with no more rights than they use, and about pages that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
every_workflow = pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])


def read(file):
    """The workflow; YAML 1.1 reads the key `on` as true."""
    workflow = yaml.safe_load(file.read_text())
    return workflow | {"on": workflow.get("on", workflow.get(True))}


def program(name):
    """A program beside this Python, or on the path; the requirements bring it."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def test_there_are_workflows_to_test_to_publish_and_to_check_colab():
    assert [file.stem for file in FILES] == ["colab", "publish", "test"]


def test_workflows_fit_githubs_schema():
    command = [program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *FILES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_linter_finds_nothing_unsafe_in_the_workflows_and_something_in_an_unsafe_one(tmp_path):
    linter = program("zizmor")
    options = [linter, "--offline", "--no-config", "--quiet"]
    done = subprocess.run([*options, *FILES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    unsafe = tmp_path / ".github" / "workflows" / "unsafe.yml"
    unsafe.parent.mkdir(parents=True)
    unsafe.write_text(
        "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
        "      - uses: actions/checkout@v4\n      - run: echo ${{ github.event.pull_request.title }}\n"
    )
    assert subprocess.run([*options, unsafe], capture_output=True).returncode != 0


@every_workflow
def test_actions_are_pinned_to_a_full_commit_with_their_version_beside_it(file):
    used = [line for line in file.read_text().splitlines() if re.search(r"^\s*(- )?uses:", line)]
    for line in used:
        assert re.search(r"uses: actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    assert used


def test_one_action_has_one_commit_in_all_workflows():
    pins = {}
    for file in FILES:
        for action, pin in re.findall(r"uses: (\S+)@(.+)", file.read_text()):
            pins.setdefault(action, set()).add(pin)
    assert all(len(found) == 1 for found in pins.values()), pins


@every_workflow
def test_a_workflow_starts_without_rights_and_only_publishing_may_write(file):
    workflow = read(file)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"], name
        rights = {right for right, level in job["permissions"].items() if level == "write"}
        assert rights == ({"pages", "id-token"} if (file.stem, name) == ("publish", "deploy") else set())
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_pull_requests_are_tested_by_the_gate_and_leave_a_preview():
    workflow = read(ROOT / ".github/workflows/test.yml")
    assert "pull_request" in workflow["on"]
    steps = workflow["jobs"]["gate"]["steps"]
    assert any(step.get("run") == "bash .ci/run" for step in steps)
    assert any("_build/html" in step.get("with", {}).get("path", "") for step in steps)


def test_a_tag_publishes_on_the_runner_that_the_repository_names_and_on_a_cpu_otherwise():
    workflow = read(ROOT / ".github/workflows/publish.yml")
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    build = workflow["jobs"]["build"]
    assert build["runs-on"] == "${{ vars.DNABOOK_RUNNER || 'ubuntu-latest' }}"
    assert "'paper' || 'laptop'" in build["env"]["SCALE"]
    assert workflow["jobs"]["deploy"]["needs"] == "build"
    assert "data.default_device()" in (ROOT / "book" / "status.md").read_text()


def test_the_colab_check_is_weekly_and_in_colabs_own_image():
    workflow = read(ROOT / ".github/workflows/colab.yml")
    minute, hour, day, month, weekday = workflow["on"]["schedule"][0]["cron"].split()
    assert minute.isdigit() and hour.isdigit() and (day, month) == ("*", "*") and weekday.isdigit()
    assert "/colab-images/public/" in workflow["jobs"]["notebooks"]["env"]["IMAGE"]


@every_workflow
def test_shell_steps_are_valid_bash(file):
    for job in read(file)["jobs"].values():
        for step in job["steps"]:
            if "run" in step:
                done = subprocess.run(["bash", "-n"], input=step["run"], capture_output=True, text=True)
                assert done.returncode == 0, f"{step['run']}: {done.stderr}"
