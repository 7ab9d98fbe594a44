"""What the kit says of a plugin's registration, and what it costs to have the kit installed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from llamakit.testing import batch_runs, check_plugin, check_sampler, embedded_tokenizer

REGISTER = '''
from llamakit import hookimpl

def factory():
    """Pick."""
    return lambda logits, rows: logits.argmax(dim=-1)

@hookimpl
def register_samplers(samplers):
    samplers.register({name!r}, factory{help})
'''
GOOD = REGISTER.format(name="kit-sampler", help=', help="the first"')


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module with some lines before a plugin; return its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, before="", plugin=GOOD):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(before) + plugin)
        return name

    return write


def test_a_plugin_that_registers_well_is_good(module):
    check_plugin(module("llamakit_kit_good"))


@pytest.mark.parametrize(
    ("name", "before", "sentence"),
    [
        ("torch", "import torch", "imports torch, .* when it is loaded, which every"),
        ("numpy", "import numpy", "imports numpy when it is loaded"),
        ("prints", "print('hello')", r"prints 'hello\\n' when it is loaded"),
        ("raises", "1 / 0", "is broken: ZeroDivisionError: division by zero"),
        ("leaves", "import os; os._exit(3)", "ends the process: no message"),
        ("moves", "import os; os.chdir('/')", "changes the current folder when it is loaded"),
        (
            "environment",
            "import os; os.environ['OMP_NUM_THREADS'] = '3'",
            "changes the environment variables when it is loaded",
        ),
    ],
)
def test_a_plugin_that_does_more_than_register_is_reported(name, before, sentence, module):
    with pytest.raises(AssertionError, match=sentence):
        check_plugin(module(f"llamakit_kit_{name}", before + "\n"))


def test_a_plugin_that_takes_a_builtins_name_is_reported(module):
    plugin = REGISTER.format(name="greedy", help=', help="mine"')

    with pytest.raises(AssertionError, match="the sampler greedy is built in and keeps its name"):
        check_plugin(module("llamakit_kit_grabs", plugin=plugin))


def test_a_plugin_that_explains_nothing_is_reported(module):
    plugin = REGISTER.format(name="mute", help="")

    with pytest.raises(AssertionError, match="registers sampler mute without a help"):
        check_plugin(module("llamakit_kit_mute", plugin=plugin))


def test_a_module_that_is_not_there_is_reported():
    with pytest.raises(AssertionError, match="there is no module llamakit_kit_absent: is the"):
        check_plugin("llamakit_kit_absent")


def test_the_check_of_a_sampler_looks_at_the_plugin_that_it_is_from(module):
    name = module("llamakit_kit_heavy", "import torch\n")

    factory = __import__(name).factory

    with pytest.raises(AssertionError, match="imports torch"):
        check_sampler(factory)


PROJECT = """
def test_fixtures(llamakit_checkpoint, llamakit_tokenizer, llamakit_tiny, llamakit_rows):
    assert llamakit_checkpoint.form == "meta"
    assert llamakit_tokenizer.encode("Once")
    assert len(list(llamakit_tiny(4).glob("consolidated.*.pth"))) == 4
    assert llamakit_tiny(4) == llamakit_tiny(4)
    assert len({row.generator.initial_seed() for row in llamakit_rows}) == 4


def test_the_model_answers(llamakit_model):
    (answer,) = llamakit_model.text_completion(["Once upon a time"], max_gen_len=4)
    assert answer["generation"]


def test_a_tiny_checkpoint_runs_and_is_whole(llamakit_tiny):
    import llamakit
    assert llamakit.verify(llamakit_tiny(2), deep=True).good
    assert llamakit.diff(llamakit_tiny(1), llamakit_tiny(8)).same
    assert not llamakit.diff(llamakit_tiny(1), llamakit_tiny(1, seed=1)).same
    model = llamakit.Llama.open(llamakit_tiny(2))
    assert list(model.stream_text("Once", max_new_tokens=2))
    model.close()
"""


PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")


def test_the_fixtures_are_there_without_an_import(tmp_path, run_script):
    (tmp_path / "test_project.py").write_text(PROJECT)

    done = run_script(*PYTEST, "test_project.py")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_a_failed_check_shows_the_line_of_the_test_and_the_sentence(tmp_path, run_script):
    (tmp_path / "test_project.py").write_text(
        "from llamakit.testing import check_sampler\n\n"
        "def bad():\n    return None\n\n"
        "def test_contract():\n    check_sampler(bad)\n"
    )

    done = run_script(*PYTEST, "test_project.py")

    assert done.returncode == 1
    assert (
        ">       check_sampler(bad)\n"
        "E       llamakit.testing.process_state.ContractError: sampler bad"
    ) in done.stdout


def test_the_kit_costs_other_projects_nothing(tmp_path, isolated):
    (tmp_path / "test_other.py").write_text(
        "import sys\n\n"
        "def test_nothing_is_imported():\n"
        "    loaded = {name for name in sys.modules if name.startswith('llamakit')}\n"
        "    assert loaded == {'llamakit', 'llamakit.testing', 'llamakit.testing.pytest_plugin'}\n"
        "    assert not {'torch', 'numpy', 'click'} & {*sys.modules}\n"
    )

    done = subprocess.run(
        [sys.executable, *PYTEST, "test_other.py"],
        cwd=tmp_path,
        env=isolated,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_the_kits_logits_have_a_value_for_each_token_of_its_tokenizer():
    assert embedded_tokenizer().vocab_size == batch_runs.VOCABULARY
