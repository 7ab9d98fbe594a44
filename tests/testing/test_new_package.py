"""``llamakit plugins new``: each kind is installed with pip, tested with pytest and listed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llamakit import demo
from llamakit.errors import DestinationError, LlamakitError, UsageError
from llamakit.testing.new_package import KINDS, plan_package, write_package

REGISTERS = {
    "sampler": "sampler",
    "processor": "processor",
    "prompt-format": "prompt format",
    "exporter": "exporter",
    "checkpoint-tool": "checkpoint tool",
    "command": "command",
    "drafter": "drafter",
    "observer": "observer",
    "kernel": "kernel",
    "checkpoint-form": "exporter",
    "models": "model",
}
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
FLAGS = ["--no-build-isolation", "--disable-pip-version-check", "--target"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new package of each kind."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        write_package(plan_package(f"my-{kind}", kind, folder, {}))
    return folder


@pytest.fixture(scope="module")
def site(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed them all."""
    place = tmp_path_factory.mktemp("site")
    sources = [f"{folder}" for folder in sorted(packages.iterdir())]
    subprocess.run([*PIP, *FLAGS, place, *sources], check=True, capture_output=True)
    return place


def test_every_kind_passes_its_own_tests(packages, site, run_script):
    words = ["-m", "pytest", "-rA", "-p", "no:cacheprovider", "-W", "error", "."]

    done = run_script(*words, cwd=packages, env={"PYTHONPATH": str(site)})

    assert done.returncode == 0, done.stdout + done.stderr
    checked = re.findall(
        r"^PASSED .*llamakit_my_(\w+)\.py::test_it_keeps", done.stdout, re.MULTILINE
    )
    assert {name.replace("_", "-") for name in checked} == set(KINDS)


def test_every_kind_shows_up(site, run_llamakit):
    listed = run_llamakit("plugins", "--json", env={"PYTHONPATH": str(site)})

    plugins = {it["name"]: it for it in json.loads(listed.stdout) if not it["builtin"]}
    assert listed.stderr == ""
    assert set(plugins) == {f"my-{kind}" for kind in KINDS}
    for kind, registered in REGISTERS.items():
        plugin = plugins[f"my-{kind}"]
        assert plugin["status"] == "ok"
        assert [(it["kind"], it["name"]) for it in plugin["registered"]] == [
            (registered, f"my-{kind}")
        ]


def test_a_format_and_a_tokenizer_are_opened_by_what_they_register(site, run_llamakit):
    listed = run_llamakit("plugins", "--json", env={"PYTHONPATH": str(site)})

    hooks = {it["name"]: it["hooks"] for it in json.loads(listed.stdout)}
    assert "open_checkpoint" in hooks["my-checkpoint-form"]
    assert hooks["my-tokenizer"] == ["load_tokenizer"]


def test_a_checkpoint_of_a_new_format_is_one_like_any_other(site, run_llamakit, tmp_path):
    env = {"PYTHONPATH": str(site)}
    source = demo.path()
    exported = run_llamakit("export", source, "made", "--format", "my-checkpoint-form", env=env)
    (tmp_path / "made" / "llamakit.json").unlink()  # its checksums would do
    (tmp_path / "made" / "tokenizer.my-tokenizer").write_text("abcdefghijklmnopqrstuvwxyz ,.\n")

    compared = run_llamakit("diff", source, "made", env=env)
    inspected = run_llamakit("inspect", "made", env=env)
    verified = run_llamakit("verify", "made", env=env)
    answer = run_llamakit("generate", "-m", "made", "--max-new-tokens", "3", "once", env=env)
    without = run_llamakit("generate", "-m", "made", "once")

    assert exported.returncode == 0, exported.stderr
    assert compared.returncode == 0, compared.stdout
    assert (
        "not checked: the weights themselves: what the files of the format my-checkpoint-form hold "
        "is its plugin's to know"
    ) in verified.stdout
    assert "--deep" not in verified.stdout
    assert "32 tokens in made/tokenizer.my-tokenizer" in inspected.stdout
    assert (answer.returncode, answer.stderr.count("Warning")) == (0, 0), answer.stderr
    assert "made is not a checkpoint: found" in without.stderr


