"""What ``export --for`` writes, and the command that it says."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

import llamakit
from llamakit import demo
from llamakit.errors import OptionError, PluginError, UnknownNameError

PLUGIN = """
from llamakit import hookimpl

@hookimpl
def register_engines(engines):
    engines.register("mill", ENGINE, help="grinds tokens")
"""


@pytest.fixture
def with_engine(install_plugin):
    """Install a plugin with an engine."""
    return lambda engine: install_plugin(f"ENGINE = {engine!r}\n{PLUGIN}")


def test_vllm_gets_a_folder_with_nothing_of_metas_and_its_command(run_llamakit, tmp_path):
    done = run_llamakit("export", demo.path(), tmp_path / "it's", "--for", "vllm", "--instruct")

    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "it's").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} < names
    assert "chat_template.jinja" in names or "chat_template" in json.loads(
        (tmp_path / "it's" / "tokenizer_config.json").read_text()
    )
    assert "params.json" not in names
    line = done.stdout.splitlines()[-1]
    assert line.startswith("start it with: ")
    assert shlex.split(line.removeprefix("start it with: ")) == [
        *("vllm", "serve", str(tmp_path / "it's"), "--dtype", "float16")
    ]


def test_the_command_is_in_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    report = llamakit.export(demo.path(), "made", engine="tgi")

    assert report["command"] == (
        f"docker run --rm --shm-size 1g -p 8080:80 -v {tmp_path / 'made'}:/model "
        "ghcr.io/huggingface/text-generation-inference --model-id /model"
    )


def test_eight_bits_are_started_in_the_dtype_that_their_kernels_have(tmp_path):
    report = llamakit.export(demo.path(), tmp_path / "made", engine="vllm", quantize="int8")

    assert report["command"].endswith(" --dtype bfloat16")


@pytest.mark.soak
def test_the_command_for_transformers_answers(tmp_path):
    report = llamakit.export(demo.path(), tmp_path / "it is", engine="transformers")

    command = report["command"].replace("python ", f"{sys.executable} ", 1)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Once upon a time" in done.stdout


def test_llama_cpp_without_its_package_says_what_to_install(tmp_path):
    with pytest.raises(OptionError, match=r"no exporter of that name .* install llamakit-gguf"):
        llamakit.export(demo.path(), tmp_path / "made", engine="llama.cpp")

    assert not (tmp_path / "made").exists()


def test_an_engine_that_there_is_not_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(UnknownNameError, match="no engine is called 'vlm'; did you mean 'vllm'"):
        llamakit.export(demo.path(), tmp_path / "made", engine="vlm")


def test_a_format_besides_the_engine_is_refused(run_llamakit, tmp_path):
    words = ("--for", "vllm", "--format", "safetensors")

    done = run_llamakit("export", demo.path(), tmp_path / "made", *words)

    assert done.returncode == 2
    assert "--for says the format" in done.stderr


def test_a_third_partys_engine_gives_its_exporters_options(with_engine, tmp_path):
    with_engine({"exporter": "hf", "options": {"max_shard_size": "2MB"}, "command": "mill {file}"})

    report = llamakit.export(demo.path(), tmp_path / "made", engine="mill")

    assert len(list((tmp_path / "made").glob("*.safetensors"))) > 1
    assert report["command"] == f"mill {tmp_path / 'made' / report['files'][0]['name']}"


def test_what_the_user_says_goes_before_the_engines_options(with_engine, tmp_path):
    with_engine({"exporter": "hf", "options": {"max_shard_size": "2MB"}, "command": "mill"})

    llamakit.export(demo.path(), tmp_path / "made", engine="mill", max_shard_size="1GB")

    assert len(list((tmp_path / "made").glob("*.safetensors"))) == 1


def test_a_third_partys_engine_that_breaks_its_contract_is_named(with_engine, tmp_path):
    with_engine({"exporter": "hf", "command": "mill {model}"})

    with pytest.raises(
        PluginError, match=r"engine mill of the plugin .* has {model} in its command"
    ):
        llamakit.export(demo.path(), tmp_path / "made", engine="mill")
