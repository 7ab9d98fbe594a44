"""Has large request bodies read by ``body_worker``, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import llamakit
from llamakit.errors import InvalidJSONError
from llamakit.files.json_reader import parse_json_again
from llamakit.serve.api_errors import ApiError
from llamakit.serve.body_check import BodyLimits, CheckedBody
from llamakit.serve.body_worker import PREFIX

MOST_SECONDS = 60.0
"""For one body: a megabyte takes one second, and longer beside busy programs."""
_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""What Python may need to start; the process knows no keys."""
# A process group of its own: the terminal's Ctrl-C is not for it.
_PROGRAM = """
import os, sys
os.setpgid(0, 0) if hasattr(os, "setpgid") else None
sys.path[:] = sys.argv[2:]
from llamakit.serve.body_worker import main
main(sys.argv[1])
"""


class BodyProcess:
    """The process that reads large bodies. For one event loop, one body at a time.

    It is started for the first body and stays. If it ends, the next body starts another.
    """

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None

    async def read(self, data: bytes, encoding: str, path: str) -> CheckedBody:
        """Parse and check a body. Arguments and exceptions as ``checked_body``."""
        was_idle = self._process is not None
        try:
            reply = await asyncio.wait_for(self._exchange(data, encoding, path), MOST_SECONDS)
            answer = parse_json_again(reply)
        except (OSError, EOFError, asyncio.TimeoutError, InvalidJSONError) as error:
            await self.close()
            if was_idle and isinstance(error, (ConnectionError, EOFError)):
                return await self.read(data, encoding, path)  # somebody may have ended it before
            raise ApiError(
                413,
                "the body needs more memory or time than the server has for it",
                code="request_too_large",
            ) from error
        except asyncio.CancelledError:
            await self.close()  # its reply would be taken for the next one's
            raise
        return _body(answer)

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()

    async def _exchange(self, data: bytes, encoding: str, path: str) -> bytes:
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        for part in (encoding.encode(), path.encode(), data):
            process.stdin.write(len(part).to_bytes(PREFIX, "big"))
            process.stdin.write(part)
        await process.stdin.drain()
        prefix = await process.stdout.readexactly(PREFIX)
        return await process.stdout.readexactly(int.from_bytes(prefix, "big"))

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            places = [str(Path(llamakit.__file__).parents[1]), *map(os.path.abspath, sys.path)]
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _PROGRAM),
                *(json.dumps(asdict(self._limits)), *places),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )
        return self._process


def _body(answer: dict[str, Any]) -> CheckedBody:
    """Return the body of a reply.

    Raises:
        ApiError: the reply says what is wrong.
    """
    if "body" in answer:
        return CheckedBody(answer["body"], answer["ignored"])
    status, message = answer.pop("status"), answer.pop("message")
    raise ApiError(status, message, **answer)
