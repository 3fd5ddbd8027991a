"""One process's failure ends all of them, at once and with its message.

Every process holds a connection to a hub, a thread of the first one. A process that fails says so on it; one that is
killed says nothing, and the system closes its connection. Either way the hub tells everybody, and a thread in each
process ends it: the main thread may be waiting in a collective that nobody will ever complete. Nothing is sent while
all goes well.
"""

# SPDX-License-Identifier: Apache-2.0

import contextlib
import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from segfast.errors import OutputError, UserError

_ADDRESS = "segfast/hub"  # key in the store
_GRACE = 1.0  # seconds in which a death explains the errors it caused elsewhere
_LONGEST = 4000  # characters of a message
_REPORT = 3.0  # seconds that the process which failed has for its report, before the launcher sees the others end


class Wire:
    """This process's connection, and the hub in the first process.

    Args:
        store: a torch Store that all processes reach; used once, to find the hub.
        rank: of this process.
        processes: how many there are.
        host: under which the first process can be reached.
    """

    def __init__(self, store: Any, rank: int, processes: int, host: str) -> None:
        """Connect and start listening."""
        self.rank = rank
        self.note: Callable[[str], None] | None = None  # also told why all end
        self._decided, self._left = threading.Event(), False
        self._said = threading.Lock()
        if rank == 0:
            self._hub = _Hub(host)
            store.set(_ADDRESS, json.dumps([self._hub.port, self._hub.token]))
        port, token = json.loads(store.get(_ADDRESS))
        self._socket = socket.create_connection((host, port), timeout=60)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        os.register_at_fork(after_in_child=self._let_go)
        self._send(token=token, rank=rank)
        self._listener = threading.Thread(target=self._listen, name="segfast-wire", daemon=True)
        self._listener.start()

    def fail(self, error: BaseException) -> None:
        """Say that this process fails.

        Returns where the error is the first one, which this process is to report; otherwise the process ends here.
        """
        if self._left or not self._said.acquire(blocking=False):
            return
        self._send(failed=one_line(error), status=exit_status(error))
        self._decided.wait(timeout=10)

    def leave(self) -> None:
        """Say that this process is done; what happens to the others is no longer its concern.

        Waits until the hub has heard it: the first process's goodbye is the others', and the hub ends with it.
        """
        if not self._left:
            self._left = True
            self._send(bye=True)
            if threading.current_thread() is not self._listener:
                self._listener.join(timeout=5)

    def _let_go(self) -> None:
        """In a forked worker, which must not keep the connection open; the listener's file holds the socket."""
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile() as lines:
            for line in lines:
                message = json.loads(line)
                if "bye" in message:
                    self._left = True
                    return
                self._end(**message)
                return
        if not self._left and not sys.is_finalizing():
            self._end(0, None, 1)

    def _end(self, failed: int, text: str | None, status: int) -> None:
        """End this process, or let it report its own error."""
        if failed == self.rank:
            self._decided.set()
            return
        if self._left:
            return
        silent = text is None  # nobody is left to report it
        told = f"process {failed} {'ended without a message (killed? out of memory?)' if silent else f'failed: {text}'}"
        if self.note is not None:
            with contextlib.suppress(Exception):
                self.note(f"error: {told}; all processes end")
        if silent:
            if self.rank == (0 if failed else 1):
                sys.stderr.write(f"\nsegfast: error: {told}; all processes end\n")
            time.sleep(_REPORT / 10)  # the hub in this process may still be telling others
        else:
            time.sleep(_REPORT)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(status)

    def _send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")


