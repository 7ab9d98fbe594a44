"""The small models that the tests merge."""

import pytest
from merges import MODELS
from small_models import write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Return the folder of the models of a dtype, made once."""
    made = {}

    def folder(dtype="float32"):
        if dtype not in made:
            made[dtype] = tmp_path_factory.mktemp(dtype)
            for name, seed in MODELS.items():
                write_model(made[dtype] / name, seed, dtype=dtype)
        return made[dtype]

    return folder
