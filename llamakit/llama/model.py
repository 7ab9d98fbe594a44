"""The loaded model and its numbers, as the reference's ``llama/model.py`` spells them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from llamakit.checkpoint.params import ModelParams
from llamakit.errors import UsageError

if TYPE_CHECKING:
    import torch

    from llamakit.runtime.executor import Executor

__all__ = ["ModelArgs", "Transformer"]


@dataclass
class ModelArgs:
    """The numbers of a params.json, and the two sizes that ``Llama.build`` takes.

    Source: ``ModelArgs`` in ``llama/model.py`` of the reference, and in ``llama3/args.py`` of
        https://github.com/meta-llama/llama-models
    """

    dim: int = 4096
    n_layers: int = 32
    n_heads: int = 32
    n_kv_heads: int | None = None
    vocab_size: int = -1
    multiple_of: int | None = 256
    ffn_dim_multiplier: float | None = None
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    use_scaled_rope: bool = False
    max_batch_size: int = 32
    max_seq_len: int = 2048
    vision_chunk_size: int = -1
    """Meta's code asks whether it is positive, which says that a model sees images: none here."""

    @classmethod
    def of(cls, params: ModelParams, max_batch_size: int, max_seq_len: int) -> ModelArgs:
        """Return the numbers of a checkpoint that is loaded with these sizes."""
        values: dict[str, Any] = {"max_batch_size": max_batch_size, "max_seq_len": max_seq_len}
        names = {field.name for field in fields(cls)} - values.keys() - {"vision_chunk_size"}
        return cls(**{name: getattr(params, name) for name in names}, **values)


class Transformer:
    """A loaded model: its numbers, and logits for tokens.

    ``Llama.model`` is one. It cannot be made without a checkpoint. What torch's module has besides,
    such as ``parameters()``, is that of this rank's slice.

    Args:
        params: as ``Llama.build`` has read them.
    Source: ``Transformer`` in ``llama/model.py`` of the reference.
    """

    def __init__(self, params: ModelArgs, executor: Executor | None = None) -> None:
        if executor is None:
            raise UsageError(
                "a Transformer comes from a checkpoint here: Llama.build(...).model is one"
            )
        self.params, self.n_layers, self.vocab_size = params, params.n_layers, params.vocab_size
        self._executor = executor
        self._cache: int | None = None

    def forward(self, tokens: torch.Tensor, start_pos: int) -> torch.Tensor:
        """Compute logits, and keep keys and values for the calls that follow.

        Args:
            tokens: ``(B, T)``; B is ``max_batch_size`` at most, and the same up to the next call
                that starts at 0.
            start_pos: how many tokens of each row earlier calls have computed.
        Returns:
            ``(B, T, V)`` float32.

        Raises:
            UsageError: more rows or positions than the model was built for.
        """
        import torch

        from llamakit.runtime.broadcast import broadcast_results
        from llamakit.runtime.model import Batch

        rows, count = tokens.shape
        if rows > self.params.max_batch_size or start_pos + count > self.params.max_seq_len:
            raise UsageError(
                f"{rows} rows up to position {start_pos + count}, but the model was built with "
                f"max_batch_size={self.params.max_batch_size} and "
                f"max_seq_len={self.params.max_seq_len}"
            )
        batch = Batch(tuple(map(tuple, tokens.tolist())), (start_pos,) * rows, every_position=True)

        def work() -> Generator[list[Any]]:
            yield self._executor.forward(self._opened(start_pos), batch).tolist()

        if self._executor.group.size == 1:
            return self._executor.forward(self._opened(start_pos), batch)
        (logits,) = broadcast_results(self._executor.group, work)
        return torch.tensor(logits, device=self._executor.model.device)

    __call__ = forward

    def _opened(self, start_pos: int) -> int:
        """Return the number of the cache; a call that starts at 0 gets an empty one."""
        if self._cache is not None and start_pos == 0:
            self._executor.close_cache(self._cache)
            self._cache = None
        if self._cache is None:
            sizes = self.params.max_batch_size, self.params.max_seq_len
            self._cache = self._executor.open_cache(*sizes)
        return self._cache

    def __getattr__(self, name: str) -> Any:
        """Return what torch's module has."""
        if name == "_executor":  # while a copy of this object is being made
            raise AttributeError(name)
        return getattr(self._executor.model, name)
