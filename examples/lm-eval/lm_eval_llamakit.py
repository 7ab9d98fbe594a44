"""lm-evaluation-harness on a llamakit model: ``lm-eval`` with one more model, ``llamakit``.

    pip install "lm_eval==0.4.13" llamakit-core
    python lm_eval_llamakit.py run --model llamakit --model_args model=llama-2-7b/ --tasks hellaswag

lm-eval reads no entry points, so this file registers the model and then is lm-eval's command. What
``--model_args`` takes besides ``model`` are the keyword arguments of ``Llama.open``, such as
``quantize=int4,model_parallel_size=2,max_seq_len=2048``.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from llamakit.api import Llama, ScoreItem, score


@register_model("llamakit")
class LlamakitModel(LM):
    """A checkpoint that llamakit opens.

    Args:
        model: its folder.
        batch_size: strings that are computed at the same time; ``auto`` is 8.
        max_batch_size: not used; lm-eval passes it.
        device: ``cpu`` or ``mps``; llamakit chooses with any other, as lm-eval's own ``cuda:0``.
    """

    def __init__(
        self,
        model: str,
        *,
        batch_size: int | str = 8,
        max_batch_size: int | None = None,  # noqa: ARG002
        device: str | None = None,
        **loading: Any,
    ) -> None:
        super().__init__()
        size = 8 if str(batch_size).startswith("auto") else int(batch_size)
        device = device if device in ("cpu", "mps") else "auto"
        self.llama = Llama.open(model, max_batch_size=size, device=device, **loading)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, and whether it is greedy."""
        items = (ScoreItem.continuation(*request.args) for request in requests)
        return [(it.scores[0].logprob, it.scores[0].greedy) for it in score(self.llama, items)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Return the log-probability of each text."""
        items = (ScoreItem.text(*request.args) for request in requests)
        return [it.scores[0].logprob for it in score(self.llama, items)]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Continue each context up to one of its stop strings."""
        answers: list[str] = []
        for settings, group in groupby((request.args for request in requests), lambda it: it[1]):
            answers += self._generate([context for context, _ in group], settings)
        return answers

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        until = settings.get("until") or ()
        length = int(settings.get("max_gen_toks", 256))
        room = max(1, self.llama.max_seq_len - length)
        prompts = [self.llama.tokenizer.encode(it, bos=True)[-room:] for it in contexts]
        answers = [""] * len(prompts)
        for chunk in self.llama.stream(
            prompts,
            max_new_tokens=length,
            stop=[until] if isinstance(until, str) else until,
            temperature=settings.get("temperature", 0.0) if settings.get("do_sample") else 0.0,
            top_p=settings.get("top_p", 1.0),
            keep_space=True,
        ):
            answers[chunk.index] += chunk.text
        return answers


if __name__ == "__main__":
    cli_evaluate()
