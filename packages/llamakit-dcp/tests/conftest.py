"""What the tests of this package share."""

import shutil
import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """What four real ranks saved, which ``data/make.py`` has recorded, by its name."""
    folder = tmp_path_factory.mktemp("recorded")

    def unpack(name):
        if not (folder / name).exists():
            shutil.unpack_archive(Path(__file__).parent / "data" / f"{name}.zip", folder / name)
        return folder / name

    return unpack


@pytest.fixture
def save(tmp_path):
    """Save a state dict with torch's own writer, and params.json next to it."""
    import json

    from tiny_model import PARAMS
    from torch.distributed import checkpoint

    def save_state_dict(state_dict, *, params=PARAMS, **options):
        folder = tmp_path / "saved"
        writer = checkpoint.FileSystemWriter(folder, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no process group
            checkpoint.save(state_dict, storage_writer=writer, no_dist=True)
        if params is not None:
            (folder / "params.json").write_text(json.dumps(params), "utf-8")
        return folder

    return save_state_dict
