"""A download into another format in this process, and what two steps make of the same files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "download"))

from llamakit import api
from llamakit.checkpoint.checklist import format_checklist
from llamakit.checkpoint.hashing import md5_files
from llamakit.download.catalog import Model
from llamakit.download.fetcher import DownloadSettings
from llamakit.download.inventory import required_files
from llamakit.download.link import read_link
from llamakit.download.provenance_record import record_models
from llamakit.download.retry import RetryPolicy
from llamakit.download.small_files import Checklists
from llamakit.download_into.session import IntoDownload
from llamakit.download_into.target_format import read_target_format
from llamakit.plugin_manager.toolkit import default_toolkit

DATA = Path(__file__).parents[1] / "data"
PARAMS = '{"dim": 128, "n_layers": 2, "n_heads": 8, "multiple_of": 64, "norm_eps": 1e-05}'
HIDDEN = 384


def serve(served, model, tokenizer):
    """Write a folder as Meta's server has it, with the files of a model."""
    served.mkdir()
    shutil.copytree(model, served / model.name)
    for name in ("LICENSE", "USE_POLICY.md"):
        (served / name).write_text(f"{name} of a test\n")
    shutil.copy(tokenizer, served)
    list_files(served, "tokenizer_checklist.chk", [served / tokenizer.name])
    return served


def list_files(folder, name, files):
    """Write a checklist."""
    md5s = {path.name: md5 for path, md5 in md5_files(files).items()}
    (folder / name).write_text(format_checklist(md5s))


def two_steps(served, model, target, out):
    """Convert a model that has been downloaded; return the files.

    Args:
        served: the folder as it is served, which gets the record that a download writes.
    """
    model = model if isinstance(model, Model) else Model(model, (), model)
    lists = Checklists([model], served, RetryPolicy()).on_disk()
    record_models(served, [model], required_files([model], lists))
    convert(served / model.folder, target, out)
    return content(out)


def convert(model, target, out):
    name, _, size = target.partition(":")
    if name == "reshard":
        api.reshard(model, out, int(size))
    else:
        api.export(model, out, name)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def session(model, out, target, **settings):
    toolkit = default_toolkit()
    settings = {"retry_policy": RetryPolicy(4, 0.02), "timeout": 60.0} | settings
    return IntoDownload(
        model if isinstance(model, Model) else Model(model, (), model),
        out,
        read_target_format(target, toolkit.exporters),
        toolkit.open_checkpoint,
        DownloadSettings(**settings),
    )


def fetch(server, out, target="reshard:2", *, model="llama-2-70b", link=None, **settings):
    """Download in this process; return what happened."""
    return list(session(model, out, target, **settings).run(read_link(link or server.link)))


def hidden(out, name="llama-2-70b-mp2"):
    return out / f".{name}.llamakit-download"


def random_weights(vocab):
    generator = np.random.default_rng(0)
    shapes = {"tok_embeddings": (vocab, 128), "norm": (128,), "output": (vocab, 128)}
    for index in range(2):
        for part in ("wq", "wk", "wv", "wo"):
            shapes[f"layers.{index}.attention.{part}"] = (128, 128)
        for part in ("w1", "w3"):
            shapes[f"layers.{index}.feed_forward.{part}"] = (HIDDEN, 128)
        shapes[f"layers.{index}.feed_forward.w2"] = (128, HIDDEN)
        for part in ("attention_norm", "ffn_norm"):
            shapes[f"layers.{index}.{part}"] = (128,)
    return {
        f"{name}.weight": generator.standard_normal(shape, dtype="float32").astype("float16")
        for name, shape in shapes.items()
    }
