import subprocess
import sys

import pytest

from llamakit.plugins.formats import huggingface, meta


def test_meta_opens_its_own_format_and_no_other(mha_mp8, tmp_path):
    assert meta.open_checkpoint(mha_mp8).form == "meta"
    assert meta.open_checkpoint(tmp_path) is None


def test_huggingface_leaves_metas_format_alone(mha_mp8, tmp_path):
    assert huggingface.open_checkpoint(mha_mp8) is None
    assert huggingface.open_checkpoint(tmp_path) is None


@pytest.mark.parametrize("plugin", ["meta", "huggingface"])
def test_loading_a_plugin_imports_nothing_heavy(plugin):
    program = f"import sys, llamakit.plugins.formats.{plugin}; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"torch", "numpy", "ml_dtypes", "click"} & set(loaded)


def test_reading_a_checkpoint_imports_no_torch(mha_mp8):
    program = (
        "import sys, pathlib, llamakit.checkpoint.meta_checkpoint as m;"
        "import llamakit.checkpoint.hf_checkpoint;"
        f"m.open_meta(pathlib.Path({str(mha_mp8)!r})).read('norm.weight');"
        "print(*sys.modules)"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"torch", "safetensors", "pickle_torch"} & set(loaded)
