"""A small Llama 2 for training, on purpose independent of llamakit's runtime.

It follows the reference implementation's arithmetic: neighbouring pairs are rotated as complex
numbers, the normalisation is RMSNorm, the feed-forward is SwiGLU, the output is not tied to the
embedding. Its parameters carry Meta's names, so its state dict is a checkpoint that is yet uncut.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """The sizes of the model, under the names of ``params.json``."""

    vocab_size: int
    dim: int = 256
    n_layers: int = 4
    n_heads: int = 8
    multiple_of: int = 16
    ffn_dim_multiplier: float = 0.9
    norm_eps: float = 1e-5
    max_seq_len: int = 512
    rope_theta: float = 10000.0

    @property
    def hidden(self) -> int:
        """The feed-forward's width, by Meta's formula."""
        wanted = int(self.ffn_dim_multiplier * int(2 * 4 * self.dim / 3))
        return self.multiple_of * ((wanted + self.multiple_of - 1) // self.multiple_of)


class RMSNorm(nn.Module):
    """Divide by the root mean square, then scale."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (…, dim), normalised."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotations(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, each ``(max_seq_len, head_dim / 2)``."""
    head_dim = shape.dim // shape.n_heads
    frequencies = 1.0 / shape.rope_theta ** (torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(shape.max_seq_len).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each neighbouring pair ``(a, b)`` of ``x`` (B, H, T, D) by its position's angle."""
    a, b = x[..., 0::2], x[..., 1::2]  # (B, H, T, D/2) each
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Attention(nn.Module):
    """Multi-head attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.n_heads
        self.wq = nn.Linear(shape.dim, shape.dim, bias=False)
        self.wk = nn.Linear(shape.dim, shape.dim, bias=False)
        self.wv = nn.Linear(shape.dim, shape.dim, bias=False)
        self.wo = nn.Linear(shape.dim, shape.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Return what is to be added to ``x`` (B, T, dim)."""
        q, k, v = (
            project(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, T, D)
            for project in (self.wq, self.wk, self.wv)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.wo(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """SwiGLU: ``w2(silu(w1 x) * w3 x)``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.w1 = nn.Linear(shape.dim, shape.hidden, bias=False)
        self.w2 = nn.Linear(shape.hidden, shape.dim, bias=False)
        self.w3 = nn.Linear(shape.dim, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is to be added to ``x`` (B, T, dim)."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One layer: attention, then feed-forward, each after a norm and added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.feed_forward = FeedForward(shape)
        self.attention_norm = RMSNorm(shape.dim, shape.norm_eps)
        self.ffn_norm = RMSNorm(shape.dim, shape.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Return the next layer's ``x`` (B, T, dim)."""
        x = x + self.attention(self.attention_norm(x), cos, sin, mask)
        return x + self.feed_forward(self.ffn_norm(x))  # type: ignore[no-any-return]


class DemoLlama(nn.Module):
    """The whole model; called with tokens (B, T), it returns logits (B, T, V)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tok_embeddings = nn.Embedding(shape.vocab_size, shape.dim)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.norm = RMSNorm(shape.dim, shape.norm_eps)
        self.output = nn.Linear(shape.dim, shape.vocab_size, bias=False)
        cos, sin = rotations(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._start()

    def _start(self) -> None:
        """Begin with layers that add nothing, so that each token is seen clearly at first."""
        for name, weight in self.named_parameters():
            if name.endswith(("wo.weight", "w2.weight")):
                nn.init.zeros_(weight)
            elif weight.dim() == 2:
                nn.init.normal_(weight, std=0.5 if "tok_" in name else self.shape.dim**-0.5)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits.

        Args:
            tokens: tokens (B, T).
            mask: (B, 1, T, T), true where a query may see a key; causal without it.
        """
        length = tokens.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        x = self.tok_embeddings(tokens)  # (B, T, dim)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.output(self.norm(x))  # type: ignore[no-any-return]
