"""One HTTP connection: read in turns, timed, and closed where its framing can be misread."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from llamakit.serve.api_errors import bad
from llamakit.serve.client_identity import client_of_address
from llamakit.serve.connections import Connections
from llamakit.serve.request_ids import REQUEST_ID_HEADER, new_request_id
from llamakit.serve.turns import Charged, Turns

SLICE = 16 << 10
"""Bytes that are parsed in one turn, at first; bodies in chunks of a byte take 1 us a byte."""
MOST_SLICE = 256 << 10
TURN_SECONDS = 0.001
"""A turn that takes longer halves the next slice of the connection."""
UNPARSED, UNPARSED_LATE = 64 << 10, 4 << 10
"""Bytes that may wait for their turn; no more are received while so many do, the second if it is
not soon. Where fewer wait, it is noticed that the client has gone, and they are not parsed."""


class HttpProtocol(H11Protocol):
    """A connection whose bytes are parsed when it is its client's turn.

    It is closed if the head of a request does not arrive in time.

    Args:
        arrival: seconds for a head to arrive.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        arrival: float,
        open_connections: Connections,
        turns: Turns,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.client_id = ""
        self._arrival, self._table, self._turns = arrival, open_connections, turns
        self._deadline: asyncio.TimerHandle | None = None
        self._unparsed = bytearray()
        self._slice = SLICE
        self._has_turn = self._has_events = False
        answer = self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["llamakit.connection"] = self
            self._turns.began(client := self.client_id)
            try:
                await Charged(self._turns, client, answer(scope, receive, send))
            finally:
                self._turns.ended(client)

        self.app = app

    # The table of connections -------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether the connection waits for its client: for a request, its end, or a reader."""
        if self._has_turn or self._unparsed:
            return False
        if self.cycle is None or self.cycle.response_complete:
            return True
        return self.cycle.more_body or self.flow.write_paused

    def give_up(self) -> None:
        """Close the connection in favor of another one."""
        if self.cycle is None or (self.cycle.response_complete and not self.flow.write_paused):
            self.transport.close()
        else:
            self.transport.abort()

    # What asyncio calls -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Count the connection, and expect the head of a request."""
        super().connection_made(transport)
        self.client_id = client_of_address(self.client[0] if self.client else "")
        self.flow = _Flow(self)
        if not self._table.add(self):
            transport.abort()
            return
        self._update_deadline()

    def data_received(self, data: bytes) -> None:
        """Keep bytes for the next turn."""
        self._unset_keepalive_if_required()
        self._unparsed += data
        self.update()

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever waits for the connection."""
        self._table.discard(self)
        self._clear_deadline()
        self._unparsed.clear()
        super().connection_lost(exc)

    # Turns --------------------------------------------------------------------------------------

    def update(self) -> None:
        """Wait for a turn if there is something to parse; receive more if little is waiting."""
        if self.transport.is_closing():
            return
        has_work = bool(self._unparsed or self._has_events) and not self.flow.read_paused
        if has_work and not self._has_turn:
            self._has_turn = True
            self._turns.put(self.client_id, self._take_turn)
        is_late = self._has_turn and self._turns.delay(self.client_id) > 0
        most = UNPARSED_LATE if is_late else UNPARSED
        if self.flow.read_paused or len(self._unparsed) > most:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def handle_events(self) -> None:
        """Parse what has been received, at the next turn: uvicorn calls this after a response."""
        self._has_events = True
        self.update()

    def _take_turn(self) -> None:
        """Parse what h11 holds of earlier bytes, else the next slice."""
        had_events, self._has_turn, self._has_events = self._has_events, False, False
        if self.transport.is_closing():
            return
        began = self.loop.time()
        if not had_events:
            self.conn.receive_data(bytes(self._unparsed[: self._slice]))
            del self._unparsed[: self._slice]
        super().handle_events()
        self._adapt(self.loop.time() - began)
        self._update_deadline()
        self.update()

    def _adapt(self, seconds: float) -> None:
        """Choose how much is parsed next: an event of one byte takes as long as a large one."""
        if seconds > TURN_SECONDS:
            self._slice = max(256, self._slice // 2)
        else:
            self._slice = min(MOST_SLICE, self._slice * 2)

    # Framing ------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Respond to invalid HTTP with an error in the API's format, if it is not answered yet."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # it may not respond as well
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = json.dumps(bad(msg.rstrip(".").lower(), code="invalid_http").body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (REQUEST_ID_HEADER.encode(), new_request_id().encode()),
            (b"connection", b"close"),
        ]
        head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        is_head = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
        for event in (head, h11.Data(data=b"" if is_head else body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    # Time ---------------------------------------------------------------------------------------

    def _update_deadline(self) -> None:
        """Set a deadline while the head of a request is incomplete; clear it afterwards."""
        if self.conn.their_state is not h11.IDLE:
            self._clear_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._arrival, self._close)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        if self.conn.their_state is h11.IDLE and self.transport is not None:
            self.transport.close()


class _Flow(FlowControl):
    """Notes whether more of a request is wanted; the connection receives accordingly."""

    def __init__(self, connection: HttpProtocol) -> None:
        super().__init__(connection.transport)
        self._connection = connection

    def pause_reading(self) -> None:
        self.read_paused = True
        self._connection.update()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._connection.update()
