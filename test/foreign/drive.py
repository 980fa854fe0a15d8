#!/usr/bin/env python3
"""Drive a daemon through its control socket as a foreign program would.

usage: drive.py SOCKET

Needs a daemon that serves Echo and lets a user listen and export a key. Prints
one line for each check; exits 1 at the first that fails.
"""

import os
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fastn_client import MAX_LINE, Client, Connection, FastnError, Listener  # noqa: E402


def expect(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, want {want!r}")


def expect_error(code, function, *args, **members):
    try:
        got = function(*args, **members)
    except FastnError as e:
        expect(e.code, code, e.message)
        return e
    raise AssertionError(f"got {got!r}, want error {code}")


def hello(path):
    client = Client(path)
    answer = client.hello()
    expect(answer["version"], 1, "version")
    expect(answer["uid"], os.getuid(), "uid")
    client.close()


def seed_shapes(path):
    with Connection(path) as conn:
        conn.send_line(b'{"id":"uuid","type":"call","target":"self","protocol":"Echo","data":{"message":"hello"}}\n')
        while b"\n" not in conn.received:
            conn.received += conn.sock.recv(4096)
        expect(conn.received, b'{"id":"uuid","status":"ok","data":{"echoed":"Echo: hello"}}\n', "call")
        conn.received = b""
        conn.send_line(b'{"id":"uuid","type":"stream","target":"self","protocol":"Echo","data":{"command":"interactive_shell"}}\n')
        while b"\n" not in conn.received:
            conn.received += conn.sock.recv(4096)
        expect(conn.received, b'{"id":"uuid","status":"streaming"}\n', "stream")


def call(path):
    client = Client(path)
    expect(client.call("self", "Echo", {"message": "hällo"}), {"echoed": "Echo: hällo"}, "call")
    ids = [client.start("call", target="self", protocol="Echo", data={"message": str(i)}) for i in range(100)]
    for i, request_id in reversed(list(enumerate(ids))):
        expect(client.wait(request_id), {"echoed": f"Echo: {i}"}, "answer out of order")
    client.close()


def errors(path):
    client = Client(path)
    expect_error("bad_request", client.call, "self", "Echo", {"message": ""})
    expect_error("not_found", client.call, "no-such-contact", "Echo", {"message": "x"})
    e = expect_error("unsupported", client.request, "identity.lsit")
    expect("identity.list" in e.hint, True, e.hint)
    expect_error("bad_request", client.request, "hello", target="self")
    expect_error("not_found", client.request, "accept", incoming="123e4567-e89b-42d3-a456-426614174000")
    expect_error("not_found", client.request, "stream.result", stream="123e4567-e89b-42d3-a456-426614174000")
    expect(client.hello()["version"], 1, "the connection still works")
    client.close()
    with Connection(path) as conn:
        for line in (b"hello\n", b'{"id":1,"type":"hello"}\n', b'{"id":"a","id":"b","type":"hello"}\n', b'{"type":"\xff"}\n'):
            conn.send_line(line)
            answer = conn.receive()
            expect(answer["code"], "bad_request", line)
        conn.send_line(b'\n\r\n{"id":"1","type":"hello"}\r\n')
        expect(conn.receive()["id"], "1", "behind empty lines")
        conn.send_line(b"x" * (MAX_LINE + 1))
        expect(conn.receive()["code"], "too_large", "a long line")
        expect(conn.receive(), None, "behind a long line")
    expect_error("unavailable", Client, path + ".not-there")


def stream(path):
    client = Client(path)
    s = client.stream("self", "Echo")
    sent = os.urandom(3 << 20)
    writer = threading.Thread(target=lambda: (s.write(sent), s.close_write()))
    writer.start()
    got = s.read_all()
    writer.join()
    expect(got == sent, True, "the bytes of the stream")
    s.close()
    expect(client.stream_result(s), {"clean": True}, "result")
    expect_error("conflict", client.stream, "self", "Echo", stream=s.id)

    s = client.stream("self", "Echo")
    s.write(b"some")
    client.stream_reset(s)
    s.read_all()
    result = client.stream_result(s)
    expect((result["clean"], result["code"]), (False, "aborted"), "result of a reset")
    s.close()
    client.close()


def early_bytes(path):
    with Connection(path) as conn:
        conn.send_line(b'{"id":"1","type":"stream","target":"self","protocol":"Echo"}\nearly')
        expect(conn.receive()["code"], "bad_request", "early bytes")


def listen(path):
    protocol = f"Foreign-{os.getpid()}"
    listener = Listener(path, protocol)
    client = Client(path)
    expect_error("conflict", client.request, "listen", protocol=protocol)

    number = client.start("call", target="self", protocol=protocol, data={"n": 9007199254740993})
    incoming = listener.next()
    expect((incoming["kind"], incoming["data"]), ("call", {"n": 9007199254740993}), "incoming")
    listener.reply(incoming["incoming"], data=[incoming["data"]["n"]])
    expect(client.wait(number), [9007199254740993], "reply")

    number = client.start("call", target="self", protocol=protocol)
    listener.reply(listener.next()["incoming"], error={"code": "not_found", "message": "no such thing", "hint": "look elsewhere"})
    e = expect_error("not_found", client.wait, number)
    expect((e.message, e.hint), ("no such thing", "look elsewhere"), "error of a program")

    result = {}
    opener = threading.Thread(target=lambda: result.update(stream=Client(path).stream("self", protocol)))
    opener.start()
    incoming = listener.next()
    expect(incoming["kind"], "stream", "incoming")
    theirs = client.accept(incoming["incoming"])
    opener.join()
    ours = result["stream"]
    ours.write(b"there")
    ours.close_write()
    expect(theirs.read_all(), b"there", "to the program")
    theirs.write(b"and back")
    theirs.close_write()
    expect(ours.read_all(), b"and back", "from the program")
    expect(client.stream_result(ours), {"clean": True}, "result of the caller")
    expect(client.stream_result(theirs), {"clean": True}, "result of the program")

    number = client.start("call", target="self", protocol=protocol, timeout_ms=50)
    incoming = listener.next()
    expect_error("timeout", client.wait, number)
    expect(listener.next().get("cancel"), True, "told that the caller gave up")
    expect_error("not_found", listener.reply, incoming["incoming"], data=1)

    listener.close()
    for s in (ours, theirs, client):
        s.close()


def descriptors(path):
    client = Client(path)
    name = client.request("identity.list")
    if not name:
        client.call("self", "Echo", {"message": "makes the first identity"})
        name = client.request("identity.list")
    name = name[0]["name"]
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "key"), "xb", opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
            client.request("identity.export", files=[f], data={"identity": name})
            expect(os.fstat(f.fileno()).st_size > 0, True, "something was written")
            expect_error("bad_request", client.request, "identity.export", data={"identity": name})
            expect_error("bad_request", client.request, "hello", files=[f])
            expect_error("bad_request", client.request, "identity.export", files=[f] * 5, data={"identity": name})
    client.close()


def subscribe(path):
    with Connection(path) as conn:
        conn.send({"id": "s", "type": "subscribe"})
        answer = conn.receive()
        expect((answer["status"], isinstance(answer["data"]["cursor"], int)), ("ok", True), "subscribe")


def main(args):
    if len(args) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    for check in (hello, seed_shapes, call, errors, stream, early_bytes, listen, descriptors, subscribe):
        check(args[1])
        print("ok", check.__name__, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
