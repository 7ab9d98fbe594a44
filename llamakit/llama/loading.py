"""Loading a model from its path, on this rank and on the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.checkpoint.misnamed_files import hint_at_misnamed
from llamakit.checkpoint.rope_scaling import rope_type
from llamakit.errors import LlamakitError, TokenizerError, UsageError
from llamakit.plugin_manager.toolkit import Toolkit, default_toolkit
from llamakit.protocols import Checkpoint, Tokenizer

if TYPE_CHECKING:
    from llamakit.runtime.executor import Executor
    from llamakit.runtime.group import Group
    from llamakit.runtime.model import Transformer
    from llamakit.runtime.model_drafter import DraftModel

FAILURES = (LlamakitError, OSError, RuntimeError, MemoryError)
"""Exceptions that one rank reports to the others while it loads."""


@dataclass(frozen=True)
class LoadSpec:
    """What every rank needs to load its slice of a model.

    Args:
        batch: how many sequences are decoded at the same time, at most.
        rope_factor: how far RoPE is scaled, instead of what the files say or imply.
        kv_cache: ``int8`` rounds keys and values; None keeps them in ``dtype``.
    """

    path: str
    dtype: str
    device: str
    quantize: str | None = None
    compile: bool | None = None
    batch: int = 1
    rope_factor: float | None = None
    kv_cache: str | None = None


def load_on_ranks(
    spec: LoadSpec,
    checkpoint: Checkpoint,
    size: int | None,
    led: bool,
    progress: Callable[[int], None] | None,
    join_timeout: float | None = None,
) -> Executor:
    """Join or launch the ranks, and load a model on all of them.

    Args:
        size: how many ranks; None means as many as torchrun started, else one.
        led: under torchrun, the other ranks run ``llamakit.llama.worker``, not this program.
        join_timeout: seconds that the ranks have to find each other.
    Returns:
        The executor of this rank; its group is acquired.
    Raises:
        LlamakitError: the checkpoint cannot be loaded on so many ranks.
    """
    from llamakit.checkpoint.model_support import check_loadable
    from llamakit.runtime import rank_setup
    from llamakit.runtime.rank_environment import read_environment
    from llamakit.runtime.rank_group import RankGroup

    if spec.kv_cache not in (None, "int8"):
        raise UsageError(f"kv_cache is {spec.kv_cache!r}: pass 'int8', or None to round nothing")
    ranks = size or read_environment().size
    check_loadable(  # before any process is started
        checkpoint, ranks, rope_factor=spec.rope_factor, quantize=spec.quantize
    )
    group = rank_setup.join(size, led=led, timeout=join_timeout)
    group.acquire()
    try:
        if isinstance(group, RankGroup) and group.led:
            group.send("load", asdict(spec))
        return load_slice(spec, group, checkpoint, progress)
    except FAILURES:  # every rank knows
        group.release()
        raise
    except BaseException:  # Ctrl-C: the other ranks wait for a message that will not come
        group.abandon()
        raise


def load_slice(
    spec: LoadSpec,
    group: Group,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int], None] | None = None,
) -> Executor:
    """Load this rank's slice of a model; every rank of the group calls it.

    Raises:
        LlamakitError: the checkpoint cannot be loaded, on this rank or another.
    """
    from llamakit.checkpoint.fingerprint import files_fingerprint
    from llamakit.runtime.executor import Executor

    failure: Exception | None = None
    weights = ""
    try:
        checkpoint = checkpoint or default_toolkit().open_checkpoint(Path(spec.path))
        if group.has_hosts:  # opened again: what it reads is no part of the loading
            weights = files_fingerprint(default_toolkit().open_checkpoint(Path(spec.path)))
    except FAILURES as error:
        failure = error
    group.agree(failure)
    group.compare(weights, f"the weights of {spec.path}")
    try:
        assert checkpoint is not None
        model = _load_model(spec, group, checkpoint, progress)
    except FAILURES as error:
        failure = error
    group.agree(failure)
    return Executor(model, group)


def _load_model(
    spec: LoadSpec,
    group: Group,
    checkpoint: Checkpoint,
    progress: Callable[[int], None] | None,
) -> Transformer:
    from llamakit.checkpoint.llama4 import architecture_of  # brings in numpy
    from llamakit.runtime import compiled_decoder, device, loader
    from llamakit.runtime.host_memory import has_room
    from llamakit.runtime.kernels import calibration

    target = device.pick_device(spec.device, group.size, group.local_rank)
    stored = checkpoint.parameters["norm.weight"].dtype if checkpoint.parameters else ""
    dtype = device.pick_dtype(spec.dtype, stored, target)
    nbytes = 2 * sum(parameter.numel for parameter in checkpoint.parameters.values())  # in 16 bits
    packer = calibration.packer(
        target,
        dtype,
        spec.quantize,
        batch=spec.batch,
        traceable=bool(spec.compile),
        mapped=not has_room(2 * nbytes),  # for the file in the page cache, and a copy
    )
    model = loader.load(
        checkpoint,
        rank=group.rank,
        size=group.size,
        dtype=dtype,
        device=target,
        packer=packer,
        rope_factor=spec.rope_factor,
        progress=progress,
    )
    model.kv_cache = spec.kv_cache
    # Llama 4's experts are chosen by value, which cannot be compiled.
    if group.size == 1 and architecture_of(checkpoint.params) is None:
        compiled_decoder.install(model, spec.compile)
    return model


def open_draft_model(
    path: str, most: int, confidence: float, *, dtype: str = "auto", device: str = "auto"
) -> DraftModel:
    """Open a draft model for speculative decoding; its weights are read when it is first used.

    Rank 0 alone loads it, without tensor parallelism.

    Args:
        most: how many tokens a draft has at most.
        confidence: a draft ends before a token whose probability is lower.
    Raises:
        LlamakitError: it cannot be loaded.
    """
    from llamakit.checkpoint.model_support import check_loadable
    from llamakit.runtime.group import Group
    from llamakit.runtime.model_drafter import DraftModel

    checkpoint = default_toolkit().open_checkpoint(Path(path))
    check_loadable(checkpoint, 1)
    tokenizer = load_tokenizer(checkpoint)
    spec = LoadSpec(path, dtype, device)

    def load() -> Executor:
        return load_slice(spec, Group(), checkpoint)

    return DraftModel(load, tokenizer, most, confidence, checkpoint.params.context)


def find_tokenizer(model: Path, given: str | Path | None = None) -> Path:
    """Return the tokenizer file of a model: the given one, the folder's, else its parent's.

    That is ``tokenizer.model``, or else a ``tokenizer.*`` file that a plugin loads. A model that is
    one file, of a plugin's format, may hold its tokenizer: then it is that file.

    Raises:
        TokenizerError: there is none.
    """
    if given is not None:
        path = Path(given)
        return path / "tokenizer.model" if path.is_dir() else path
    if default_toolkit().loads_tokenizer(model):
        return model
    folders = (model, model.resolve().parent)
    for folder in folders:
        if (folder / "tokenizer.model").exists():
            return folder / "tokenizer.model"
        for path in sorted(folder.glob("tokenizer.*")):
            if len(path.suffixes) == 1 and default_toolkit().loads_tokenizer(path):
                return path
    if (model / "tokenizer.json").exists():  # loading it says why it is none
        return model / "tokenizer.json"
    if model.is_file():
        return model
    hint = hint_at_misnamed(model / "tokenizer.model") or hint_at_misnamed(model / "tokenizer.json")
    raise TokenizerError(
        f"no tokenizer.model in {model} nor in its parent: pass it with --tokenizer FILE"
        f"{'.' * bool(hint)}{hint}"
    )


def load_tokenizer(
    checkpoint: Checkpoint, given: str | Path | None = None, toolkit: Toolkit | None = None
) -> Tokenizer:
    """Load the tokenizer of a checkpoint.

    Args:
        given: its file; None looks in the checkpoint's folder and in the parent.
    Raises:
        TokenizerError: there is none, or it is another model's.
    """
    path = find_tokenizer(checkpoint.path, given)
    tokenizer = (toolkit or default_toolkit()).load_tokenizer(path)
    tokenizer = fit_tokenizer(tokenizer, lambda: checkpoint)
    check_vocabulary(checkpoint, tokenizer)
    return tokenizer


def fit_tokenizer(tokenizer: Tokenizer, opened: Callable[[], Checkpoint]) -> Tokenizer:
    """Let a tokenizer know whose it is, where its file leaves something open.

    Args:
        opened: returns the model's checkpoint; called where that is the case.
    """
    for_model = getattr(tokenizer, "for_model", None)
    if for_model is None:
        return tokenizer
    fitted: Tokenizer = for_model(opened().params)
    return fitted


def check_length(checkpoint: Checkpoint, max_seq_len: int) -> None:
    """Refuse sequences for which the frequencies of dynamic RoPE scaling would change.

    Raises:
        UsageError: ``max_seq_len`` is beyond the context that the model was made for.
    """
    params = checkpoint.params
    if rope_type(params.rope_scaling) == "dynamic" and max_seq_len > params.context:
        raise UsageError(
            f"max_seq_len is {max_seq_len}, but the RoPE scaling of type dynamic of "
            f"{checkpoint.path} is not supported beyond its context of {params.context} tokens"
        )


def check_vocabulary(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that has more tokens than the embedding has rows.

    Raises:
        TokenizerError: it is the tokenizer of another model.
    """
    rows = checkpoint.params.vocab_size
    if tokenizer.vocab_size > rows:
        raise TokenizerError(
            f"{tokenizer.path} has {tokenizer.vocab_size} tokens but the embedding of "
            f"{checkpoint.path} has {rows} rows: it is the tokenizer of another model; pass the "
            "right one with --tokenizer"
        )
