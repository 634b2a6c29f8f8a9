"""Connections that do not hold a server up: a time for a request's head, and so many connections at once."""

from __future__ import annotations

import asyncio
from typing import Any

HEAD_SECONDS = 10.0  # from a request's first byte, or from the connection, to the end of its head
CONNECTIONS = 64


def protocol(seconds: float = HEAD_SECONDS, max_connections: int = CONNECTIONS) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, which closes a connection whose request's head is not whole after ``seconds``, and any
    connection beyond ``max_connections``.  uvicorn itself waits for a head without end.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Bounded(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.close()
            else:
                self._expect()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _expect(self) -> None:
            """Start the timeout while a request's head is incomplete, stop it while a request is being answered."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._late is None:
                self._late = self.loop.call_later(seconds, self._expire)

        def _expire(self) -> None:
            self._late = None
            if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
                self.transport.close()

        def _stop(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Bounded
