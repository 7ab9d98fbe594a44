"""Note what PEFT makes of the small model and its adapters: a few values of each tensor.

pip install peft transformers
python make_adapters.py
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from adapters import ADAPTERS, write_adapter  # noqa: E402
from make_merges import described  # noqa: E402
from small_models import write_model  # noqa: E402


def main() -> None:
    warnings.simplefilter("ignore")
    expected = {name: made(name) for name in ADAPTERS} | {"rslora+dora": made("rslora", "dora")}
    lines = (f"{json.dumps(name)}: {json.dumps(values)}" for name, values in expected.items())
    (HERE / "adapters.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def made(*names: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        base = write_model(Path(folder) / "base", 0)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        before = {name: it.clone() for name, it in model.state_dict().items()}
        for number, name in enumerate(names):
            adapter = write_adapter(Path(folder) / name, name)
            if number == 0:
                model = PeftModel.from_pretrained(model, adapter, adapter_name="default")
            else:
                found = model.load_adapter(adapter, adapter_name=name)
                assert not found.unexpected_keys, found
        merged = model.merge_and_unload(adapter_names=["default", *names[1:]])
    changed = {
        name: described(it)
        for name, it in merged.state_dict().items()
        if not torch.equal(it, before[name])
    }
    print(names, len(changed), "changed")
    return changed


if __name__ == "__main__":
    main()
