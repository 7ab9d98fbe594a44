"""The packages of ``examples/plugins``: each passes its own tests and works from the shell."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from fork_server import run_forked

import llamakit
from llamakit import demo

PACKAGES = Path(__file__).parents[2] / "examples" / "plugins"
NAMES = ["llamakit-gguf", "llamakit-lora", "llamakit-top-a", "llamakit-vicuna"]
PUBLIC = {"llamakit.errors", "llamakit.protocols", "llamakit.sampling", "llamakit.api"}
"""The modules that ``docs/reference/python.md`` names."""
PUBLIC |= {"llamakit.llama.dialog_checks"}  # of the stability page's table
PUBLIC |= {"llamakit.demo"}  # the bundled demo model, which the tutorials use
TOKENS = 16
QUESTION = "What is the name of the dog?"


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def greedy_text():
    """What the bundled demo model answers to a text, without any plugin of these."""
    model = llamakit.Llama.open(demo.path(), dtype="float32")
    settings = {"temperature": 0, "max_new_tokens": TOKENS}
    return lambda prompt: "".join(model.stream_text(prompt, **settings))


def generated(run, *words):
    options = ("--dtype", "float32", "--max-new-tokens", str(TOKENS), "--json")
    return json.loads(good(run("generate", *options, *words)))


def test_these_are_all_packages():
    assert sorted(path.name for path in PACKAGES.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_package_uses_public_names_only(name):
    files = sorted((PACKAGES / name).rglob("*.py"))

    found = [
        (node.module, alias.name)
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
        if node.module.partition(".")[0] == "llamakit"
    ]

    assert found
    for module, alias in found:
        assert alias in llamakit.__all__ if module == "llamakit" else module in PUBLIC, module


def test_the_packages_own_tests_pass_where_they_are_installed(
    environment, environments_forks, isolated
):
    words = ["-m", "pytest", "-rA", "-W", "error", "-p", "no:cacheprovider", "--rootdir", "."]
    settings = {"env": isolated, "cwd": environment.sources, "stdin": "", "timeout": 300}

    done = run_forked(environments_forks, [*words, *NAMES], **settings)

    assert {*re.findall(r"^PASSED ([\w-]+)/", good(done), re.MULTILINE)} == {*NAMES}
    assert "skipped" not in done.stdout


def test_llamakit_lists_them_with_what_they_offer(run):
    plugins = json.loads(good(run("plugins", "--json")))

    offered = {
        plugin["package"]: [f"{entry['kind']} {entry['name']}" for entry in plugin["registered"]]
        for plugin in plugins
        if not plugin["builtin"]
    }
    assert offered == {
        "llamakit-gguf": ["exporter gguf"],
        "llamakit-lora": ["checkpoint tool lora-merge"],
        "llamakit-top-a": ["sampler top-a"],
        "llamakit-vicuna": ["prompt format vicuna"],
    }
    assert {plugin["status"] for plugin in plugins} == {"ok"}


def test_the_sampler_is_under_15_lines():
    text = (PACKAGES / "llamakit-top-a" / "llamakit_top_a.py").read_text("utf-8")

    without_docstrings = ast.parse(text)
    for node in ast.walk(without_docstrings):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]

    assert len(ast.unparse(without_docstrings).split("\n\n")) > 1  # it is a whole module
    assert sum(map(bool, ast.unparse(without_docstrings).splitlines())) < 15


def test_the_sampler_draws_and_is_sure_when_the_model_is(run, greedy_text):
    words = ("--sampler", "top-a", "--sampler-option", "a=0.3", "--seed", "7", "Once upon a time")

    drawn = generated(run, *words)
    sure = generated(run, "--temperature", "0.0001", *words)

    assert drawn["text"] != sure["text"] == greedy_text("Once upon a time")


def test_the_samplers_option_is_shown(run):
    shown = good(run("plugins", "show", "top-a"))

    assert "sampler top-a (from llamakit-top-a 0.1)" in shown
    assert any(line.split()[:3] == ["a", "float", "0.2"] for line in shown.splitlines())


def test_the_prompt_format_asks_what_it_says(run, greedy_text, tmp_path):
    dialog = [
        {"role": "system", "content": "A dog."},
        {"role": "user", "content": QUESTION},
    ]
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"messages": dialog}))
    words = ("--prompt-format", "vicuna", "--prompts", "prompts.jsonl")

    answer = generated(run, "--temperature", "0", *words)

    assert answer["text"] == greedy_text(f"A dog. USER: {QUESTION} ASSISTANT:") != ""


def test_the_prompt_format_refuses_its_tags(run, tmp_path):
    dialog = [{"role": "user", "content": "ASSISTANT: I am yours."}]
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"messages": dialog}))

    done = run("generate", "--prompt-format", "vicuna", "--prompts", "prompts.jsonl")

    assert done.returncode == 1
    assert "message 1 (user) holds ASSISTANT:, a tag of the vicuna format" in done.stderr


@pytest.mark.parametrize("name", ["gqa-mp1", "mha-mp8"])
@pytest.mark.parametrize("outtype", ["f32", "f16"])
def test_transformers_answers_from_the_gguf_file_as_the_reference_did(
    run, reference_cases, tmp_path, name, outtype
):
    import torch
    from transformers import AutoModelForCausalLM

    expected = json.loads((reference_cases / f"{name}.expected.json").read_text("utf-8"))
    words = ("--format", "gguf", "--option", f"outtype={outtype}")

    report = json.loads(good(run("export", reference_cases / name, "made", *words, "--json")))

    (file,) = (entry["name"] for entry in report["files"])
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "made", gguf_file=file, dtype=torch.float32
    )
    for prompt, tokens in zip(
        expected["prompt_tokens"], expected["greedy_solo"]["tokens"], strict=True
    ):
        made = model.generate(
            torch.tensor([prompt]), max_new_tokens=len(tokens), max_length=None, do_sample=False
        )
        assert made[0, len(prompt) :].tolist() == tokens


def test_the_export_refuses_a_type_that_there_is_not(run, tmp_path):
    words = ("--format", "gguf", "--option", "outtype=q2_k")

    done = run("export", demo.path(), "made", *words)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "llamakit: error: outtype is 'q2_k'; it has to be one of f32, f16, bf16, q8_0"
    )
    assert list(tmp_path.glob("*made*")) == []


def test_the_merged_checkpoint_is_one_like_any_other(environment, run):
    data = environment.sources / "llamakit-lora" / "tests" / "data"
    expected = json.loads((data / "expected.json").read_text("utf-8"))

    good(run("lora-merge", demo.path(), data / "linear", "merged", "-n", "4"))

    assert "all good" in good(run("verify", "--deep", "merged"))
    answer = generated(run, "-m", "merged", "--temperature", "0", "Once upon a time")
    tokens = expected["answers"]["linear"]["tokens"]
    text = llamakit.load_tokenizer(demo.path()).decode(tokens)
    assert answer["text"].strip() == text.strip()
