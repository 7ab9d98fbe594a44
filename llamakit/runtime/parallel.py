"""The ranks that share a model: how they join, talk and part.

Rank 0 leads. The other ranks ``follow``: they wait for a message and do what it says, so every
collective is entered by all ranks or by none. Messages are pickles, sent only between processes
that this program or torchrun started.

Nothing here is made at import, and a group leaves nothing behind: ``close`` destroys the process
group, since gloo ranks that exit without that have been seen to abort.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from llamakit.errors import ParallelError
from llamakit.runtime import launch
from llamakit.runtime.interrupt import deferred_interrupt, import_torch


class Group:
    """One rank alone: the plain case, and the interface of the others."""

    rank = 0
    size = 1
    local_rank = 0

    @property
    def leads(self) -> bool:
        """Whether this process alone runs the program: other ranks, if any, only follow."""
        return True

    def enrol(self, executor: object) -> int:  # noqa: ARG002
        """Give a model its number, the same on every rank."""
        return 0

    @contextlib.contextmanager
    def call(self, executor: int, method: str, arguments: tuple[Any, ...]) -> Iterator[None]:  # noqa: ARG002
        """Have every rank do what rank 0 does in this block."""
        yield

    def send(self, kind: str, payload: object = None) -> None:
        """Send a message from rank 0 to every rank that follows."""

    def follow(self) -> tuple[str, Any]:
        """Do what rank 0 asks until a message comes that is not a call; return it."""
        raise AssertionError("a rank alone follows nobody")

    def agree(self, error: Exception | None) -> None:
        """Fail on every rank if one failed. Raises ``error`` if this one did."""
        if error is not None:
            raise error

    def abandon(self) -> None:
        """End a group whose ranks no longer do the same."""

    def acquire(self) -> None:
        """Note one more user of the group."""

    def release(self) -> None:
        """Note one user less; the last one closes the group."""


class RankGroup(Group):
    """Several ranks under ``torch.distributed``, with fairscale's groups on top.

    Args:
        led: the other ranks follow this one until it says goodbye. Not so when torchrun runs the
            same script on every rank.
        workers: the processes that this one launched, if it did.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        local_rank: int,
        led: bool,
        workers: launch.Workers | None = None,
    ) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.led = led
        self._workers = workers
        self._executors: list[object] = []
        self._users = 0
        self._sound = True
        self._open = True
        self._calls = 0
        self._call: int | None = None  # the one that this rank is in
        _initialize_fairscale(size)
        atexit.register(self.close)
        if workers:
            threading.Thread(target=self._watch, args=(workers,), daemon=True).start()

    @property
    def leads(self) -> bool:
        """Whether this process alone runs the program: other ranks, if any, only follow."""
        return self.led and self.rank == 0

    def enrol(self, executor: object) -> int:
        """Give a model its number, the same on every rank."""
        self._executors.append(executor)
        return len(self._executors) - 1

    @contextlib.contextmanager
    def call(self, executor: int, method: str, arguments: tuple[Any, ...]) -> Iterator[None]:
        """Have every rank do what rank 0 does in this block.

        Ctrl-C waits for the end of the block: a rank that left a collective halfway would leave
        the others in it.

        Raises:
            ParallelError: a rank has ended.
        """
        if not self._sound:
            raise ParallelError("the ranks no longer do the same: load the model again")
        with deferred_interrupt():
            self._calls += 1
            self._call = self._calls
            try:
                if self.rank == 0:
                    self._broadcast((executor, method, arguments))
                yield
            except RuntimeError as error:
                self._sound = False
                raise self._explain(error) from error
            except BaseException:  # this rank stopped halfway, the others did not
                self._sound = False
                raise
            finally:
                self._call = None

    def send(self, kind: str, payload: object = None) -> None:
        """Send a message from rank 0 to every rank that follows."""
        with deferred_interrupt():
            try:
                self._broadcast((kind, payload))
            except RuntimeError as error:
                self._sound = False
                raise self._explain(error) from error

    def follow(self) -> tuple[str, Any]:
        """Do what rank 0 asks until a message comes that is not a call; return it.

        Raises:
            ParallelError: rank 0 has ended.
        """
        while True:
            try:
                message = self._broadcast(None)
            except RuntimeError as error:
                self._sound = False
                raise self._explain(error) from error
            if len(message) == 2:
                return message[0], message[1]
            executor, method, arguments = message
            getattr(self._executors[executor], method)(*arguments)

    def agree(self, error: Exception | None) -> None:
        """Fail on every rank if one failed.

        Raises:
            Exception: ``error`` itself where this rank failed.
            ParallelError: another rank failed; the message holds its words.
        """
        from torch import distributed

        words: list[str | None] = [None] * self.size
        distributed.all_gather_object(words, None if error is None else str(error))
        if error is not None:
            raise error
        for rank, word in enumerate(words):
            if word is not None:
                raise ParallelError(f"rank {rank} of {self.size}: {word}")

    def abandon(self) -> None:
        """End a group whose ranks no longer do the same: no message would be understood."""
        self._sound = False
        self.close()

    def acquire(self) -> None:
        """Note one more user of the group."""
        self._users += 1

    def release(self) -> None:
        """Note one user less; the last one closes the group.

        Ranks that torchrun started stay until the command ends (``worker.dismiss``).
        """
        self._users -= 1
        if self._users <= 0 and (self._workers or not self.led):
            self.close()

    def close(self) -> None:
        """Let the workers go and destroy the process group. Does nothing the second time."""
        global _current  # noqa: PLW0603
        if not self._open:
            return
        self._open = False
        _current = None
        atexit.unregister(self.close)
        if self.led and self.rank == 0 and self._sound:
            with contextlib.suppress(RuntimeError):  # they are ended below in any case
                self.send("bye")
        if self._workers and not self._sound:
            self._workers.kill()
        _destroy()
        if self._workers:
            self._workers.join()

    def _broadcast(self, message: tuple[Any, ...] | None) -> tuple[Any, ...]:
        """Hand rank 0's message to all."""
        import torch
        from torch import distributed

        data = b"" if message is None else pickle.dumps(message)
        length = torch.tensor([len(data)])
        distributed.broadcast(length, 0)
        payload = torch.empty(int(length), dtype=torch.uint8)
        if self.rank == 0:
            payload = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        distributed.broadcast(payload, 0)
        if message is not None:
            return message
        received: tuple[Any, ...] = pickle.loads(payload.numpy().tobytes())  # noqa: S301 (ours)
        return received

    def _explain(self, error: RuntimeError) -> RuntimeError | ParallelError:
        """Say which rank has ended, if that is why a collective failed."""
        if self._workers:
            words = self._workers.last_words()
            return error if words is None else ParallelError(words)
        if not _is_lost_connection(error):
            return error
        return ParallelError(
            f"rank {self.rank} of {self.size} lost another rank: it has ended, or its host cannot "
            "be reached; what torchrun reports names the first that failed"
        )

    def _watch(self, workers: launch.Workers) -> None:
        """End this process when a rank has ended and this one waits for it forever.

        gloo notices a closed connection; a kernel of nccl on a GPU does not.
        """
        while self._open:
            time.sleep(1)
            call = self._call
            if call is None or (words := workers.last_words(patience=0)) is None:
                continue
            time.sleep(launch.NOTICING)
            if self._open and self._call == call:
                sys.stderr.write(f"llamakit: {words}\n")
                sys.stderr.flush()
                workers.kill()
                os._exit(ParallelError.exit_status)


