"""One connection to the broker that keeps itself up. The only module that knows the MQTT client library.

A ``Link`` owns one thread. It connects, tells what happens as events, subscribes again after every connect and tries
for ever. It speaks MQTT 5 and falls back to 3.1.1. What it does NOT know: what a message means. PUBACK is not
delivery (a broker may acknowledge and drop), so whoever needs certainty asks for a receipt in a message.
"""

from __future__ import annotations

import logging
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from device_runtime.edge.address import FOUND_LIMIT, HANGS_UP_AGAIN, TAKEN_OVER, parse_url, why_unreachable
from device_runtime.edge.attempts import Attempts
from device_runtime.edge.backoff import Backoff
from device_runtime.edge.bulk_client import BulkClient, Message, Sending
from device_runtime.edge.events import Arrived, Connected, Disconnected, Event, Frame, Will
from device_runtime.edge.fragments import ASSEMBLY_BYTES, Assembly, PacketLimit
from device_runtime.edge.library_client import new_client
from device_runtime.edge.outstanding import BulkQueue, Unacknowledged, wait_for
from device_runtime.edge.tls import context_for, problem_of, show
from device_runtime.edge.topic_rules import check_filter, check_topic
from device_runtime.edge.wakeup import Wakeup
from mas_edge.protocol.errors import BrokerError, MessageError

__all__ = ["Arrived", "Connected", "Disconnected", "Event", "Frame", "Link", "Will"]

log = logging.getLogger(__name__)

SESSION_EXPIRY_S = 24 * 3600  # a device that is off overnight still finds its control messages
MAX_QUEUED_BYTES = 4 * 1024 * 1024  # sixteen of the largest chunks: enough to fill any pipe, small on any device
MAX_QUEUED_MESSAGES = 10_000  # control messages that wait for the broker; beyond it something is wrong
FLUSH_S = 3.0  # how long stop() waits for the last acknowledgements, and then for the goodbye
_REFUSES = "%s: the broker refuses a %s (%s); correct its access rules"
_POLL_S = 1.0  # how often the thread looks at the keep-alive; data wakes it at once


