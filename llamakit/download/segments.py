"""Which connection fetches which bytes of which file.

Requests are few, for a signed link is good for a number of them: as long as there are as many
files as connections, each connection fetches a whole file with one request. Where several share a
file, they take it in order, segment by segment, so that the md5 can follow close behind. A
connection that finds nothing left takes over half of what the slowest one still has to do, and
nearly all that is left of one that crawls while the others do not.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

SEGMENTS_PER_FILE = 64
MIN_SEGMENT_NBYTES = 8 << 20
MAX_SEGMENT_NBYTES = 256 << 20
MIN_TAKEN_OVER_NBYTES = 8 << 20
"""Less is not worth another request."""

CRAWLS_AFTER_SECONDS = 10.0
CRAWLS_BELOW = 1 / 8
"""Of the speed that is usual here: on a line that is slow for all, nobody crawls."""
_TELLING_NBYTES = 1 << 20
"""Shorter segments say little about speed."""

T = TypeVar("T")


@dataclass(eq=False)
class Segment(Generic[T]):
    """A range of a file that one connection is to fetch.

    Args:
        stop: may become smaller while it is fetched, when another connection takes the rest over.
        began: when, by the schedule's clock.
    """

    target: T
    start: int
    stop: int
    began: float = 0.0
    position: int = field(init=False)
    """Up to where its bytes are there."""

    def __post_init__(self) -> None:
        self.position = self.start

    def speed(self, now: float) -> float:
        """Return how many bytes a second have come."""
        return (self.position - self.start) / max(now - self.began, 1e-3)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to fetch."""
        return self.position >= self.stop


@dataclass(eq=False)
class _Target(Generic[T]):
    target: T
    nbytes: int
    gaps: list[tuple[int, int]]
    in_one: bool
    segments: list[Segment[T]] = field(default_factory=list)


class Schedule(Generic[T]):
    """Hands out segments; connections ask from their own threads.

    Args:
        connections: how many there are.
        align: segments begin at multiples of so many bytes.
        clock: in seconds.
    """

    def __init__(
        self, connections: int, align: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connections = connections
        self._align = align
        self._clock = clock
        self._speeds: list[float] = []
        self._lock = threading.Lock()
        self._targets: list[_Target[T]] = []

    def add(
        self, target: T, nbytes: int, gaps: Sequence[tuple[int, int]], *, in_one: bool = False
    ) -> None:
        """Take in a file that is to be fetched.

        Args:
            nbytes: its size.
            gaps: the ranges that are missing, aligned.
            in_one: only one connection may fetch it, from its beginning.
        """
        with self._lock:
            self._targets.append(_Target(target, nbytes, list(gaps), in_one))

    def drop(self, target: T) -> None:
        """Forget a file; segments of it that are being fetched end now."""
        with self._lock:
            for one in [one for one in self._targets if one.target is target]:
                self._forget(one)

    def drop_with(self, segment: Segment[T]) -> None:
        """Forget the file of a segment, unless it was dropped, and perhaps added anew, since."""
        with self._lock:
            for one in [one for one in self._targets if segment in one.segments]:
                self._forget(one)

    def claim(self) -> Segment[T] | None:
        """Return what a free connection should fetch; None if all is done or being fetched."""
        with self._lock:
            open_targets = [one for one in self._targets if one.gaps]
            if open_targets:
                return self._cut(min(open_targets, key=lambda one: len(one.segments)))
            return self._take_over()

    def give_back(self, segment: Segment[T]) -> None:
        """End a segment, done or not; what is left of it is handed out again."""
        with self._lock:
            for one in self._targets:
                if segment in one.segments:
                    one.segments.remove(segment)
                    if segment.position - segment.start >= _TELLING_NBYTES:
                        self._speeds.append(segment.speed(self._clock()))
                    start = segment.position // self._align * self._align
                    if one.in_one and not segment.is_done:
                        one.gaps = [(0, one.nbytes)]
                    elif not segment.is_done:
                        one.gaps = sorted([*one.gaps, (start, segment.stop)])

    def is_empty(self) -> bool:
        """Tell whether nothing is left to hand out or being fetched."""
        with self._lock:
            return not any(one.gaps or one.segments for one in self._targets)

    def is_busy(self) -> bool:
        """Tell whether something is being fetched."""
        with self._lock:
            return any(one.segments for one in self._targets)

    def _forget(self, one: _Target[T]) -> None:
        self._targets.remove(one)
        for segment in one.segments:
            segment.stop = min(segment.stop, segment.position)

    def _cut(self, one: _Target[T]) -> Segment[T]:
        start, stop = one.gaps.pop(0)
        if not one.in_one and self._share(one) > 1:
            size = min(max(one.nbytes // SEGMENTS_PER_FILE, MIN_SEGMENT_NBYTES), MAX_SEGMENT_NBYTES)
            cut = (start + size) // self._align * self._align
            if cut < stop:
                one.gaps.insert(0, (cut, stop))
                stop = cut
        segment = Segment(one.target, start, stop, self._clock())
        one.segments.append(segment)
        return segment

    def _share(self, one: _Target[T]) -> int:
        """Return how many connections a file has when all files get their share."""
        rest = [other for other in self._targets if other.gaps or other.segments or other is one]
        return -(-self._connections // len(rest))

    def _take_over(self) -> Segment[T] | None:
        running = [
            (one, segment) for one in self._targets if not one.in_one for segment in one.segments
        ]
        if not running:
            return None
        one, segment = max(running, key=lambda it: it[1].stop - it[1].position)
        rest = segment.stop - segment.position
        if rest >= 2 * MIN_TAKEN_OVER_NBYTES:
            return self._cut_off(one, segment, segment.position + rest // 2)
        for one, segment in running:
            next_block = segment.position + 2 * self._align
            if next_block < segment.stop and self._crawls(segment):
                return self._cut_off(one, segment, next_block)
        return None

    def _crawls(self, segment: Segment[T]) -> bool:
        now = self._clock()
        if not self._speeds or now - segment.began < CRAWLS_AFTER_SECONDS:
            return False
        speed = segment.speed(now)
        too_long = segment.stop - segment.position > speed * CRAWLS_AFTER_SECONDS
        return too_long and speed < statistics.median(self._speeds) * CRAWLS_BELOW

    def _cut_off(self, one: _Target[T], segment: Segment[T], position: int) -> Segment[T]:
        """Let a segment end earlier; return the rest as one of its own."""
        cut = position // self._align * self._align
        taken = Segment(one.target, cut, segment.stop, self._clock())
        segment.stop = cut
        one.segments.append(taken)
        return taken
