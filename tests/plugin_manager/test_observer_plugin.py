"""A third-party observer: called, its results kept to the contract, and named when it fails."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from llamakit import Llama, demo, hookimpl
from llamakit.errors import OptionError, PluginError, UsageError
from llamakit.plugin_manager.entry_points import EntryPoint, find_entry_points
from llamakit.plugin_manager.toolkit import load_toolkit

PLUGIN = "the plugin 'odd' (llamakit-odd 1.0)"


class Odd:
    """Counts positions, or does what it was told to do wrong."""

    def __init__(self, fault, tokenizer):
        self.fault, self.tokenizer = fault, tokenizer

    def layers(self, count):
        return [0, count + (self.fault == "layers")]

    def __call__(self, row, states):
        if self.fault == "call":
            raise ZeroDivisionError("it fails")
        row.state["odd"] = row.state.get("odd", 0) + len(states.tokens)

    def result(self, row):
        if self.fault == "result":
            return {"path": Path()}
        return {"positions": row.state["odd"], "said": self.tokenizer.decode(row.tokens)}

    def files(self, result):
        return {"txt": result["said"] if self.fault != "files" else 5}


def odd(tokenizer, fault: str = ""):
    """Count.

    Args:
        fault: what goes wrong.
    """
    if fault == "option":
        raise ValueError("fault is option; it has to be another")
    return Odd(fault, tokenizer)


@pytest.fixture(scope="module")
def llama():
    module = types.ModuleType("llamakit_odd")

    @hookimpl
    def register_observers(observers):
        observers.register("odd", odd, help="counts")

    module.register_observers = register_observers
    sys.modules[module.__name__] = module
    point = EntryPoint("odd", module.__name__, "", "llamakit-odd", "1.0")
    toolkit = load_toolkit([*find_entry_points("llamakit"), point], disabled="")
    with Llama.open(demo.path(), toolkit=toolkit, max_seq_len=64) as llama:
        yield llama
    del sys.modules[module.__name__]


def stream(llama, *observers):
    prompt = llama.tokenizer.encode("Once upon a time", bos=True)
    return [prompt, *llama.stream([prompt], max_new_tokens=4, seed=1, observers=observers)]


def test_it_finds_what_it_says_in_the_order_of_the_call(llama):
    prompt, *chunks = stream(llama, "embedding", "odd")

    assert [len(chunk.observed) for chunk in chunks] == [0, 0, 0, 2]
    vector, found = chunks[-1].observed
    assert len(vector) == llama.checkpoint.params.dim
    assert found["positions"] == len(prompt) + 3  # nothing reads the last token
    assert found["said"].startswith("Once upon a time")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("call", f"the observer odd of {PLUGIN} failed: ZeroDivisionError: it fails"),
        ("layers", f"the observer odd of {PLUGIN} wants to read the layers [0, 5]; expected"),
        ("result", f"the observer odd of {PLUGIN} returned a result with PosixPath; expected"),
    ],
)
def test_what_goes_wrong_names_the_plugin(llama, fault, sentence):
    with pytest.raises(PluginError) as caught:
        stream(llama, f"odd:fault={fault}")

    assert str(caught.value).startswith(sentence)


def test_files_that_are_none_name_the_plugin(llama):
    (chosen,) = llama.observers(["odd:fault=files"])

    with pytest.raises(
        PluginError, match=r"observer odd of the plugin 'odd' .* made a txt file of"
    ):
        chosen.observer.files({"said": ""})


def test_wrong_options_are_the_users_to_fix(llama):
    with pytest.raises(OptionError, match="observer odd: fault is option; it has to be another"):
        stream(llama, "odd:fault=option")
    with pytest.raises(OptionError, match="observer odd has no option 'fualt'; did you mean"):
        stream(llama, "odd:fualt=x")
    with pytest.raises(UsageError, match="observer Odd wants to read the layers"):
        stream(llama, Odd("layers", llama.tokenizer))


def test_the_command_writes_what_is_found(run_llamakit, tmp_path):
    words = ["--max-new-tokens", "2", "--observer", "embedding", "Once upon", "a time there"]

    done = run_llamakit("generate", *words, "--json", "--observations", "made/here")

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for index, line in enumerate(lines):
        written = json.loads((tmp_path / f"made/here/{index}.embedding.json").read_text("utf-8"))
        assert line["observed"] == {"embedding": written}
    assert len(list((tmp_path / "made/here").iterdir())) == len(lines) == 2


def test_lines_of_a_batch_file_have_it_apart_from_openais_answer(run_llamakit, tmp_path):
    line = {"custom_id": "a", "body": {"prompt": "Once", "max_tokens": 2}}
    (tmp_path / "batch.jsonl").write_text(json.dumps(line))
    words = ["generate", "--prompts", "batch.jsonl", "--observer", "embedding"]

    printed = run_llamakit(*words, "--json")
    filed = run_llamakit(*words, "--output", "answers.jsonl")
    resumed = run_llamakit(*words, "--output", "answers.jsonl")
    others = run_llamakit(*words[:-2], "--output", "answers.jsonl")

    assert (printed.returncode, filed.returncode) == (0, 0), printed.stderr + filed.stderr
    in_file = json.loads((tmp_path / "answers.jsonl").read_text("utf-8"))["llamakit"]
    assert json.loads(printed.stdout)["llamakit"]["observed"].keys() == {"embedding"}
    assert in_file["observed"].keys() == {"embedding"}
    assert in_file["settings"]["observers"] == ["embedding"]
    assert "has all 1 answers already" in resumed.stderr
    assert "made otherwise: observers" in others.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--observer", "embedding"], "--observer needs --observations FOLDER, --json or --output"),
        (["--observations", "made"], "--observations needs --observer NAME"),
        (["--observer", "embeding", "--json"], "did you mean 'embedding'?"),
        (["--observer", "embedding:layer=9", "--json"], "layer is 9, and the model has 4 layers"),
        (
            ["--observer", "embedding", "--json", "--draft", "prompt-lookup"],
            "--draft and --observer: choose one of the two",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(run_llamakit, words, sentence):
    done = run_llamakit("generate", *words, "Once")

    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "demo model" not in done.stderr


def test_a_file_in_the_place_of_the_folder_is_named(run_llamakit, tmp_path):
    (tmp_path / "file").write_text("")

    for place in ("file", "file/made"):
        done = run_llamakit("generate", "--observer", "embedding", "--observations", place, "Once")

        assert done.returncode == 2
        assert f"{place} is no folder: pass another --observations" in done.stderr