class Link:
    """A connection to the broker at ``url`` under the name ``client_id``.

    ``on_event`` is called on the link's own thread and has to return fast; it may publish, but not send in bulk.
    With ``session_expiry_s`` 0, or over MQTT 3.1.1, the broker keeps nothing about this client after it has gone.
    A ``bulk`` link carries QoS 0 only, without a copy of what it carries: what arrives is told as ``Frame``; it has no
    session and no will.

    Attributes:
        sent_bytes, received_bytes: payloads and topics so far.

    Raises:
        BrokerError: the URL is malformed, or a file that it names cannot be used.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        on_event: Callable[[Event], None],
        *,
        will: Will | None = None,
        keepalive_s: int = 20,
        session_expiry_s: int = SESSION_EXPIRY_S,
        bulk: bool = False,
        assembly_bytes: int = ASSEMBLY_BYTES,
    ) -> None:
        self.address = parse_url(url)
        self.name = client_id
        self.sent_bytes = 0
        self.received_bytes = 0
        self._on_event = on_event
        self._will = will
        self._keepalive_s = keepalive_s
        self._session_expiry_s = session_expiry_s
        self._limit = PacketLimit(self.address.max_packet)
        self._assembly = Assembly(assembly_bytes)  # of the network thread
        self._is_bulk = bulk
        # The client library calls on_disconnect while it holds its own locks: there, and only there, neither ``_lock``
        # may be taken nor ``on_event`` be called.
        self._lock = threading.RLock()
        self._subscriptions: dict[str, int] = {}
        self._waiting: deque[tuple[str, bytes, int, bool, int]] = deque()  # until a protocol version has worked
        self._unacknowledged = Unacknowledged()
        self._bulk_lock = threading.Lock()
        self._bulk = BulkQueue(MAX_QUEUED_BYTES)
        self._connections = 0
        self._state = threading.Condition()  # wakes who waits for the connection or for the end
        self._connected = False
        self._refused_for_good = False
        self._stopping = False
        self._reason = "it has not answered yet"
        # What the network thread knows of its present attempt, and of the ones before.
        self._attempts = Attempts(self.address, client_id)
        self._give_up_at = 0.0
        self._told = ""
        self._connected_at = 0.0
        self._backoff = Backoff()
        self._tls = context_for(self.address) if self.address.tls else None
        self._client = self._new_client()
        self._thread: threading.Thread | None = None
        self._bell: Wakeup | None = None

    @property
    def connected(self) -> bool:
        """Whether the broker has let us in and the connection stands."""
        return self._connected

    @property
    def packet_limit(self) -> int:
        """Bytes of the largest packet that the broker carries, as far as we know; 0 = no limit is known."""
        return self._limit.known

    def start(self) -> None:
        """Begin to connect, and return at once. A link can be started once."""
        self._bell = bell = Wakeup()
        self._thread = threading.Thread(target=self._run, args=(bell,), name=f"mqtt {self.name}", daemon=True)
        self._thread.start()

    def wait_connected(self, timeout_s: float) -> None:
        """Wait until the broker has let us in.

        Raises:
            BrokerError: it has not within ``timeout_s`` seconds, or it refuses for good; says why and what to do.
        """
        with self._state:
            answered = self._state.wait_for(lambda: self._connected or self._refused_for_good, timeout_s)
            if self._connected:
                return
            after = "" if answered else f" within {timeout_s:g} s"
            message = f"cannot connect to the broker at {self.address}{after}: {self._reason}"
        raise BrokerError(message)

    def subscribe(self, topic: str, qos: int = 1) -> None:
        """Receive ``topic`` (wildcards allowed) from now on and after every reconnect.

        Raises:
            BrokerError: the topic is not a valid filter.
        """
        check_filter(topic)
        with self._lock:
            self._subscriptions[topic] = qos
            if self._connected:
                self._client.subscribe(topic, qos)

    def unsubscribe(self, topic: str) -> None:
        """Receive ``topic`` no longer."""
        with self._lock:
            known = self._subscriptions.pop(topic, None) is not None
            if known and self._connected:
                self._client.unsubscribe(topic)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, max_packet: int = 0) -> None:
        """Queue a message and return; with QoS 1 it survives reconnects, with QoS 0 it is lost when disconnected.

        ``max_packet`` is the largest packet that the receiver can take, 0 = as large as the broker carries.

        Raises:
            BrokerError: an invalid topic, more bytes than can be sent, or MAX_QUEUED_MESSAGES wait already.
        """
        check_topic(topic)
        if qos and self._is_bulk:
            message = f"a bulk link has no receipts: publish to {topic} with QoS 0, or on another link"
            raise BrokerError(message)
        with self._lock:
            if self._attempts.settled:
                self._publish_split(topic, payload, qos, retain, max_packet)
            elif qos:
                self._check_room(len(self._waiting) < MAX_QUEUED_MESSAGES)
                self._waiting.append((topic, payload, qos, retain, max_packet))

    def send_bulk(self, topic: str, payload: bytes | bytearray, *, max_packet: int = 0) -> None:
        """Send with QoS 0; wait while MAX_QUEUED_BYTES are still to be written. Does nothing when disconnected.

        Raises:
            BrokerError: as for publish, or called from ``on_event``, where waiting would wait for itself.
        """
        if threading.current_thread() is self._thread:
            message = (
                "send_bulk was called from on_event, on the thread that does the sending; call it from another one"
            )
            raise BrokerError(message)
        check_topic(topic)
        with self._bulk_lock:
            for piece in self._limit.split(topic, payload, max_packet):
                self._wait_for_room(len(piece))
                with self._lock:
                    if not self._connected or self._stopping:
                        return
                    self._bulk.add(self._connections, self._hand_over(topic, piece, 0, False), len(piece))

    def stop(self) -> None:
        """Say goodbye: queued messages first (for up to FLUSH_S seconds), then a clean disconnect: no last will."""
        on_own_thread = threading.current_thread() is self._thread
        if not on_own_thread:
            self._flush()
        with self._state:
            self._stopping = True
            self._state.notify_all()
        self._wake()
        if self._thread is not None and not on_own_thread:
            self._thread.join(2 * FLUSH_S)

    # --- sending: any thread ---------------------------------------------------------------------------------------

    def _publish_split(self, topic: str, payload: bytes, qos: int, retain: bool, max_packet: int) -> None:
        for piece in self._limit.split(topic, payload, max_packet, retain=retain):
            self._hand_over(topic, piece, qos, retain)

    def _hand_over(
        self, topic: str, payload: bytes | bytearray, qos: int, retain: bool
    ) -> paho.MQTTMessageInfo | Sending:
        if self._connected:
            self._limit.sent(len(topic) + len(payload), time.monotonic())
        info = self._client.publish(topic, payload, qos, retain)
        self._check_room(info.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE)
        taken = info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS
        if qos or taken:
            self.sent_bytes += len(topic) + len(payload)
        if qos and taken:
            self._unacknowledged.add(info)
        return info

    def _check_room(self, there_is: bool) -> None:
        if not there_is:
            message = (
                f"{MAX_QUEUED_MESSAGES} messages wait for the broker at {self.address} already: "
                f"it is away or too slow; last known: {self._reason}"
            )
            raise BrokerError(message)

    def _wait_for_room(self, size: int) -> None:
        """Wait until ``size`` more bytes fit below MAX_QUEUED_BYTES, or the connection is gone."""
        while self._connected and not self._stopping:
            if self._bulk.has_room(self._connections, size, wait_s=0.2):
                return

    def _flush(self) -> None:
        with self._lock:
            packets = self._unacknowledged.all()
        if self._connected:
            wait_for(packets, until=time.monotonic() + FLUSH_S)

    def _wake(self, *_: object) -> None:
        if self._bell is not None:
            self._bell.ring()

    # --- the network thread ------------------------------------------------------------------------------------------

    def _run(self, bell: Wakeup) -> None:
        while not self._stopping:
            self._try_once(bell)
            self._end_of_connection()
            if self._attempts.other_version:
                self._attempts.switch_version()
                self._renew_client()
            with self._state:
                self._state.wait_for(lambda: self._stopping, self._backoff.next_delay_s())
        bell.close()

    def _try_once(self, bell: Wakeup) -> None:
        """One connection from its beginning to its end; ``_attempts`` say afterwards why it ended."""
        attempts = self._attempts
        attempts.begin()
        try:
            if self._tls is not None:  # a certificate that was renewed counts from the next connection on
                show(self._tls, self.address.cert, self.address.key)
            self._client.reconnect()
            self._pump(bell)
        except BrokerError as error:
            attempts.ended = str(error)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be encoded
            attempts.ended = why_unreachable(error, self.address)
        except Exception:
            # Whatever the other side sent, this thread has to live on.
            log.exception("%s: the connection to %s failed unexpectedly", self.name, self.address)
            attempts.ended = f"the broker at {self.address} sent something that is not understood"
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def _pump(self, bell: Wakeup) -> None:
        """Move bytes until the connection ends."""
        sock: Any = self._client.socket()
        self._give_up_at = time.monotonic() + self._attempts.patience_s
        said_goodbye = False
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            selector.register(bell, selectors.EVENT_READ)
            while self._is_open(sock) and time.monotonic() < self._give_up_at:
                write = selectors.EVENT_WRITE if self._client.want_write() else 0
                selector.modify(sock, selectors.EVENT_READ | write)
                ready = {key.fileobj: events for key, events in selector.select(_POLL_S)}
                if bell in ready:
                    bell.heard()
                if ready.get(sock, 0) & selectors.EVENT_READ:
                    self._read(sock)
                if self._client.want_write():
                    self._client.loop_write()
                self._client.loop_misc()
                if self._stopping and not said_goodbye:
                    said_goodbye = True
                    self._client.disconnect()
                    self._give_up_at = time.monotonic() + (FLUSH_S if self._connected else 0.0)
        problem = problem_of(sock)
        if problem is not None and not self._attempts.answered:
            self._attempts.failed(why_unreachable(problem, self.address))
        if not self._attempts.answered and not self._attempts.ended:
            self._attempts.silent()

    def _is_open(self, sock: object) -> bool:
        return self._client.socket() is sock

    def _read(self, sock: Any) -> None:
        self._client.loop_read()
        # TLS decrypts whole records: what lies decrypted in memory does not make the socket readable.
        while self.address.tls and self._is_open(sock) and sock.pending():
            self._client.loop_read()

    def _end_of_connection(self) -> None:
        """Note that there is no connection now, and tell it, once per reason."""
        with self._state:
            was_connected, self._connected = self._connected, False
        attempts = self._attempts
        if was_connected:
            lasted_s = time.monotonic() - self._connected_at
            if self._limit.lost(time.monotonic(), too_large=attempts.too_large):
                attempts.ended = FOUND_LIMIT.format(address=self.address, limit=self._limit.known)
                self._backoff = Backoff()  # what ended the connections will not end the next one
                self._renew_client()
            if self._backoff.lost(lasted_s, explained=bool(attempts.ended)):
                attempts.ended = HANGS_UP_AGAIN.format(name=self.name, address=self.address)
        self._reason = attempts.ended or f"the connection to {self.address} was lost"
        if not self._stopping and (was_connected or self._reason != self._told):
            self._told = self._reason
            log.warning("%s: %s", self.name, self._reason)
            self._emit(Disconnected(self._reason))

    def _renew_client(self) -> None:
        """Forget what the old client would send again."""
        with self._lock:
            if self._unacknowledged:
                log.warning("%s: messages without acknowledgement are lost with the old session", self.name)
            self._unacknowledged.clear()
            self._client = self._new_client()

    def _emit(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception:
            log.exception("%s: the receiver of %s failed", self.name, type(event).__name__)

    # --- what the client library calls, on the network thread --------------------------------------------------------

    def _new_client(self) -> paho.Client | BulkClient:
        name, five = self.name + self.address.suffix, self._attempts.five
        client: paho.Client | BulkClient
        if self._is_bulk:
            client = bulk = BulkClient(self.address, name, self._keepalive_s, five=five, tls=self._tls)
            bulk.on_message = self._on_frame
        else:
            client = library = new_client(
                self.address, name, five=five, keepalive_s=self._keepalive_s, will=self._will, tls=self._tls,
                session_expiry_s=self._session_expiry_s, most_queued=MAX_QUEUED_MESSAGES,
            )  # fmt: skip
            library.on_message, library.on_publish = self._on_message, self._on_publish
        # That this is set also keeps the library from writing on the threads of our callers.
        client.on_socket_register_write = self._wake
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe = self._on_subscribe
        return client

    def _on_frame(self, _client: object, _data: object, message: Message) -> None:
        self.received_bytes += len(message.topic) + len(message.payload)
        payload = self._assembled(message.topic, message.payload)
        if payload is not None:
            self._emit(Frame(message.topic, memoryview(payload)))

    def _assembled(self, topic: str, payload: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview | None:
        try:
            return self._assembly.take(topic, payload)
        except MessageError as error:
            log.warning("%s: %s", self.name, error)
            return None

    def _on_connect(
        self, _client: object, _data: object, flags: paho.ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._give_up_at = float("inf")
        if code.is_failure:
            self._on_refusal(code)
            return
        self._limit.told = getattr(properties, "MaximumPacketSize", None) or 0
        with self._lock:
            self._attempts.let_in()
            self._connections += 1
            self._connected_at = time.monotonic()
            with self._state:
                self._connected, self._refused_for_good, self._told = True, False, ""
                self._state.notify_all()
            for topic, qos in self._subscriptions.items():
                self._client.subscribe(topic, qos)
            while self._waiting:
                self._say_waiting(*self._waiting.popleft())
        log.info("%s: connected to %s", self.name, self.address)
        self._emit(Connected(bool(flags.session_present)))

    def _say_waiting(self, topic: str, payload: bytes, qos: int, retain: bool, max_packet: int) -> None:
        try:
            self._publish_split(topic, payload, qos, retain, max_packet)
        except BrokerError as error:  # the limit was not known when it was published
            log.error("%s: not sent: %s", self.name, error)

    def _on_refusal(self, code: ReasonCode) -> None:
        for_good = self._attempts.refused(code.value, str(code))
        with self._state:
            self._reason, self._refused_for_good = self._attempts.ended, for_good
            self._state.notify_all()

    def _on_disconnect(
        self, _client: object, _data: object, flags: paho.DisconnectFlags, code: ReasonCode, _properties: object
    ) -> None:
        if self._attempts.ended:
            return
        if flags.is_disconnect_packet_from_server:
            self._attempts.ended_by_broker(code.value, str(code))
            if code.value == TAKEN_OVER:
                self._backoff.taken_over()
        else:
            self._attempts.hung_up()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("%s: a message on a topic that is not UTF-8 is dropped", self.name)
            return
        self.received_bytes += len(topic) + len(message.payload)
        payload = self._assembled(topic, bytes(message.payload))
        if payload is not None:
            self._emit(Arrived(topic, bytes(payload), bool(message.retain)))

    def _on_subscribe(
        self, _client: object, _data: object, _mid: int, codes: list[ReasonCode], _properties: object
    ) -> None:
        if any(code.is_failure for code in codes):
            log.error(_REFUSES, self.name, "subscription", codes[0])

    def _on_publish(self, _client: object, _data: object, _mid: int, code: ReasonCode, _properties: object) -> None:
        if code.is_failure:
            log.error(_REFUSES, self.name, "message", code)