class _Hub:
    """Listens to all processes; the first failure is everybody's.

    Strangers may connect where `host` is no loopback. They are told nothing, and dropped when what they say is not the
    token, or longer than one.

    Args:
        host: the interface to listen on, where it is the machine's own loopback; else all interfaces.
    """

    def __init__(self, host: str) -> None:
        """Listen."""
        self.token = secrets.token_hex(16)
        self._server = _server(host)
        self.port = self._server.getsockname()[1]
        self._ranks: dict[socket.socket, int | None] = {}  # None: has not said who it is
        os.register_at_fork(after_in_child=self._close)
        self._pending: dict[socket.socket, bytes] = {}
        self._failures: list[dict] = []
        self._deadline = float("inf")
        threading.Thread(target=self._run, name="segfast-hub", daemon=True).start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            while time.monotonic() < self._deadline:
                rest = self._deadline - time.monotonic()
                for key, _ in selector.select(None if rest == float("inf") else max(rest, 0)):
                    client: Any = key.fileobj
                    if client is self._server:
                        self._accept(selector)
                    elif not self._read(client):
                        selector.unregister(client)
                        client.close()
                        del self._pending[client]
        dead = [failure for failure in self._failures if failure["text"] is None]
        self._tell(**(dead or self._failures)[0])

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            client, _ = self._server.accept()
        except OSError:  # gone again, or no file descriptors left
            time.sleep(0.01)
            return
        client.settimeout(10)  # for what it is told: nobody may hold up the others
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._ranks[client], self._pending[client] = None, b""
        selector.register(client, selectors.EVENT_READ)

    def _read(self, client: socket.socket) -> bool:
        """Take what a process says; whether it is still there."""
        try:
            data = client.recv(65536)
        except OSError:
            data = b""
        if not data:
            rank = self._ranks.pop(client)
            if rank is not None:  # it did not say goodbye
                self._failed(rank, None, 1)
            return False
        *lines, self._pending[client] = (self._pending[client] + data).split(b"\n")
        try:
            heard = all(self._hear(client, json.loads(line)) for line in lines)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # a stranger
            heard = False
        if self._ranks.get(client) is None and len(self._pending[client]) > _LONGEST:
            heard = False
        if not heard:
            self._ranks.pop(client, None)
        return heard

    def _hear(self, client: socket.socket, message: dict) -> bool:
        """One message; whether the connection goes on."""
        if self._ranks[client] is None:
            if not secrets.compare_digest(str(message["token"]).encode(), self.token.encode()):
                return False
            self._ranks[client] = message["rank"]
        elif "bye" in message:
            if self._ranks.pop(client) == 0:  # the hub goes with its process
                self._tell(bye=True)
            return False
        elif "failed" in message:
            self._failed(self._ranks[client], message["failed"], message["status"])
        return True

    def _close(self) -> None:
        for connection in (self._server, *self._ranks):
            connection.close()

    def _failed(self, rank: int | None, text: str | None, status: int) -> None:
        self._failures.append({"failed": rank, "text": text, "status": status})
        self._deadline = min(self._deadline, time.monotonic() + _GRACE)

    def _tell(self, **message: Any) -> None:
        """All that are known; last those that may end this process, and the hub with it."""
        line = json.dumps(message).encode() + b"\n"
        last = (0, message.get("failed"))
        known = [(rank in last, client) for client, rank in self._ranks.items() if rank is not None]
        for _, client in sorted(known, key=lambda entry: entry[0]):
            with contextlib.suppress(OSError):
                client.sendall(line)


def _server(host: str) -> socket.socket:
    """A listening socket, on a port that the system chooses."""
    if host in ("localhost", "127.0.0.1"):
        return socket.create_server(("127.0.0.1", 0), backlog=1024)
    if host == "::1":
        return socket.create_server((host, 0), family=socket.AF_INET6, backlog=1024)
    if socket.has_dualstack_ipv6():
        family = socket.AF_INET6
        return socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=True)
    return socket.create_server(("", 0), backlog=1024)


def exit_status(error: BaseException) -> int:
    """What a program that ends with that error returns to the shell."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UserError) and not isinstance(error, OutputError) else 1


def one_line(error: BaseException) -> str:
    """An error's text, with its kind where it is not one of ours."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, UserError) else f"{type(error).__name__}: {text}")[:_LONGEST]
