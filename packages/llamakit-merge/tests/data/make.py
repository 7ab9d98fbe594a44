"""Make the adapters of the tests with PEFT, and note what PEFT's merged model answers.

    pip install peft transformers
    python make.py

The base is llamakit's bundled demo model.
"""

import json
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import llamakit
from llamakit.demo import path

HERE = Path(__file__).parent
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIGS = {
    "linear": {"r": 2, "lora_alpha": 8, "target_modules": LINEAR, "rank_pattern": {"k_proj": 1}},
    "output": {
        "r": 2,
        "lora_alpha": 4,
        "use_rslora": True,
        "target_modules": ["q_proj", "lm_head"],
    },
}
TOKENS = 16


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        llamakit.export(path(), base)
        prompt = llamakit.load_tokenizer(path()).encode("Once upon a time", bos=True)
        answers = {name: make(name, config, base, prompt) for name, config in CONFIGS.items()}
    values = {"prompt": prompt, "answers": answers}
    (HERE / "expected.json").write_text(json.dumps(values) + "\n", "utf-8")


def make(name: str, config: dict, base: Path, prompt: list[int]) -> dict:
    torch.manual_seed(len(name))
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(task_type="CAUSAL_LM", **config),
    )
    for parameter_name, parameter in model.named_parameters():
        if "lora_" in parameter_name:
            parameter.data = (torch.randn_like(parameter) * 0.15).bfloat16().float()
    model.peft_config["default"].base_model_name_or_path = "llama-demo"
    model.save_pretrained(HERE / name, save_embedding_layers=False)
    as_bfloat16(HERE / name / "adapter_model.safetensors")
    (HERE / name / "README.md").unlink(missing_ok=True)
    merged = model.merge_and_unload()
    ids = torch.tensor([prompt])
    with torch.no_grad():
        made = merged.generate(
            ids, max_new_tokens=TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        logprobs = merged(made).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    tokens = made[0, len(prompt) :]
    chosen = logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    top = logprobs.topk(2).values
    print(name, tokens.tolist(), "smallest lead", float((top[:, 0] - top[:, 1]).min()))
    return {"tokens": tokens.tolist(), "logprobs": [round(float(it), 5) for it in chosen]}


def as_bfloat16(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name: it.bfloat16() for name, it in load_file(file).items()}, file)


if __name__ == "__main__":
    main()
