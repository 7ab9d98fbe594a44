"""The Python API of llamakit: functions that take paths and return values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.convert.edits import Edits
from llamakit.errors import NotACheckpointError
from llamakit.llama.chunks import Chunk
from llamakit.llama.embedding import embed
from llamakit.llama.llama import ChatPrediction, CompletionPrediction, Llama
from llamakit.llama.loading import find_tokenizer, fit_tokenizer
from llamakit.llama.moderation import Moderation, moderate
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.llama.score_items import ScoreItem
from llamakit.llama.scoring import ItemScore, Score, score
from llamakit.llama.tokenizer import Tokenizer
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import Checkpoint, ToolCommand

if TYPE_CHECKING:
    import numpy
    import torch

    from llamakit.convert.conversion_plan import ConversionPlan
    from llamakit.convert.plan_summary import PlanSummary
    from llamakit.convert.registered_export import ExportRequest
    from llamakit.download.catalog import Model
    from llamakit.download.events import Event, Finished
    from llamakit.download.session import Session
    from llamakit.examine.diff import DiffReport
    from llamakit.examine.inspect import Inspection
    from llamakit.examine.steps import StepProgress
    from llamakit.examine.verify_report import VerifyReport

__all__ = [
    "ChatPrediction",
    "Chunk",
    "CompletionPrediction",
    "Edits",
    "ItemScore",
    "Llama",
    "Moderation",
    "Score",
    "ScoreItem",
    "ToolCommand",
    "choose_sampling",
    "diff",
    "download_models",
    "edit",
    "embed",
    "export",
    "find_tokenizer",
    "import_checkpoint",
    "inspect",
    "load_tokenizer",
    "moderate",
    "open_checkpoint",
    "open_for_import",
    "plan_edit",
    "plan_export",
    "plan_import",
    "plan_quantize",
    "plan_reshard",
    "quantize",
    "record_provenance",
    "reshard",
    "score",
    "to_torch",
    "verify",
]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a folder as a checkpoint, from its indexes alone.

    Raises:
        CheckpointError: no plugin knows its format, or it is damaged.
    """
    return default_toolkit().open_checkpoint(Path(path))


def to_torch(array: numpy.ndarray[Any, Any]) -> torch.Tensor:
    """View an array as a tensor, bfloat16 included; memory is shared.

    Args:
        array: such as ``Checkpoint.read`` returns. One that cannot be written to, such as a mapped
            file's, is copied: torch has no such tensors.
    """
    from llamakit.runtime.stored_weights import to_torch as view

    return view(array)


