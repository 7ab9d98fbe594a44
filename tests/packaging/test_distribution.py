"""What pip calls llamakit: the advice to install, and somebody else's package of that name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamakit._distribution import DISTRIBUTION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages that is on the path before all others."""
    return tmp_path / "site"


def put(site: Path, name: str, version: str = "0.1.0", **files: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text)


def advice(site: Path, call: str) -> str:
    program = f"from llamakit._distribution import install_command; print({call})"
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_name_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert project["name"] == DISTRIBUTION


def test_what_came_from_an_index_is_installed_from_there(site: Path) -> None:
    put(site, DISTRIBUTION)

    assert advice(site, "install_command('serve')") == "pip install 'llamakit-core[serve]'"
    assert advice(site, "install_command(upgrade=True)") == "pip install --upgrade llamakit-core"


def test_what_came_from_a_clone_is_installed_from_there(site: Path, tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    clone.mkdir()
    (clone / "constraints.txt").touch()
    origin = {"dir_info": {"editable": True}, "url": clone.as_uri()}
    put(site, DISTRIBUTION, direct_url__json=json.dumps(origin))

    assert advice(site, "install_command('serve')") == (
        f"cd '{clone}' && pip install -c constraints.txt -e \".[serve]\""
    )
    assert advice(site, "install_command(upgrade=True)") == (
        f"cd '{clone}' && git pull && pip install -c constraints.txt -e \".\""
    )


def test_a_clone_that_is_gone_is_not_advised(site: Path, tmp_path: Path) -> None:
    origin = {"dir_info": {}, "url": (tmp_path / "gone").as_uri()}
    put(site, DISTRIBUTION, direct_url__json=json.dumps(origin))

    assert advice(site, "install_command('serve')") == "pip install 'llamakit-core[serve]'"


def test_another_llamakit_is_named_once_and_nothing_of_it_is_built_in(
    site: Path, run_llamakit: Run
) -> None:
    entry_points = "[llamakit]\ngreedy = hostile\n"
    put(site, "llamakit", "0.0.1", entry_points__txt=entry_points)
    (site / "hostile.py").write_text("raise SystemExit('hostile was imported')")

    done = run_llamakit("plugins", "--json", env={"PYTHONPATH": str(site)})

    assert done.stderr == (
        f"llamakit: the package llamakit is installed too ({site}/llamakit-0.0.1.dist-info); it is "
        "not this llamakit, which is llamakit-core, and is left out: pip uninstall llamakit\n"
    )
    plugins = json.loads(done.stdout)
    assert {plugin["package"] for plugin in plugins if plugin["name"] == "greedy"} == {DISTRIBUTION}


def test_a_new_plugin_cannot_have_the_name_of_llamakit_itself(
    run_llamakit: Run, tmp_path: Path
) -> None:
    done = run_llamakit("plugins", "new", "core")

    assert done.returncode == 2
    assert "llamakit-core is llamakit itself; choose another name" in done.stderr
    assert not (tmp_path / "llamakit-core").exists()
