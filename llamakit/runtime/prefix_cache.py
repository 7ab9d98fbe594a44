"""The cache that is kept from one call to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from llamakit.errors import ParallelError
from llamakit.runtime.cache_slots import CacheSlots
from llamakit.runtime.executor import Executor
from llamakit.runtime.scheduler import Scheduler


class PrefixCache:
    """Opens schedulers one after another over the same cache.

    The next turn of a dialog begins with the ids of the last one, and those are not computed
    again. What is kept is as large as the last call that needed more than there was.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._cache: CacheSlots | None = None
        self._is_open = True

    @contextlib.contextmanager
    def scheduler(
        self, slots: int, length: int, prompts: Iterable[Sequence[int]] = ()
    ) -> Iterator[Scheduler]:
        """Open a scheduler over the cache that is kept, made to fit.

        A second one at the same time gets a cache of its own.

        Args:
            slots: as ``Scheduler``.
            length: as ``Scheduler``.
            prompts: what is going to be asked, as far as it is known.
        """
        cache, self._cache = self._cache, None
        if cache is None:
            cache = CacheSlots(self._executor, slots, length)
        try:
            cache.fit(slots, length, prompts)
            yield Scheduler(self._executor, slots, length, cache=cache)
        except (GeneratorExit, KeyboardInterrupt):  # what is held is known, and sound
            self._keep(cache)
            raise
        except BaseException:
            with contextlib.suppress(ParallelError):  # it may be why
                cache.close()
            raise
        self._keep(cache)

    def forget(self) -> None:
        """Free the cache."""
        cache, self._cache = self._cache, None
        if cache is not None:
            cache.close()

    def close(self) -> None:
        """Free the cache and keep none from now on."""
        self._is_open = False
        if self._executor.group.leads:
            with contextlib.suppress(ParallelError):  # a rank that is gone holds nothing
                self.forget()
        self._cache = None

    def _keep(self, cache: CacheSlots) -> None:
        self.forget()  # that of a call which ran at the same time
        if self._is_open:
            self._cache = cache
        else:
            cache.close()
