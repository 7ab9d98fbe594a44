"""``llamakit --help`` stays quick: it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "numpy", "sentencepiece", "fairscale", "safetensors", "httpx"),
    *("rich", "prompt_toolkit", "ml_dtypes", "importlib.metadata", "jinja2"),
    *("starlette", "uvicorn", "prometheus_client", "anyio"),
)


def imported_by(program: str, env: dict[str, str]) -> set[str]:
    """Return the names of all modules that a program has imported when it ends."""
    ending = "\nimport sys; sys.stderr.write(chr(10).join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program + ending],
        check=True,
        capture_output=True,
        text=True,
        env=env,
    )
    return set(result.stderr.split())


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import llamakit", id="import llamakit"),
        pytest.param("from llamakit import hookimpl, LlamakitError", id="what plugins import"),
        pytest.param("from llamakit.cli.main import main; main(['--help'])", id="llamakit --help"),
        pytest.param("from llamakit.cli.main import main; main(['-h'])", id="llamakit -h"),
        pytest.param(
            "from llamakit.cli.main import main; [main([name, '-h']) "
            "for name in ('chat', 'demo', 'generate', 'plugins', 'serve')]",
            id="help of the commands",
        ),
        pytest.param(
            "from llamakit.cli.main import main; main(['--version'])", id="llamakit --version"
        ),
    ],
)
def test_nothing_heavy_is_imported(program, isolated):
    assert imported_by(program, isolated).isdisjoint(HEAVY)


def test_importing_llamakit_imports_nothing_of_its_own(isolated):
    modules = imported_by("import llamakit", isolated)

    assert {name for name in modules if name.startswith("llamakit")} == {"llamakit"}


def test_public_names_are_all_there():
    import llamakit

    assert set(llamakit.__all__) <= set(dir(llamakit))
    for name in llamakit.__all__:
        assert getattr(llamakit, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error():
    import llamakit

    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = llamakit.nonsense
