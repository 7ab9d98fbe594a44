"""The ranks that share a model, and the messages between them.

Rank 0 leads. The other ranks ``follow``: they wait for a message and carry it out, so every
collective is entered by all ranks or by none. Messages are JSON of a closed set of kinds
(``rank_messages``): what arrives is never executed.

``close`` destroys the process group: gloo ranks that exit without that have been seen to abort.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from llamakit.errors import ParallelError, for_commands
from llamakit.printable import printable
from llamakit.runtime import launch
from llamakit.runtime.group import Group
from llamakit.runtime.heartbeat import Heartbeat
from llamakit.runtime.interrupt import deferred_interrupt
from llamakit.runtime.process_group import (
    destroy_process_group,
    initialize_fairscale,
    is_lost_connection,
)

LONGEST_MESSAGE = 64 << 20
LONGEST_ERROR = 4096
"""Bytes that a rank accepts from another."""


class RankGroup(Group):
    """Several ranks under ``torch.distributed``, with fairscale's groups on top.

    Args:
        led: the other ranks follow rank 0 until it sends "bye"; False when torchrun runs the same
            script on every rank.
        workers: the processes that this one launched, if any.
        heartbeat: notices ranks that hang or are cut off.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        local_rank: int,
        led: bool,
        workers: launch.Workers | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.led = led
        self._workers = workers
        self._heartbeat = heartbeat
        self._executors: list[object] = []
        self._users = 0
        self._in_step = True
        self.is_open = True
        self._calls = 0
        self._call: int | None = None  # the one that this rank is in
        initialize_fairscale(size)
        atexit.register(self.close)
        if heartbeat:
            heartbeat.start()
        if workers:
            threading.Thread(target=self._watch, args=(workers,), daemon=True).start()
        elif heartbeat and not heartbeat.launched:
            threading.Thread(target=self._listen, args=(heartbeat,), daemon=True).start()

    @property
    def leads(self) -> bool:
        """Whether only this process runs the program; other ranks, if any, follow."""
        return self.led and self.rank == 0

    def register(self, executor: object) -> int:
        """Register a model; return its number, the same on every rank."""
        self._executors.append(executor)
        return len(self._executors) - 1

    @contextlib.contextmanager
    def call(self, executor: int, method: str, arguments: tuple[Any, ...]) -> Iterator[None]:
        """Run a method on the other ranks while rank 0 runs this block.

        Ctrl-C waits for the end of the block: a rank that left a collective halfway would leave
        the others in it.

        Raises:
            ParallelError: a rank has ended.
        """
        if not self._in_step:
            raise ParallelError("the ranks are no longer in step: load the model again")
        with deferred_interrupt():
            self._calls += 1
            self._call = self._calls
            try:
                if self.rank == 0:
                    self._broadcast((executor, method, arguments))
                yield
            except RuntimeError as error:
                self._in_step = False
                raise self._explain(error) from error
            except BaseException:  # this rank stopped halfway, the others did not
                self._in_step = False
                raise
            finally:
                self._call = None

    def send(self, kind: str, payload: object = None) -> None:
        """Send a message from rank 0 to every rank that follows."""
        with deferred_interrupt():
            try:
                self._broadcast((kind, payload))
            except RuntimeError as error:
                self._in_step = False
                raise self._explain(error) from error

    def follow(self) -> tuple[str, Any]:
        """Run rank 0's calls until another message comes; return that message.

        Raises:
            ParallelError: rank 0 has ended.
        """
        while True:
            try:
                message = self._broadcast(None)
            except RuntimeError as error:
                self._in_step = False
                raise self._explain(error) from error
            if len(message) == 2:
                return message[0], message[1]
            executor, method, arguments = message
            getattr(self._executors[executor], method)(*arguments)

    def agree(self, error: Exception | None) -> None:
        """Raise on every rank if one of them failed.

        Raises:
            Exception: ``error`` itself where this rank failed.
            ParallelError: another rank failed; the message repeats its error.
        """
        messages = self._gather(None if error is None else for_commands(error))
        if error is not None:
            raise error
        for rank, message in enumerate(messages):
            if message is not None:
                raise ParallelError(f"rank {rank} of {self.size}: {message}")

    @property
    def has_hosts(self) -> bool:
        """Whether the ranks may be on several hosts."""
        return self._heartbeat is not None and not self._heartbeat.launched

    def compare(self, value: str, what: str) -> None:
        """Raise ParallelError on every rank if they have other values of something.

        Args:
            what: such as ``the weights of models/7B``.
        """
        if self._heartbeat is None:
            return
        hosts = self._heartbeat.hosts
        values = self._gather(value)
        for rank, found in enumerate(values):
            if found != values[0]:
                raise ParallelError(
                    f"{what} are others for rank {rank} on host {printable(hosts[rank], 64)} than "
                    f"for rank 0 on host {printable(hosts[0], 64)}: copy them again there"
                )

    def abandon(self) -> None:
        """End a group whose ranks are no longer in step: no message would be understood."""
        self._in_step = False
        self.close()

    def acquire(self) -> None:
        """Count one more user of the group."""
        self._users += 1

    def release(self) -> None:
        """Count one user less; the last one closes the group.

        Ranks that torchrun started stay until the command ends (``worker.dismiss``).
        """
        self._users -= 1
        if self._users <= 0 and (self._workers or not self.led):
            self.close()

    def close(self) -> None:
        """End the workers and destroy the process group. Does nothing the second time."""
        if not self.is_open:
            return
        self.is_open = False
        if self._heartbeat:
            self._heartbeat.stop()
        atexit.unregister(self.close)
        if self.led and self.rank == 0 and self._in_step:
            with contextlib.suppress(RuntimeError):  # they are ended below in any case
                self.send("bye")
        if self._workers and not self._in_step:
            self._workers.kill()
        self._in_step = False  # a generator that is collected later may still call
        destroy_process_group()
        if self._workers:
            self._workers.join()

    def _broadcast(self, message: tuple[Any, ...] | None) -> tuple[Any, ...]:
        """Send rank 0's message to all ranks."""
        import torch
        from torch import distributed

        from llamakit.runtime.rank_messages import decode, encode  # they import torch

        data = b"" if message is None else encode(message)
        length = torch.tensor([len(data)])
        distributed.broadcast(length, 0)
        if not 0 < int(length) <= LONGEST_MESSAGE:
            raise ParallelError(f"a rank announced a message of {int(length)} bytes")
        payload = torch.empty(int(length), dtype=torch.uint8)
        if self.rank == 0:
            payload = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        distributed.broadcast(payload, 0)
        return decode(payload.numpy().tobytes()) if message is None else message

    def _gather(self, text: str | None) -> list[str | None]:
        """Return the text of every rank, by rank: at most ``LONGEST_ERROR`` bytes, or None."""
        import torch
        from torch import distributed

        data = (text or "").encode()[:LONGEST_ERROR]
        own = torch.zeros(LONGEST_ERROR + 1, dtype=torch.uint8)
        own[0] = text is not None
        own[1 : 1 + len(data)] = torch.tensor(list(data), dtype=torch.uint8)
        every = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(every, own)
        texts = (t[1:].numpy().tobytes().rstrip(b"\0").decode("utf-8", "replace") for t in every)
        return [text if row[0] else None for row, text in zip(every, texts, strict=True)]

    def _explain(self, error: RuntimeError) -> RuntimeError | ParallelError:
        """Return an error that names the rank that exited, if that is why a collective failed."""
        if self._workers:
            message = self._workers.exit_message()
            return error if message is None else ParallelError(message)
        if not is_lost_connection(error):
            return error
        return ParallelError(
            f"rank {self.rank} of {self.size} lost another rank: it has ended, or its host cannot "
            "be reached; what torchrun reports names the first that failed"
        )

    def _listen(self, heartbeat: Heartbeat) -> None:
        """Exit when another rank hangs or is cut off: this one may wait for it forever."""
        while heartbeat.wait() is not None:  # again after a rank that was only slow
            time.sleep(launch.NOTICE_TIMEOUT)  # a connection that is closed is noticed elsewhere
            if self.is_open and (lost := heartbeat.lost) is not None:
                _exit(f"error: {lost}")

    def _watch(self, workers: launch.Workers) -> None:
        """Exit when another rank has exited or hangs, and this one waits for it forever.

        gloo notices a closed connection; a kernel of nccl on a GPU does not. Between calls nobody
        waits for a rank, so one that is stopped may continue.
        """
        while self.is_open:
            time.sleep(1)
            call = self._call
            if call is None or self._missing(workers) is None:
                continue
            time.sleep(launch.NOTICE_TIMEOUT)
            if self.is_open and self._call == call and (message := self._missing(workers)):
                _exit(message, workers)

    def _missing(self, workers: launch.Workers) -> str | None:
        """Return which worker has exited, or hangs."""
        lost = self._heartbeat.lost if self._heartbeat else None
        return workers.exit_message(patience=0) or lost


def _exit(message: str, workers: launch.Workers | None = None) -> None:
    """End this process, whatever its threads wait for."""
    sys.stderr.write(f"llamakit: {message}\n")
    sys.stderr.flush()
    if workers:
        workers.kill()
    os._exit(ParallelError.exit_status)
