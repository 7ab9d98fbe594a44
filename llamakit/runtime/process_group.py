"""fairscale's groups on top of torch's process group."""

from __future__ import annotations

import contextlib
import io


def is_lost_connection(error: RuntimeError) -> bool:
    """Return whether a collective failed because a rank is gone."""
    from torch.distributed import DistError

    markers = ("gloo", "connection", "socket", "nccl")
    return isinstance(error, DistError) or any(marker in str(error).lower() for marker in markers)


def initialize_fairscale(size: int) -> None:
    """Make fairscale's groups: all ranks share the model."""
    from fairscale.nn.model_parallel.initialize import initialize_model_parallel

    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and stdout is for answers
        initialize_model_parallel(size)


def destroy_process_group() -> None:
    """Destroy fairscale's groups and torch's process group, if there is one."""
    from fairscale.nn.model_parallel.initialize import destroy_model_parallel
    from torch import distributed

    destroy_model_parallel()
    if distributed.is_initialized():
        distributed.destroy_process_group()