def _is_lost_connection(error: RuntimeError) -> bool:
    """Tell whether a collective failed because a rank is gone."""
    from torch.distributed import DistError

    words = ("gloo", "connection", "socket", "nccl")
    return isinstance(error, DistError) or any(word in str(error).lower() for word in words)


_current: RankGroup | None = None
"""The group of this process. torch.distributed and fairscale keep theirs in globals of their own,
so there is one."""


def world_size() -> int:
    """How many ranks torchrun started, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(size: int | None, *, led: bool = False) -> Group:
    """Return the group of ``size`` ranks, joined or launched as need be.

    Args:
        size: how many ranks; None means as many as torchrun started, else one.
        led: under torchrun, the other ranks run ``llamakit.llama.worker``, not this same program.
    Raises:
        ParallelError: torchrun started another number, or this process already leads another.
    """
    started = world_size()
    size = size or started
    if started > 1 and size != started:
        raise ParallelError(
            f"torchrun started {started} ranks but the model parallel size is {size}: "
            f"pass --nproc_per_node {size} to torchrun, or leave the size out"
        )
    if size == 1:
        import_torch()
        return Group()
    if _current is None:
        return _join_torchrun(led) if started > 1 else _launch(size)
    if _current.size != size:
        raise ParallelError(
            f"this process leads {_current.size} ranks already: "
            f"close that model before loading one on {size}"
        )
    return _current


def _join_torchrun(led: bool) -> RankGroup:
    from torch import distributed

    distributed.init_process_group(_backend(), timeout=launch.IDLE)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return _remember(RankGroup(distributed.get_rank(), world_size(), local_rank, led))


def _launch(size: int) -> RankGroup:
    listener = launch.listen()
    workers = launch.Workers(size, listener.getsockname()[1])
    with contextlib.ExitStack() as undo:
        undo.callback(workers.kill)
        import_torch()  # the workers import it at the same time
        from torch import distributed

        undo.callback(_destroy)
        store = launch.open_store(size, listener)
        workers.wait_until_ready(store)
        distributed.init_process_group(
            _backend(), store=store, rank=0, world_size=size, timeout=launch.IDLE
        )
        group = _remember(RankGroup(0, size, 0, led=True, workers=workers))
        undo.pop_all()
        return group


def join_as_worker() -> RankGroup:
    """Join the process that launched this one."""
    from torch import distributed

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if launch.STORE_PORT not in os.environ:
        return _join_torchrun(led=True)
    port = int(os.environ[launch.STORE_PORT])
    store = launch.find_store(size, port)
    store.set(f"ready/{rank}", "1")
    distributed.init_process_group(
        _backend(), store=store, rank=rank, world_size=size, timeout=launch.IDLE
    )
    return _remember(RankGroup(rank, size, rank, led=True))


def _remember(group: RankGroup) -> RankGroup:
    global _current  # noqa: PLW0603
    _current = group
    return group


def _backend() -> str:
    """Tensors on a GPU travel by nccl, those on a CPU (all messages) by gloo."""
    import torch

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def _initialize_fairscale(size: int) -> None:
    from fairscale.nn.model_parallel.initialize import initialize_model_parallel

    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and stdout is for answers
        initialize_model_parallel(size)


def _destroy() -> None:
    from fairscale.nn.model_parallel.initialize import destroy_model_parallel
    from torch import distributed

    destroy_model_parallel()
    if distributed.is_initialized():
        distributed.destroy_process_group()
