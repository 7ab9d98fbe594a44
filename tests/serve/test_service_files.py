"""The Dockerfile and the systemd unit say what the program, the package and systemd understand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_kit import Running, demo_folder, process, wait_until

from llamakit.cli.serve import serve

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MARGIN = 5
"""Seconds between the grace period and the signal that ends everything."""


def settings(name: str) -> list[str]:
    """Return the values that the unit gives a setting."""
    unit = (DEPLOY / "llamakit.service").read_text()
    return re.findall(rf"^{name}=(.*)$", unit, re.M)


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile and their arguments."""
    text = (DEPLOY / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = lines.replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (it.partition(" ") for it in joined.splitlines())]


def instruction(name: str) -> str:
    """Return the argument of the last instruction of a kind."""
    return [rest for word, rest in instructions() if word == name][-1]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Parse the arguments of ``llamakit serve``; fails if the command would refuse them."""
    return serve.make_context("serve", list(arguments), obj=None).params


def test_the_unit_calls_the_command_with_options_that_there_are() -> None:
    program, command, *arguments = shlex.split(settings("ExecStart")[0])
    options = parsed(arguments)

    assert Path(program).name == "llamakit"
    assert command == "serve"
    assert options["log_format"] == "json"
    assert options["api_key_file"].endswith("/keys")
    assert settings("LoadCredential")[0].startswith("keys:")
    assert int(settings("TimeoutStopSec")[0]) >= options["grace"] + MARGIN


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "llamakit.service").read_text()
    copy = tmp_path / "llamakit.service"
    copy.write_text(unit.replace("/opt/llamakit/bin/llamakit serve", f"{sys.executable} serve"))

    checked = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )

    assert str(copy) not in checked.stderr
    assert checked.returncode == 0, checked.stderr


def test_the_image_runs_the_command_with_options_that_there_are() -> None:
    program, command, *fixed = json.loads(instruction("ENTRYPOINT"))
    options = parsed(fixed + json.loads(instruction("CMD")))

    assert [program, command] == ["llamakit", "serve"]
    assert options["host"] == "0.0.0.0"
    assert str(options["port"]) == instruction("EXPOSE")
    assert options["log_format"] == "json"
    assert not instruction("USER").startswith(("0", "root"))


def test_the_image_is_built_from_files_and_extras_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    build = next(rest for word, rest in instructions() if word == "RUN")
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]

    extras = re.search(r"/source\[([a-z,]+)\]", build)
    assert extras
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert [name for name in kept if not (ROOT / name).exists()] == []
    assert {"constraints.txt", "entry_points.txt", "pyproject.toml", "llamakit"} <= set(kept)


def test_the_health_check_of_the_image_tells_a_server_from_none(server: Running) -> None:
    command = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]

    def status(port: int) -> int:
        program = command[2].replace(":8000/", f":{port}/")
        environment = {name: it for name, it in os.environ.items() if "proxy" not in name.lower()}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=False
        )
        return done.returncode

    assert status(server.address[1]) == 0
    assert status(1) != 0


def test_the_log_is_a_json_object_a_line_and_holds_no_secrets(isolated: dict[str, str]) -> None:
    key = "a-key-that-is-secret-0123"
    isolated["LLAMAKIT_API_KEY"] = key
    with process(isolated, "--log-format", "json", "-m", str(demo_folder())) as running:
        headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "mine"}
        running.url = re.sub('".*', "", running.url)
        running.post("/v1/completions", {"prompt": "a secret", "max_tokens": 1}, headers=headers)
        running.get("/v1/models")
        running.get("/nothing%0A", headers={"Authorization": "Bearer wrong-key-0123"})
        wait_until(lambda: len(running.lines) == 4)

    lines = [json.loads(line) for line in running.lines]
    assert lines[0]["message"].startswith("serving at http://")
    statuses = {line["request_id"]: line["status"] for line in lines[1:]}
    assert statuses["mine"] == 200
    assert sorted(statuses.values()) == [200, 401, 401]
    assert not re.search("secret|wrong-key", "\n".join(running.lines))


@pytest.mark.parametrize("name", ["Dockerfile", "llamakit.service"])
def test_the_page_about_services_names_the_files(name: str) -> None:
    page = (ROOT / "docs/how-to/run-as-a-service.md").read_text()

    assert f"deploy/{name}" in page


def test_the_older_option_for_the_log_stays(run_llamakit: Callable[..., Any]) -> None:
    assert parsed(["--json-log"])["json_log"]
    assert "--json-log" not in run_llamakit("serve", "--help").stdout