def download_models(
    *models: str,
    link: str,
    output_dir: str | Path = ".",
    connections: int = 8,
    limit_rate: float | None = None,
    repair: bool = False,
    into: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Finished:
    """Download models with a signed link; files that are there already are not fetched again.

    Args:
        models: names such as ``7B`` or ``13B-chat``, or ``all``.
        link: as Meta's email has it; what mail clients do to it is undone.
        output_dir: where the models' folders and the tokenizer go.
        connections: how many at the same time, over all files.
        limit_rate: bytes a second; None is no limit.
        repair: replace files that are there but wrong.
        into: write each model in another format as it arrives, and store no source:
            ``reshard:N``, ``hf`` or ``safetensors``. ``on_event`` gets a ``Converted`` with where.
        on_event: called with each event: progress, problems, completed files.
    Returns:
        How much was fetched, with how many requests.

    Raises:
        LinkError: the link is mangled or for another family.
        LinkExpiredError: it has expired; the same call with a new link resumes.
        DownloadError: the server did not give what it should, or could not be reached.
        DamagedFileError: a file is wrong twice, or was there, wrong, and ``repair`` is off.
        NoSpaceError: there is no room.
        OptionError: ``into`` is no format that a download is written in.
        DestinationError: something else is where ``into`` writes.
    """
    from llamakit.download.fetcher import DownloadSettings
    from llamakit.download.session import Download, fetch_models
    from llamakit.download_into.session import IntoDownload
    from llamakit.download_into.target_format import read_target_format

    toolkit, folder = default_toolkit(), Path(output_dir)
    settings = DownloadSettings(connections=connections, limit_rate=limit_rate, repair=repair)
    target = None if into is None else read_target_format(into, toolkit.exporters)

    def sessions(chosen: Sequence[Model]) -> Sequence[Session]:
        if target is None:
            return [Download(chosen, folder, settings)]
        open_checkpoint = toolkit.open_checkpoint
        return [IntoDownload(it, folder, target, open_checkpoint, settings) for it in chosen]

    return fetch_models(models, toolkit.models, link, sessions, on_event)


def verify(
    *paths: str | Path,
    deep: bool = False,
    progress: Callable[[StepProgress], object] | None = None,
) -> VerifyReport:
    """Check files against their checklists; every file that counts is read.

    Args:
        paths: folders of models, folders that hold several, or folders with a tokenizer.
        deep: check what checksums do not show: CRCs, shapes, shards of several models or out of
            order, another model's tokenizer, NaN and infinity.
        progress: called with how far it is: ``nbytes`` of ``total``, which is known when it starts.
    Returns:
        What was found; ``report.good`` is the overall result.

    Raises:
        NotACheckpointError: there is nothing to verify at a path.
    """
    from llamakit.download.catalog import read_catalog, unserved_files
    from llamakit.examine.steps import finish
    from llamakit.examine.verify import verify as run

    toolkit = default_toolkit()
    models = read_catalog(toolkit.models)
    steps = run(
        [Path(path) for path in paths],
        toolkit,
        deep=deep,
        unserved=unserved_files(models),
        catalog={model.folder: model.shard_names for model in models},
    )
    return finish(steps, progress)


def inspect(
    path: str | Path, *, max_seq_len: int | None = None, max_batch_size: int = 1
) -> Inspection:
    """Describe a checkpoint, from its indexes alone.

    Args:
        path: its folder.
        max_seq_len: tokens that ``memory`` counts a KV cache for; None: what the model was made
            for.
        max_batch_size: sequences that ``memory`` counts a KV cache for.

    Raises:
        CheckpointError: it is none, or damaged.
    """
    from llamakit.examine.inspect import inspect as run

    return run(
        Path(path), default_toolkit(), max_seq_len=max_seq_len, max_batch_size=max_batch_size
    )


def diff(
    a: str | Path | Checkpoint,
    b: str | Path | Checkpoint,
    *,
    progress: Callable[[StepProgress], object] | None = None,
) -> DiffReport:
    """Compare two checkpoints of any format and any number of shards, parameter by parameter.

    Args:
        a: a folder, or a checkpoint that is open.
        b: another.
        progress: called with how far it is: ``nbytes`` of ``total``.
    Returns:
        What differs, and where; ``report.same`` is the overall result.

    Raises:
        CheckpointError: one is no checkpoint, or damaged, or its ``read`` contradicts its index.
        PluginError: the ``read`` of a third-party plugin's checkpoint fails.
    """
    from llamakit.examine.diff import diff as run
    from llamakit.examine.steps import finish

    return finish(run(_opened(a), _opened(b)), progress)


def plan_reshard(
    source: str | Path | Checkpoint,
    destination: str | Path,
    model_parallel_size: int,
    *,
    dtype: str | None = None,
    verify: bool = False,
    command: ToolCommand | None = None,
) -> ConversionPlan:
    """Plan what ``reshard`` would do, without doing it.

    Args and Raises: as ``reshard``.
    """
    from llamakit.convert.reshard import plan_reshard as run
    from llamakit.download.catalog import read_catalog, unserved_files

    return run(
        _opened(source),
        Path(destination),
        model_parallel_size,
        dtype=dtype,
        verify=verify,
        unserved=unserved_files(read_catalog(default_toolkit().models)) if verify else (),
        command=command,
    )


def reshard(
    source: str | Path | Checkpoint,
    destination: str | Path,
    model_parallel_size: int,
    *,
    dtype: str | None = None,
    verify: bool = False,
    force: bool = False,
    direct: bool | None = None,
    progress: Callable[[int], None] | None = None,
    command: ToolCommand | None = None,
) -> dict[str, object]:
    """Write a checkpoint with another number of shards, in Meta's format.

    Args:
        source: a folder, or an open checkpoint, also one of your own class.
        destination: the folder to make; it is written atomically.
        model_parallel_size: how many shards.
        dtype: ``float32``, ``bfloat16`` or ``float16``; None keeps every byte.
        verify: check the source against its checklist.chk first, or on the way.
        force: replace a folder that is there.
        direct: bypass the page cache; None: if the file system allows it and it pays.
        progress: called with the number of bytes done since the last call.
        command: what ``llamakit.json`` says has made it, of a tool of your own; None: reshard.
    Returns:
        ``source``, ``destination``, ``files`` (name, nbytes, md5), ``nbytes``, ``nbytes_read``.

    Raises:
        UnevenSplitError: the model cannot be split into so many shards.
        CheckpointError: the source is not what it should be.
        DestinationError: there is something already.
        NoSpaceError: there is no room.
    """
    from llamakit.convert.reshard import make

    plan = plan_reshard(
        source, destination, model_parallel_size, dtype=dtype, verify=verify, command=command
    )
    return make(plan, force=force, direct=direct, progress=progress)


def plan_edit(
    source: str | Path | Checkpoint,
    destination: str | Path,
    edits: Edits,
    model_parallel_size: int | None = None,
    *,
    verify: bool = False,
) -> ConversionPlan:
    """Plan what ``edit`` would do, without doing it.

    Args and Raises: as ``edit``.
    """
    from llamakit.convert.edit import plan_edit as run
    from llamakit.download.catalog import read_catalog, unserved_files
    from llamakit.examine.vocabulary import find_vocabulary

    toolkit, checkpoint = default_toolkit(), _opened(source)
    return run(
        checkpoint,
        Path(destination),
        edits,
        model_parallel_size,
        tokens=find_vocabulary(checkpoint, toolkit).size if edits.resizes else None,
        verify=verify,
        unserved=unserved_files(read_catalog(toolkit.models)) if verify else (),
    )


def edit(
    source: str | Path | Checkpoint,
    destination: str | Path,
    edits: Edits,
    model_parallel_size: int | None = None,
    *,
    verify: bool = False,
    force: bool = False,
    direct: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, object]:
    """Write a checkpoint with other dtypes, names, layers or another vocabulary.

    Args:
        edits: what is to change.
        model_parallel_size: how many shards; None: as many as the source has.

    Other Args, Returns and Raises: as ``reshard``, ``notes`` (what was decided) besides, and
        OptionError: a pattern matches nothing, two names would be one, or a vocabulary does not
            divide or is smaller than the tokenizer's.
        ParametersError: what is left is no complete model, and ``edits.partial`` is off.
    """
    from llamakit.convert.reshard import make

    plan = plan_edit(source, destination, edits, model_parallel_size, verify=verify)
    return make(plan, force=force, direct=direct, progress=progress)


def plan_quantize(
    source: str | Path | Checkpoint, destination: str | Path, bits: str
) -> ConversionPlan:
    """Plan what ``quantize`` would do, without doing it.

    Args and Raises: as ``quantize``.
    """
    from llamakit.convert.quantize import plan_quantize as plan

    return plan(_opened(source), Path(destination), bits)


def quantize(
    source: str | Path | Checkpoint,
    destination: str | Path,
    bits: str,
    *,
    force: bool = False,
    direct: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, object]:
    """Write what ``Llama.open(source, quantize=bits)`` would compute with, for any number of ranks.

    Args:
        source: a folder, or an open checkpoint, also one of your own class.
        destination: the folder to make; it is written atomically.
        bits: ``int8`` or ``int4``.
        force, direct, progress: as ``reshard``.
    Returns: as ``reshard``.

    Raises:
        UsageError: no such ``bits``.
        UnsupportedModelError: it is stored quantized already, has NaN, or is of Llama 4.
        CheckpointError: the source is not what it should be.
        DestinationError: there is something already.
        NoSpaceError: there is no room.
    """
    from llamakit.convert.reshard import make

    plan = plan_quantize(source, destination, bits)
    return make(plan, force=force, direct=direct, progress=progress)


def export(
    source: str | Path | Checkpoint,
    destination: str | Path,
    form: str = "hf",
    *,
    engine: str | None = None,
    force: bool = False,
    command: ToolCommand | None = None,
    **options: Any,
) -> Mapping[str, Any]:
    """Write a checkpoint in another format.

    Args:
        source: a folder, or an open checkpoint, also one of your own class.
        destination: the folder to make; it is written atomically.
        form: the name of an exporter: ``hf``, ``safetensors`` or a plugin's.
        engine: what it is for, such as ``vllm``: says ``form`` and options itself.
        force: replace a folder that is there.
        command: what ``llamakit.json`` says has made it, of a tool of your own; None: export.
        options: the exporter's own, such as ``max_shard_size="5GB"`` for ``hf``.
    Returns:
        ``source``, ``destination``, and what the exporter reports; for an engine ``command``, the
        line for a shell that starts it.

    Raises:
        UnknownNameError: no exporter, or no engine, of that name.
        OptionError: an option that the exporter does not have.
        UnsupportedModelError: weights that are no plain numbers, or that the format cannot hold.
        PluginError: a third-party exporter failed, wrote nothing or returned no valid report.
        CheckpointError: the source is not what it should be.
        DestinationError: there is something already.
        NoSpaceError: there is no room.
    """
    from llamakit.convert.registered_export import carry_out

    request = _export_request(source, form, engine, options, command)
    return carry_out(request, Path(destination), force=force)


def plan_export(
    source: str | Path | Checkpoint,
    destination: str | Path,
    form: str = "hf",
    *,
    engine: str | None = None,
    command: ToolCommand | None = None,
    **options: Any,
) -> PlanSummary:
    """Say what ``export`` would do, without doing it.

    Args and Raises: as ``export``, and
        UsageError: the exporter has no plan; third-party exporters need none.
    """
    from llamakit.convert.registered_export import plan_export as plan

    return plan(_export_request(source, form, engine, options, command), Path(destination))


def _export_request(
    source: str | Path | Checkpoint,
    form: str,
    engine: str | None,
    options: Mapping[str, Any],
    command: ToolCommand | None,
) -> ExportRequest:
    from llamakit.convert.registered_export import request_export

    return request_export(
        _opened(source),
        form,
        engine,
        options,
        command,
        exporters=default_toolkit().exporters,
        engines=default_toolkit().engines,
    )


def record_provenance(
    product: str | Path,
    command: ToolCommand,
    sources: Sequence[str | Path | Checkpoint],
    *,
    checksums: Mapping[str, str] | None = None,
) -> None:
    """Write the ``llamakit.json`` of what a tool of your own has written.

    Nothing has to be done for an exporter, nor for what ``reshard`` writes: they have theirs.

    Args:
        product: the folder, before it is renamed into place, or the only file that was written.
        command: what made it.
        sources: the checkpoints that it was made from; their histories are taken over.
        checksums: MD5 or SHA-256 of files of the product, by their names, as they were computed
            when they were written. Without one, a file of up to 32 MB is read again, and of a
            larger one none is recorded.

    Raises:
        CheckpointError: a source is none.
    """
    from llamakit.checkpoint.provenance_writer import record_provenance as run

    run(Path(product), command, [_opened(source) for source in sources], checksums)


def plan_import(
    source: str | Path | Checkpoint,
    destination: str | Path,
    model_parallel_size: int = 1,
    *,
    key: str | None = None,
    strip_prefix: str | bool = False,
    dtype: str | None = None,
) -> ConversionPlan:
    """Plan what ``import_checkpoint`` would do, without doing it.

    Args and Raises: as ``import_checkpoint``.
    """
    if isinstance(source, str | Path):
        source = open_for_import(source, key=key, strip_prefix=strip_prefix)
    options = {"model_parallel_size": model_parallel_size, "dtype": dtype, "key": key}
    options["strip_prefix"] = strip_prefix or None
    command = ToolCommand("import", options)
    return plan_reshard(source, destination, model_parallel_size, dtype=dtype, command=command)


def import_checkpoint(
    source: str | Path | Checkpoint,
    destination: str | Path,
    model_parallel_size: int = 1,
    *,
    key: str | None = None,
    strip_prefix: str | bool = False,
    dtype: str | None = None,
    force: bool = False,
    direct: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, object]:
    """Write a checkpoint of another format, such as a Hugging Face folder, as Meta's shards.

    Args:
        source: as ``open_for_import``, or an open checkpoint.
        key, strip_prefix: as ``open_for_import``; of an open checkpoint they are recorded only.

    Other Args, Returns and Raises: as ``reshard``, and
        UnsupportedModelError: Meta's format cannot hold this model.
    """
    from llamakit.convert.reshard import make

    plan = plan_import(
        source, destination, model_parallel_size, key=key, strip_prefix=strip_prefix, dtype=dtype
    )
    return make(plan, force=force, direct=direct, progress=progress)


def _opened(source: str | Path | Checkpoint) -> Checkpoint:
    return open_checkpoint(source) if isinstance(source, str | Path) else source


def open_for_import(
    source: str | Path, *, key: str | None = None, strip_prefix: str | bool = False
) -> Checkpoint:
    """Open a checkpoint of any format, or weights that a training program has saved.

    Args:
        source: a folder, or a file of weights with params.json or config.json next to it.
        key: of the dict of weights in a training checkpoint, such as ``model``; with dots where it
            is in a dict in it.
        strip_prefix: what the names of tensors lose at their beginning; True: what
            torch.compile, DDP, FSDP and their like add.

    Raises:
        CheckpointError: it is neither, or damaged.
        UnsupportedModelError: it is a model that is not read here.
    """
    from llamakit.checkpoint.state_dict import open_for_import as run
    from llamakit.checkpoint.tensor_names import AUTOMATIC, StateDictOptions

    prefix = AUTOMATIC if strip_prefix is True else strip_prefix or None
    options = StateDictOptions(key, prefix)
    return run(Path(source), options, default_toolkit().open_checkpoint)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a tokenizer file, or the tokenizer of a model folder.

    Raises:
        TokenizerError: there is none, or it is something else.
    """
    path = Path(path)
    if not path.is_dir():
        return Tokenizer(path)
    tokenizer = default_toolkit().load_tokenizer(find_tokenizer(path))
    try:
        return Tokenizer.of(fit_tokenizer(tokenizer, lambda: open_checkpoint(path)))
    except NotACheckpointError:  # a folder with a tokenizer alone
        return Tokenizer.of(tokenizer)
