"""A client of the fastn daemon, written from service/api/PROTOCOL.md alone.

Python's standard library only. One thread uses a Client at a time.
"""

import array
import itertools
import json
import os
import socket
import uuid

MAX_LINE = 1 << 20


class FastnError(Exception):
    """An answer with status "error"; code tells programs what went wrong."""

    def __init__(self, code, message, hint=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def socket_path(environ=os.environ):
    """The daemon's socket, section 1 of PROTOCOL.md."""
    if environ.get("FASTN_SOCKET"):
        return environ["FASTN_SOCKET"]
    if environ.get("FASTN_HOME"):
        return os.path.join(environ["FASTN_HOME"], "daemon.sock")
    system = "/run/fastn/daemon.sock"
    own = os.path.expanduser("~/.fastn/daemon.sock")
    if not os.access(system, os.W_OK) and os.path.exists(own):
        return own
    return system


class Connection:
    """Lines to and from the daemon."""

    def __init__(self, path, timeout=30):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.received = b""
        try:
            self.sock.connect(path)
        except OSError as e:
            self.sock.close()
            raise FastnError("unavailable", f"cannot reach the fastn daemon at {path}: {e}") from e

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def send_line(self, line, files=()):
        """Send bytes as one line, with descriptors on its first byte."""
        if files:
            rights = array.array("i", [f if isinstance(f, int) else f.fileno() for f in files])
            sent = self.sock.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            line = line[sent:]
        self.sock.sendall(line)

    def send(self, request, files=()):
        # ensure_ascii=False would be right too; escapes are the same text to the daemon.
        self.send_line(json.dumps(request).encode() + b"\n", files)

    def receive(self):
        """The next answer, or None at the end of the connection."""
        while b"\n" not in self.received:
            part = self.sock.recv(65536)
            if not part:
                return None
            self.received += part
        line, self.received = self.received.split(b"\n", 1)
        return json.loads(line)


class Stream:
    """Raw bytes both ways; what came behind "streaming" is read first."""

    def __init__(self, conn, stream_id):
        self.conn = conn
        self.id = stream_id

    def write(self, data):
        self.conn.sock.sendall(data)

    def close_write(self):
        self.conn.sock.shutdown(socket.SHUT_WR)

    def read(self, size=65536):
        """At most size bytes; b"" at the end, and where the stream was aborted."""
        if self.conn.received:
            data, self.conn.received = self.conn.received[:size], self.conn.received[size:]
            return data
        return self.conn.sock.recv(size)

    def read_all(self):
        return b"".join(iter(self.read, b""))

    def close(self):
        self.conn.close()


class Client:
    """Calls, verbs and streams. Events of listeners are in Listener."""

    def __init__(self, path=None):
        self.path = path or socket_path()
        self.conn = Connection(self.path)
        self.ids = map(str, itertools.count(1))
        self.early = {}  # answers that came before they were waited for

    def close(self):
        self.conn.close()

    def start(self, type_, files=(), **members):
        """Send a request and return its id."""
        request_id = next(self.ids)
        self.conn.send({"id": request_id, "type": type_, **members}, files)
        return request_id

    def wait(self, request_id):
        """The data of the answer to a request."""
        while request_id not in self.early:
            answer = self.conn.receive()
            if answer is None:
                raise FastnError("outcome_unknown", "the connection broke before the answer")
            if answer["id"] is None:
                raise error_of(answer)
            self.early[answer["id"]] = answer
        answer = self.early.pop(request_id)
        if answer["status"] == "error":
            raise error_of(answer)
        return answer.get("data")

    def request(self, type_, files=(), **members):
        return self.wait(self.start(type_, files, **members))

    def hello(self):
        return self.request("hello", data={"client": "fastn_client.py", "version": 1})

    def call(self, target, protocol, data, **members):
        return self.request("call", target=target, protocol=protocol, data=data, **members)

    def stream(self, target, protocol, **members):
        stream_id = members.setdefault("stream", str(uuid.uuid4()))
        return open_raw(self.path, stream_id, type="stream", target=target, protocol=protocol, **members)

    def accept(self, incoming):
        return open_raw(self.path, incoming, type="accept", incoming=incoming)

    def stream_result(self, stream):
        return self.request("stream.result", stream=stream.id)

    def stream_reset(self, stream):
        return self.request("stream.reset", stream=stream.id)


def open_raw(path, stream_id, **request):
    conn = Connection(path)
    try:
        conn.send({"id": "1", **request})
        answer = conn.receive()
        if answer is None:
            raise FastnError("outcome_unknown", "the connection broke before the answer")
        if answer["status"] != "streaming":
            raise error_of(answer)
    except BaseException:
        conn.close()
        raise
    return Stream(conn, stream_id)


class Listener:
    """Serves a protocol until it is closed."""

    def __init__(self, path, protocol, **members):
        self.path = path
        self.conn = Connection(path)
        self.waiting = []
        self.ids = map(str, itertools.count(1))
        self.expect("listen", {"id": "listen", "type": "listen", "protocol": protocol, **members})

    def expect(self, request_id, request):
        """Send a request; keep what comes in before its answer."""
        self.conn.send(request)
        while True:
            answer = self.conn.receive()
            if answer is None:
                raise FastnError("outcome_unknown", "the connection broke before the answer")
            if answer["status"] == "incoming":
                self.waiting.append(answer["data"])
                continue
            if answer["status"] == "error":
                raise error_of(answer)
            assert answer["id"] == request_id, answer
            return answer.get("data")

    def next(self):
        if self.waiting:
            return self.waiting.pop(0)
        answer = self.conn.receive()
        if answer is None:
            return None
        assert answer["status"] == "incoming", answer
        return answer["data"]

    def reply(self, incoming, **data_or_error):
        request_id = next(self.ids)
        self.expect(request_id, {"id": request_id, "type": "reply", "incoming": incoming, **data_or_error})

    def close(self):
        self.conn.close()


def error_of(answer):
    return FastnError(answer["code"], answer["data"], answer.get("hint"))
