"""How a connection to a broker is encrypted."""

from __future__ import annotations

import ssl


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails; the MQTT client library would forget it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def client_context() -> ssl.SSLContext:
    """The system's certificate authorities; the host name is checked."""
    context = ssl.create_default_context()
    context.sslsocket_class = _Socket
    return context
