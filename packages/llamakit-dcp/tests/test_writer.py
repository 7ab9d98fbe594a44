"""What is written, judged by torch's own readers."""

import json

import pytest
import torch
from llamakit_dcp import DCPExporter
from llamakit_dcp.reader import open_dcp
from tiny_model import PARAMS, huggingface_weights, weights
from torch.distributed import checkpoint
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import llamakit
from llamakit.errors import OptionError


@pytest.fixture
def meta(recorded, tmp_path):
    """The tiny model in Meta's format, in two shards."""
    llamakit.reshard(open_dcp(recorded("fsdp-tp")), tmp_path / "meta", 2)
    return llamakit.open_checkpoint(tmp_path / "meta")


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("shards", ["1", "2", "3", "4"])
@pytest.mark.parametrize(
    ("names", "expected"), [("torchtitan", weights()), ("huggingface", huggingface_weights())]
)
def test_torch_loads_what_is_written(meta, tmp_path, shards, names, expected):
    DCPExporter()(meta, tmp_path / "out", {"shards": shards, "names": names})

    loaded = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    checkpoint.load(loaded, checkpoint_id=tmp_path / "out", no_dist=True)
    assert {path.name for path in (tmp_path / "out").glob("*.distcp")} == {
        f"__{rank}_0.distcp" for rank in range(int(shards))
    }
    for name, tensor in expected.items():
        assert loaded[name].equal(tensor), name


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_torchs_converter_gives_the_state_dict_below_its_prefix(meta, tmp_path):
    DCPExporter()(meta, tmp_path / "out", {"prefix": "state.model."})

    dcp_to_torch_save(tmp_path / "out", tmp_path / "joined.pt")

    joined = torch.load(tmp_path / "joined.pt")["state"]["model"]
    assert set(joined) == set(weights())
    assert all(joined[name].equal(tensor) for name, tensor in weights().items())


@pytest.mark.parametrize("names", ["torchtitan", "huggingface"])
def test_there_and_back_keeps_every_byte(meta, tmp_path, names):
    DCPExporter()(meta, tmp_path / "out", {"names": names, "shards": "3"})
    llamakit.reshard(open_dcp(tmp_path / "out"), tmp_path / "back", 2)

    for shard in ("consolidated.00.pth", "consolidated.01.pth", "params.json"):
        assert (tmp_path / "back" / shard).read_bytes() == (meta.path / shard).read_bytes()


def test_the_params_are_next_to_the_weights(meta, tmp_path):
    report = DCPExporter()(meta, tmp_path / "out", {})

    assert json.loads((tmp_path / "out" / "params.json").read_text("utf-8")) == PARAMS
    listed = {file["name"]: file["nbytes"] for file in report["files"]}
    assert listed == {it.name: it.stat().st_size for it in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": "0"}, "shards is 0; it has to be from 1 to 1024"),
        ({"shards": "many"}, "shards is 'many'; it has to be a number"),
        ({"names": "fairseq2"}, "names is 'fairseq2'; it has to be one of torchtitan, hugging"),
        ({"prefix": "model"}, "it has to end with a dot"),
        ({"shard": "2"}, "no option 'shard'; did you mean 'shards'"),
    ],
)
def test_wrong_options_are_refused(meta, tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        DCPExporter()(meta, tmp_path / "out", options)

    assert not (tmp_path / "out").exists()
