"""The cache that is kept from one call to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llamakit.errors import ParallelError
from llamakit.runtime.cache_slots import CacheSlots
from llamakit.runtime.executor import Executor
from llamakit.runtime.generator import Generator


class KeptCache:
    """Opens generators one after another over the same cache.

    The next turn of a dialog begins with the ids of the last one, and those are not computed
    again. What is kept is as large as the last call that needed more than there was.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._cache: CacheSlots | None = None
        self._is_open = True

    @contextlib.contextmanager
    def generator(self, slots: int, length: int) -> Iterator[Generator]:
        """Open a generator over the cache that is kept, made to fit.

        A second one at the same time gets a cache of its own. Arguments as ``Generator``.
        """
        cache, self._cache = self._cache, None
        if cache is None:
            cache = CacheSlots(self._executor, slots, length)
        try:
            cache.fit(slots, length)
            yield Generator(self._executor, slots, length, cache=cache)
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
