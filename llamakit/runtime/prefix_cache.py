"""The KV cache that is kept from one call to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from llamakit.errors import ParallelError
from llamakit.runtime.cache_slots import CacheSlots
from llamakit.runtime.executor import Executor
from llamakit.runtime.scheduler import Scheduler


class PrefixCache:
    """Opens schedulers one after another over the same cache.

    The next turn of a dialog begins with the tokens of the last one, and those are not computed
    again. The cache grows when a call needs a larger one, and does not shrink.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._cache: CacheSlots | None = None
        self._is_open = True

    @contextlib.contextmanager
    def scheduler(
        self, slots: int, length: int, prompts: Iterable[Sequence[int]] = ()
    ) -> Iterator[Scheduler]:
        """Open a scheduler over the kept cache, resized if needed.

        A second one at the same time gets a cache of its own.

        Args:
            slots: as ``Scheduler``.
            length: as ``Scheduler``.
            prompts: the prompts to come, as far as they are known.
        """
        cache, self._cache = self._cache, None
        if cache is None:
            cache = CacheSlots(self._executor, slots, length)
        try:
            cache.fit(slots, length, prompts)
            yield Scheduler(self._executor, slots, length, cache=cache)
        except (GeneratorExit, KeyboardInterrupt):  # the cache is consistent
            self._keep(cache)
            raise
        except BaseException:
            _free(cache)
            raise
        self._keep(cache)

    def forget(self) -> None:
        """Free the cache."""
        cache, self._cache = self._cache, None
        if cache is not None:
            _free(cache)

    def close(self) -> None:
        """Free the cache and keep none from now on."""
        self._is_open = False
        if self._executor.group.leads:
            self.forget()
        self._cache = None

    def _keep(self, cache: CacheSlots) -> None:
        self.forget()  # one that a concurrent call has kept
        if self._is_open:
            self._cache = cache
        else:
            _free(cache)


def _free(cache: CacheSlots) -> None:
    with contextlib.suppress(ParallelError):  # a rank that is gone holds nothing
        cache.close()
