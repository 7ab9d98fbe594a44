"""Schedules which connection fetches which bytes of which file.

Requests are few, because a signed link allows a limited number: as long as there are as many files
as connections, each connection fetches a whole file with one request, or 27 GB of it. Where several
share a file, they fetch it in order, segment by segment, so that the MD5 can be computed meanwhile.
An idle connection takes over half of the largest remaining segment, or nearly all of one that is
far slower than the others.
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
MAX_REQUEST_NBYTES = 27_000_000_000
"""CloudFront sends no more than about 30 GB in one response; Meta's own tool asks for this much."""
MIN_TAKE_OVER_NBYTES = 8 << 20
"""Below that, another request does not pay."""

SLOW_AFTER_SECONDS = 10.0
SLOW_BELOW = 1 / 8
"""Fraction of the median speed: where all connections are slow, none counts as slow."""
_MIN_MEASURED_NBYTES = 1 << 20
"""Shorter segments are left out of the median speed."""

T = TypeVar("T")


@dataclass(eq=False)
class Segment(Generic[T]):
    """A range of a file that one connection fetches.

    Args:
        stop: becomes smaller when another connection takes over the rest.
        began: by the schedule's clock.
    """

    target: T
    start: int
    stop: int
    began: float = 0.0
    position: int = field(init=False)
    """The end of the bytes that have arrived."""

    def __post_init__(self) -> None:
        self.position = self.start

    def speed(self, now: float) -> float:
        """Return how many bytes per second have arrived."""
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
    """Assigns segments to connections, which call it from their own threads.

    Args:
        connections: how many there are.
        align: segments begin at multiples of this number of bytes.
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
        """Add a file to fetch.

        Args:
            nbytes: its size.
            gaps: the ranges that are missing, aligned.
            in_one: one connection fetches all of it, from its beginning.
        """
        with self._lock:
            self._targets.append(_Target(target, nbytes, list(gaps), in_one))

    def drop(self, target: T) -> None:
        """Remove a file; segments of it that are being fetched end now."""
        with self._lock:
            for one in [one for one in self._targets if one.target is target]:
                self._remove(one)

    def drop_with(self, segment: Segment[T]) -> None:
        """Remove the file of a segment, unless it was dropped, and perhaps added again, since."""
        with self._lock:
            for one in [one for one in self._targets if segment in one.segments]:
                self._remove(one)

    def claim(self) -> Segment[T] | None:
        """Return the next segment; None if everything is done or being fetched."""
        with self._lock:
            open_targets = [one for one in self._targets if one.gaps]
            if open_targets:
                return self._next_segment(min(open_targets, key=lambda one: len(one.segments)))
            return self._take_over()

    def release(self, segment: Segment[T]) -> None:
        """End a segment, done or not; the rest of it is assigned again."""
        with self._lock:
            for one in self._targets:
                if segment in one.segments:
                    one.segments.remove(segment)
                    if segment.position - segment.start >= _MIN_MEASURED_NBYTES:
                        self._speeds.append(segment.speed(self._clock()))
                    start = segment.position // self._align * self._align
                    if one.in_one and not segment.is_done:
                        one.gaps = [(0, one.nbytes)]
                    elif not segment.is_done:
                        one.gaps = sorted([*one.gaps, (start, segment.stop)])

    def is_empty(self) -> bool:
        """Tell whether nothing is left to assign or being fetched."""
        with self._lock:
            return not any(one.gaps or one.segments for one in self._targets)

    def is_busy(self) -> bool:
        """Tell whether something is being fetched."""
        with self._lock:
            return any(one.segments for one in self._targets)

    def _remove(self, one: _Target[T]) -> None:
        self._targets.remove(one)
        for segment in one.segments:
            segment.stop = min(segment.stop, segment.position)

    def _next_segment(self, one: _Target[T]) -> Segment[T]:
        start, stop = one.gaps.pop(0)
        if not one.in_one:
            size = MAX_REQUEST_NBYTES
            if self._share(one) > 1:
                size = max(one.nbytes // SEGMENTS_PER_FILE, MIN_SEGMENT_NBYTES)
                size = min(size, MAX_SEGMENT_NBYTES)
            split = (start + size) // self._align * self._align
            if split < stop:
                one.gaps.insert(0, (split, stop))
                stop = split
        segment = Segment(one.target, start, stop, self._clock())
        one.segments.append(segment)
        return segment

    def _share(self, one: _Target[T]) -> int:
        """Return how many connections a file has if all files have equally many."""
        rest = [other for other in self._targets if other.gaps or other.segments or other is one]
        return -(-self._connections // len(rest))

    def _take_over(self) -> Segment[T] | None:
        running = [
            (one, segment) for one in self._targets if not one.in_one for segment in one.segments
        ]
        if not running:
            return None
        one, segment = max(running, key=lambda pair: pair[1].stop - pair[1].position)
        rest = segment.stop - segment.position
        if rest >= 2 * MIN_TAKE_OVER_NBYTES:
            return self._split(one, segment, segment.position + rest // 2)
        for one, segment in running:
            next_block = segment.position + 2 * self._align
            if next_block < segment.stop and self._is_slow(segment):
                return self._split(one, segment, next_block)
        return None

    def _is_slow(self, segment: Segment[T]) -> bool:
        now = self._clock()
        if not self._speeds or now - segment.began < SLOW_AFTER_SECONDS:
            return False
        speed = segment.speed(now)
        too_long = segment.stop - segment.position > speed * SLOW_AFTER_SECONDS
        return too_long and speed < statistics.median(self._speeds) * SLOW_BELOW

    def _split(self, one: _Target[T], segment: Segment[T], position: int) -> Segment[T]:
        """Shorten a segment; return the rest as a new segment."""
        split = position // self._align * self._align
        rest = Segment(one.target, split, segment.stop, self._clock())
        segment.stop = split
        one.segments.append(rest)
        return rest