def test_every_kind_is_clean_code(packages):
    rules = ["--select", "B,E4,E7,E9,F,UP,W"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", *rules, packages],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_the_sampler_answers(site, run_llamakit):
    words = ["--sampler", "my-sampler", "--max-new-tokens", "8", "Once upon a time"]

    answer = run_llamakit("generate", *words, env={"PYTHONPATH": str(site)})

    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()


def test_the_command_says_what_to_type_next(run_llamakit, tmp_path):
    done = run_llamakit("plugins", "new", "nth")

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "wrote llamakit-nth: pyproject.toml, README.md, .gitignore, llamakit_nth.py, "
        "tests/test_llamakit_nth.py\n"
        "next:\n"
        '  pip install -e "./llamakit-nth[test]"\n'
        "  python -m pytest ./llamakit-nth\n"
        "  llamakit plugins show nth\n"
    )
    assert 'nth = "llamakit_nth"' in (tmp_path / "llamakit-nth/pyproject.toml").read_text()


def test_the_command_prints_json(run_llamakit, tmp_path):
    (tmp_path / "a place").mkdir()
    words = ["llamakit-my-form", "--kind", "exporter", "--output-dir", "a place", "--json"]

    done = run_llamakit("plugins", "new", *words)

    report = json.loads(done.stdout)
    assert {name: report[name] for name in ("name", "kind", "package", "module", "folder")} == {
        "name": "my-form",
        "kind": "exporter",
        "package": "llamakit-my-form",
        "module": "llamakit_my_form",
        "folder": "a place/llamakit-my-form",
    }
    assert all((tmp_path / report["folder"] / name).is_file() for name in report["files"])
    assert report["next"][1] == 'python -m pytest "./a place/llamakit-my-form"'


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("My Plugin", "my-plugin would do"),
        ("my_plugin", "my-plugin would do"),
        ("9lives", "lives would do"),
        ("a--b", "a-b would do"),
        ("x" * 41, f"{'x' * 40} would do"),
        ("../escape", "escape would do"),
        ("llamakit-", "40 at most"),
        ("漢字", "40 at most"),
    ],
)
def test_a_name_that_no_package_can_have_is_refused(name, hint, tmp_path):
    with pytest.raises(UsageError) as caught:
        plan_package(name, "sampler", tmp_path, {})

    assert str(caught.value).startswith(f"{name!r} cannot be the name of a package")
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize("name", ["greedy", "llamakit-greedy", "reshard", "sentencepiece"])
def test_a_name_of_a_built_in_is_refused(name, run_llamakit, tmp_path):
    done = run_llamakit("plugins", "new", name)

    assert done.returncode == 2
    assert f"the name {name.removeprefix('llamakit-')} is taken by the " in done.stderr
    assert "(built in)" in done.stderr
    assert list(tmp_path.glob("llamakit*")) == []


def test_what_is_there_stays_as_it_is(run_llamakit, tmp_path):
    (tmp_path / "llamakit-nth").mkdir()
    (tmp_path / "llamakit-nth/work.py").write_text("of months")

    done = run_llamakit("plugins", "new", "nth")

    assert done.returncode == 2
    assert done.stderr == (
        "llamakit: error: llamakit-nth exists already and stays as it is; choose another name, or "
        "another place with --output-dir\n"
    )
    assert [path.name for path in (tmp_path / "llamakit-nth").iterdir()] == ["work.py"]


def test_a_place_that_does_not_exist_says_how_to_make_it(run_llamakit):
    done = run_llamakit("plugins", "new", "nth", "--output-dir", "no/where")

    assert done.returncode == 2
    assert "no/where is not a folder" in done.stderr
    assert "mkdir -p no/where" in done.stderr


def test_a_package_that_cannot_be_written_leaves_nothing(tmp_path):
    package = plan_package("nth", "sampler", tmp_path, {})
    package.files["pyproject.toml/below-a-file"] = ""

    with pytest.raises(OSError, match="pyproject"):
        write_package(package)

    assert list(tmp_path.iterdir()) == []


def test_errors_of_a_new_package_are_llamakits(tmp_path):
    package = plan_package("nth", "sampler", tmp_path, {})
    write_package(package)

    with pytest.raises(DestinationError) as caught:
        write_package(package)

    assert isinstance(caught.value, LlamakitError)
