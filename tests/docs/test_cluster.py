"""The scripts and manifests of the page on clusters: each does what the page says."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "cluster.md").read_text("utf-8")
SCHEMA = json.loads((ROOT / "tests/data/kubernetes/workloads.schema.json").read_text())

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Tool = Callable[[str, str], None]


def block(title: str) -> str:
    """Return the block of the page that has this title."""
    found = re.search(rf'^```\w+ title="{title}"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def containers(value: Any) -> list[dict[str, Any]]:
    """Return the containers of all pods of a manifest."""
    if isinstance(value, list):
        return [it for item in value for it in containers(item)]
    if not isinstance(value, dict):
        return []
    return value.get("containers", []) + [it for item in value.values() for it in containers(item)]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Put a program that is this shell script into the search path."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "bin").mkdir()

    def make(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    return make


def shell(*words: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        words, env={**os.environ, **env}, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("title", ["answers.sbatch", "ranks.sbatch"])
def test_a_script_is_bash_and_says_its_options_before_its_first_command(title: str) -> None:
    script = block(title)

    subprocess.run(["bash", "-n"], input=script, text=True, check=True)

    assert script.startswith("#!/bin/bash\n#SBATCH ")
    assert "#SBATCH" not in script.split("\n\n", 1)[1]  # sbatch reads none after a command


def test_the_tasks_of_the_array_joined_are_the_whole_run(
    run_llamakit: Run, forked_python: Path, tool: Tool, reference_cases: Path, tmp_path: Path
) -> None:
    words = ("one", "two", "two", "three", "two")
    (tmp_path / "questions.jsonl").write_text("".join(f'{{"prompt": "{it}"}}\n' for it in words))
    (tmp_path / "answers.sbatch").write_text(block("answers.sbatch"))
    model = str(reference_cases / "gqa-mp1")
    few = ("--temperature", "0.9", "--max-new-tokens", "3")
    tool("llamakit", f'exec {forked_python} -m llamakit "$@" {" ".join(few)}')

    for task in "1", "2", "3", "4":
        shell("bash", "answers.sbatch", cwd=tmp_path, MODEL=model, SLURM_ARRAY_TASK_ID=task)
    parts = sorted(map(str, (tmp_path / "parts").iterdir()))
    joined = run_llamakit("join-answers", *parts, "--prompts", "questions.jsonl", "--output", "-")
    common = ("generate", "-m", model, "--prompts", "questions.jsonl", "--seed", "1", *few)
    whole = run_llamakit(*common, "--json")

    assert joined.returncode == 0, joined.stderr
    answers = [json.loads(line) for line in joined.stdout.splitlines()]
    for answer in answers:
        del answer["id"], answer["settings"]
    assert answers == [json.loads(line) for line in whole.stdout.splitlines()]


def test_each_host_of_the_slurm_job_has_its_number(tool: Tool, tmp_path: Path) -> None:
    tool("scontrol", "echo node-a; echo node-b")
    tool("srun", 'for host in 0 1; do SLURM_NODEID=$host "$@"; done')
    tool("torchrun", 'echo "$@"')
    (tmp_path / "ranks.sbatch").write_text(block("ranks.sbatch"))

    started = shell("bash", "ranks.sbatch", cwd=tmp_path, SLURM_JOB_NUM_NODES="2").splitlines()

    for host, words in enumerate(started):
        assert words.startswith(f"--nnodes 2 --node-rank {host} --nproc-per-node 8 ")
        assert "--master-addr node-a " in words
    assert len(started) == 2


@pytest.mark.parametrize("title", ["answers.yaml", "ranks.yaml"])
def test_a_manifest_fits_the_schema(title: str) -> None:
    manifest = yaml.safe_load(block(title))
    wrong = copy.deepcopy(manifest)
    containers(wrong)[0]["volumeMount"] = []

    validator = jsonschema_rs.Draft202012Validator(SCHEMA)

    assert [error.message for error in validator.iter_errors(manifest)] == []
    assert not validator.is_valid(wrong)


@pytest.mark.parametrize(
    ("title", "program"), [("answers.yaml", "llamakit"), ("ranks.yaml", "torchrun")]
)
def test_every_pod_has_its_part(title: str, program: str, tool: Tool, tmp_path: Path) -> None:
    manifest = yaml.safe_load(block(title))
    (container,) = containers(manifest)
    pods = int(re.search(r"completions: (\d+)", block(title))[1])
    tool(program, 'echo "$@"')

    started = [
        shell(*container["command"], *container["args"], cwd=tmp_path, JOB_COMPLETION_INDEX=str(it))
        for it in range(pods)
    ]

    part = "--part {0}/{1} " if program == "llamakit" else "--nnodes {1} --node-rank {2} "
    for index, words in enumerate(started):
        assert part.format(index + 1, pods, index) in words


def test_the_first_host_of_the_jobset_is_the_one_that_all_look_for() -> None:
    manifest = yaml.safe_load(block("ranks.yaml"))

    name, job = manifest["metadata"]["name"], manifest["spec"]["replicatedJobs"][0]["name"]

    assert f"--master-addr {name}-{job}-0-0.{name} " in containers(manifest)[0]["args"][0]
