"""Ways in which a server misbehaves, each for one request.

``after`` counts bytes of one body: such a fault waits for a request whose body is longer than
that, so that it is not spent on a probe of one byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from email.utils import format_datetime

from replies import Act, Ask, Reply, good_reply, text_reply

EXPIRED_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Llama</title></head>"
    b"<body><h1>Your link has expired</h1><p>Please request a new one.</p></body></html>\n"
)


@dataclass(frozen=True)
class Fault:
    """One way to misbehave.

    Args:
        answer: makes the bad reply; None drops the connection before it is asked anything.
        wants: whether a request is one that this fault can show itself in.
        served: how many bytes of bodies the server has sent before it begins.
    """

    name: str
    answer: Callable[[Ask], Reply] | None
    wants: Callable[[Ask], bool] = lambda _: True
    served: int = 0


def reset(after: int = 0) -> Fault:
    """Break the connection with RST."""
    return _act(Act("reset", after))


def close(after: int = 0) -> Fault:
    """End the connection with FIN, before the body has its Content-Length."""
    return _act(Act("close", after))


def hang(after: int = 0, seconds: float = 3600) -> Fault:
    """Send nothing for so long, then continue; ends with the client or the server."""
    return _act(Act("hang", after, seconds))


def _act(act: Act) -> Fault:
    def answer(ask: Ask) -> Reply:
        return replace(good_reply(ask), act=act)

    return Fault(f"{act.kind}({act.after})", answer, lambda ask: ask.nbytes > act.after)


def status(
    code: int,
    retry_after: float | datetime | None = None,
    body: bytes = b"",
    after: int = 0,
    kind: str = "text/plain",
) -> Fault:
    """Answer with a status alone, once the server has sent ``after`` bytes of all bodies.

    Args:
        retry_after: seconds, or a moment (with its time zone) that is sent as an HTTP date.
    """
    headers = {}
    if isinstance(retry_after, datetime):
        moment = retry_after.astimezone(timezone.utc)
        headers["Retry_After"] = format_datetime(moment, usegmt=True)
    elif retry_after is not None:
        headers["Retry_After"] = f"{retry_after:g}"
    text = body or f"{code} from the test server\n".encode()
    return Fault(f"status({code})", lambda _: text_reply(code, text, kind, **headers), served=after)


def html(status: int = 200, body: bytes = EXPIRED_PAGE) -> Fault:
    """Send a page where the file should be."""
    return Fault("html", lambda _: text_reply(status, body, "text/html; charset=utf-8"))


def redirect(to: str | None = None, status: int = 302) -> Fault:
    """Send the client elsewhere.

    Args:
        to: a path or an address; a ``*`` in it stands for the path asked for. None is a loop: the
            same again (``times`` says how often). ``/login`` is a page of HTML.
    """

    def answer(ask: Ask) -> Reply:
        path = ask.target.partition("?")[0].lstrip("/")
        where = ask.target if to is None else to.replace("*", path)
        return text_reply(status, b"", "text/html", Location=where)

    return Fault("redirect", answer)


def ignore_range() -> Fault:
    """Send the whole file, with 200, to a request for a range."""
    return Fault(
        "ignore_range",
        lambda ask: good_reply(replace(ask, span=None)),
        lambda ask: ask.span is not None,
    )


def no_ranges(length: bool = False) -> Fault:
    """Know no ranges: 200 and the whole file, no validator, and no length unless asked for."""

    def answer(ask: Ask) -> Reply:
        whole = good_reply(replace(ask, span=None)).without("ETag", "Last-Modified")
        nbytes = whole.nbytes if length else None
        return replace(whole.with_headers(Accept_Ranges="none"), nbytes=nbytes)

    return Fault("no_ranges", answer)


def other_etag() -> Fault:
    """Send the bytes of another file of the same length, with its own validator."""
    return Fault("other_etag", lambda ask: good_reply(_other(ask)))


def _other(ask: Ask) -> Ask:
    content = replace(ask.content, etag='"another-file"', mask=ask.content.mask ^ 0x5A)
    return replace(ask, content=content)


def wrong_range() -> Fault:
    """Send a range of the right length from elsewhere, and say so in Content-Range."""

    def answer(ask: Ask) -> Reply:
        start, stop = ask.bounds
        if stop < ask.content.nbytes:
            span = start + 1, stop + 1
        else:
            span = (start - 1, stop - 1) if start else (start + 1, stop)
        return good_reply(replace(ask, span=span))

    return Fault("wrong_range", answer, lambda ask: ask.span is not None and ask.content.nbytes > 1)


def cut_range(most: int) -> Fault:
    """A range that is longer is answered with its beginning, said so, as a CDN may."""

    def answer(ask: Ask) -> Reply:
        start, stop = ask.bounds
        return good_reply(replace(ask, span=(start, min(stop, start + most))))

    return Fault("cut_range", answer, lambda ask: ask.span is not None and ask.nbytes > most)


def no_total() -> Fault:
    """The whole size is not said in the answer to a range."""

    def answer(ask: Ask) -> Reply:
        start, stop = ask.bounds
        return good_reply(ask).with_headers(Content_Range=f"bytes {start}-{stop - 1}/*")

    return Fault("no_total", answer, lambda ask: ask.span is not None)


def longer(by: int) -> Fault:
    """Say that the file has more bytes; they are zeros where the request reaches them."""
    return _resized("longer", by)


def shorter_total(by: int) -> Fault:
    """Say that the file has fewer bytes, and send no more than that."""
    return _resized("shorter_total", -by)


def _resized(name: str, by: int) -> Fault:
    def answer(ask: Ask) -> Reply:
        content = replace(ask.content, nbytes=ask.content.nbytes + by)
        start, stop = ask.bounds
        span = ask.span and (start, min(stop, content.nbytes))
        return good_reply(replace(ask, content=content, span=span))

    return Fault(name, answer, lambda ask: ask.bounds[0] < ask.content.nbytes + by)


def overrun(by: int) -> Fault:
    """Send a body, and a Content-Length, longer than the range that Content-Range names."""

    def answer(ask: Ask) -> Reply:
        good = good_reply(ask)
        return replace(good, chunks=_then(good.chunks, b"+" * by), nbytes=ask.nbytes + by)

    return Fault("overrun", answer)


def surplus(by: int) -> Fault:
    """Send bytes after the end of the body, where the next reply of the connection begins."""
    return Fault("surplus", lambda ask: replace(good_reply(ask), surplus=b"+" * by))


def _then(chunks: Iterable[bytes], last: bytes) -> Iterator[bytes]:
    yield from chunks
    yield last


def corrupt(offset: int) -> Fault:
    """Flip the byte at this offset of the file, in a request that covers it."""

    def answer(ask: Ask) -> Reply:
        return good_reply(replace(ask, content=replace(ask.content, flip=offset)))

    return Fault("corrupt", answer, lambda ask: ask.bounds[0] <= offset < ask.bounds[1])


def slow(bytes_per_s: int) -> Fault:
    """Send one body at a trickle."""
    return Fault("slow", lambda ask: replace(good_reply(ask), rate=bytes_per_s))


def gzip() -> Fault:
    """Pack the bytes, as a proxy does that was not asked to."""

    def answer(ask: Ask) -> Reply:
        good = good_reply(ask).with_headers(Content_Encoding="gzip")
        return replace(good, chunks=_packed(good.chunks), nbytes=None)

    return Fault("gzip", answer)


def _packed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()


def echoes() -> list[Fault]:
    """Repeat the link, whole or a part of it: in pages, headers, redirects, lists and files."""
    return [Fault(f"echo {name}", lambda ask, it=it: it(ask)) for name, it in _ECHOES.items()]


def _part(ask: Ask, start: int = 0, length: int = 70) -> str:
    query = ask.target.partition("?")[2]
    return query[start + query.index("Signature=") + 10 :][:length]


def _page(text: str, status: int = 200) -> Reply:
    return text_reply(status, f"<!DOCTYPE html><title>{text}</title>".encode(), "text/html")


def _filled(ask: Ask) -> Reply:
    """Send the link in place of the bytes, as many as there are to be."""
    text = ask.target.encode()
    return replace(good_reply(ask), chunks=[(text * (ask.nbytes // len(text) + 1))[: ask.nbytes]])


_ECHOES: dict[str, Callable[[Ask], Reply]] = {
    "in a page": lambda ask: _page(_part(ask)),
    "in a page, encoded": lambda ask: _page("".join(f"%{ord(c):02x}" for c in _part(ask, 3, 25))),
    "in a page, in words": lambda ask: _page(" ".join(_part(ask)[at : at + 20] for at in (0, 20))),
    "in an error": lambda ask: text_reply(
        500, f"<Error><Code>{_part(ask)}</Code></Error>".encode(), "application/xml"
    ),
    "as an ETag": lambda ask: good_reply(ask).with_headers(ETag=f'"{ask.target}"'),
    "as a date": lambda ask: good_reply(ask).without("ETag").with_headers(Last_Modified=_part(ask)),
    "as a range": lambda ask: good_reply(ask).with_headers(Content_Range=_part(ask)),
    "as a scheme": lambda ask: text_reply(302, b"", "text/html", Location=f"{_part(ask)[:30]}:/x"),
    "as a host": lambda ask: text_reply(
        302, b"", "text/html", Location=f"http://{_part(ask)[:30].replace('_', 'x')}.invalid/"
    ),
    "as a header's name": lambda ask: good_reply(ask).with_headers(**{f"a b{_part(ask)}": "x"}),
    "as a list": lambda ask: text_reply(200, f"{'0' * 32}  {_part(ask)}\n".encode(), "text/plain"),
    "as a false list": lambda ask: text_reply(200, f"{_part(ask)}\n".encode(), "text/plain"),
    "as a file": _filled,
    "as a file, in pieces": lambda ask: replace(
        _filled(ask), chunks=[bytes([byte]) for byte in b"".join(_filled(ask).chunks)]
    ),
}


def drop_connect() -> Fault:
    """Take a connection and close it at once; paths play no part."""
    return Fault("drop_connect", None)
