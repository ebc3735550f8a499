"""Protocol 1 between processes of today: a proxy that lets through only what a peer of protocol 1 knew.

It stands between services or clients and the broker. Headers say protocol 1, HELLO offers nothing newer, records lose
every field that protocol 1 did not have (as its reader would skip them, and its writer never wrote them), and a type of
message that protocol 1 did not know is a violation. What it had is read from the golden messages of tests/data/proto:
TYPE-N.bin is an older form of TYPE.bin. libzmq through ctypes, msgpack by hand: standard library only."""
import ctypes
import pathlib
import re
import struct
import threading

from fleet import SOURCE

GOLDENS = SOURCE / "tests" / "data" / "proto"
NEW_TYPES = {"SEEN", "KNOWN"}


# ---- msgpack ----

class Float32(float):
    pass


def unpack(data, at=0):
    """One value: (value, end). Maps keep their order; bin is bytes."""
    c = data[at]
    at += 1

    def take(code, size):
        return struct.unpack_from(">" + code, data, at)[0], at + size

    def body(n, at, make):
        return make(data[at:at + n]), at + n

    def sequence(n, at):
        out = []
        for _ in range(n):
            value, at = unpack(data, at)
            out.append(value)
        return out, at

    def mapping(n, at):
        pairs, at = sequence(2 * n, at)
        return dict(zip(pairs[::2], pairs[1::2])), at

    if c < 0x80:
        return c, at
    if c < 0x90:
        return mapping(c & 15, at)
    if c < 0xa0:
        return sequence(c & 15, at)
    if c < 0xc0:
        return body(c & 31, at, lambda b: b.decode())
    if c >= 0xe0:
        return c - 256, at
    if c in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[c], at
    if c == 0xca:
        value, at = take("f", 4)
        return Float32(value), at
    numbers = {0xcb: ("d", 8), 0xcc: ("B", 1), 0xcd: ("H", 2), 0xce: ("I", 4), 0xcf: ("Q", 8), 0xd0: ("b", 1),
               0xd1: ("h", 2), 0xd2: ("i", 4), 0xd3: ("q", 8)}
    if c in numbers:
        return take(*numbers[c])
    sized = {0xc4: ("B", 1, bytes), 0xc5: ("H", 2, bytes), 0xc6: ("I", 4, bytes), 0xd9: ("B", 1, None),
             0xda: ("H", 2, None), 0xdb: ("I", 4, None)}
    if c in sized:
        code, size, make = sized[c]
        n, at = take(code, size)
        return body(n, at, make or (lambda b: b.decode()))
    lists = {0xdc: ("H", 2, sequence), 0xdd: ("I", 4, sequence), 0xde: ("H", 2, mapping), 0xdf: ("I", 4, mapping)}
    code, size, make = lists[c]
    n, at = take(code, size)
    return make(n, at)


def pack(value):
    def head(n, small, codes):
        if small is not None and n < small[1]:
            return bytes([small[0] | n])
        for code, letter, most in codes:
            if n <= most:
                return bytes([code]) + struct.pack(">" + letter, n)
        raise ValueError(n)

    if value is None or value is True or value is False:
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, Float32):
        return b"\xca" + struct.pack(">f", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, int) and value >= 0:
        return head(value, (0, 128), [(0xcc, "B", 0xff), (0xcd, "H", 0xffff), (0xce, "I", 0xffffffff),
                                      (0xcf, "Q", 2 ** 64 - 1)])
    if isinstance(value, int):
        return b"\xd3" + struct.pack(">q", value)
    if isinstance(value, bytes):
        return head(len(value), None, [(0xc4, "B", 0xff), (0xc5, "H", 0xffff), (0xc6, "I", 0xffffffff)]) + value
    if isinstance(value, str):
        raw = value.encode()
        return head(len(raw), (0xa0, 32), [(0xd9, "B", 0xff), (0xda, "H", 0xffff), (0xdb, "I", 0xffffffff)]) + raw
    if isinstance(value, list):
        return head(len(value), (0x90, 16), [(0xdc, "H", 0xffff), (0xdd, "I", 0xffffffff)]) + b"".join(map(pack, value))
    pairs = b"".join(pack(k) + pack(v) for k, v in value.items())
    return head(len(value), (0x80, 16), [(0xde, "H", 0xffff), (0xdf, "I", 0xffffffff)]) + pairs


# ---- what protocol 1 knew ----

def golden(path):
    """(type of message, record) of a golden file."""
    data, frames = path.read_bytes(), []
    while data:
        n = struct.unpack_from("<I", data)[0]
        frames.append(data[4:4 + n])
        data = data[4 + n:]
    return frames[0][3], unpack(frames[1])[0]


def shape(value):
    """The keys of a record, nested ones as dicts; lists show their first element's."""
    if isinstance(value, list):
        return shape(value[0]) if value else None
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return None


def known_of_protocol_1():
    """Type number -> (name, keys, version of the record)."""
    out = {}
    for path in sorted(GOLDENS.glob("[A-Z]*.bin")):
        name = re.sub(r"-\d+$", "", path.stem)
        if name in NEW_TYPES or path.stem != name:
            continue
        older = sorted(GOLDENS.glob(f"{name}-[0-9].bin"))
        kind, record = golden(older[-1] if older else path)
        out[kind] = (name, shape(record), record["v"])
    return out


def only(value, keys):
    if isinstance(value, list):
        return [only(inner, keys) for inner in value]
    if isinstance(value, dict) and keys is not None:
        return {key: only(inner, keys[key]) for key, inner in value.items() if key in keys}
    return value


# ---- the proxy ----

DEALER, ROUTER, ROUTING_ID, LINGER, RCVMORE, ROUTER_MANDATORY = 5, 6, 5, 17, 13, 33
POLLIN, DONTWAIT, SNDMORE = 1, 1, 2


class PollItem(ctypes.Structure):
    _fields_ = [("socket", ctypes.c_void_p), ("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


def load():
    zmq = ctypes.CDLL("libzmq.so.5", use_errno=True)
    for name in ("zmq_ctx_new", "zmq_socket"):
        getattr(zmq, name).restype = ctypes.c_void_p
    zmq.zmq_socket.argtypes = [ctypes.c_void_p, ctypes.c_int]
    for name in ("zmq_bind", "zmq_connect"):
        getattr(zmq, name).argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("zmq_close", "zmq_ctx_term"):
        getattr(zmq, name).argtypes = [ctypes.c_void_p]
    zmq.zmq_setsockopt.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    zmq.zmq_getsockopt.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    zmq.zmq_send.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    zmq.zmq_recv.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    zmq.zmq_poll.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long]
    return zmq


class Proxy:
    """Between `near` (bound here) and `far` (the broker's), until close(). seen: names of types that passed."""

    def __init__(self, near, far):
        self.zmq, self.far = load(), far.encode()
        self.known, self.dealers = known_of_protocol_1(), {}
        self.seen, self.dropped, self.violations = set(), set(), []
        self.is_closed, self.buffer = False, ctypes.create_string_buffer(33 << 20)
        self.context = self.zmq.zmq_ctx_new()
        self.router = self.socket(ROUTER)
        assert self.zmq.zmq_bind(self.router, near.encode()) == 0, near
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def socket(self, kind, identity=None):
        s = self.zmq.zmq_socket(self.context, kind)
        none = ctypes.c_int(0)
        self.zmq.zmq_setsockopt(s, LINGER, ctypes.byref(none), 4)
        if identity:
            self.zmq.zmq_setsockopt(s, ROUTING_ID, identity, len(identity))
        return s

    def receive(self, s):
        frames, more, size = [], ctypes.c_int(1), ctypes.c_size_t(4)
        while more.value:
            n = self.zmq.zmq_recv(s, self.buffer, len(self.buffer), DONTWAIT if not frames else 0)
            if n < 0:
                return None
            frames.append(self.buffer.raw[:n])
            self.zmq.zmq_getsockopt(s, RCVMORE, ctypes.byref(more), ctypes.byref(size))
        return frames

    def send(self, s, frames):
        for i, frame in enumerate(frames):
            self.zmq.zmq_send(s, frame, len(frame), SNDMORE if i + 1 < len(frames) else 0)

    def as_protocol_1(self, frames, is_to_broker):
        head, record = frames[0], unpack(frames[1])[0]
        kind = head[3]
        if kind not in self.known:
            self.violations.append(f"type {kind} in a header of protocol {head[2]}")
            return None
        name, keys, version = self.known[kind]
        if head[2] != 1:
            self.violations.append(f"{name} in a header of protocol {head[2]}")
        self.seen.add(name)
        older = only(record, keys)
        older["v"] = version
        self.dropped |= {f"{name}.{key}" for key in record.keys() - older.keys()}
        if name == "HELLO" and is_to_broker:
            older["proto_max"] = 1
        return [head[:2] + b"\1" + head[3:], pack(older), *frames[2:]]

    def run(self):
        while not self.is_closed:
            sockets = [self.router, *self.dealers.values()]
            items = (PollItem * len(sockets))(*[PollItem(s, 0, POLLIN, 0) for s in sockets])
            self.zmq.zmq_poll(items, len(sockets), 50)
            while (frames := self.receive(self.router)) is not None:
                identity = frames[0]
                if identity not in self.dealers:
                    self.dealers[identity] = self.socket(DEALER, identity)
                    self.zmq.zmq_connect(self.dealers[identity], self.far)
                if (older := self.as_protocol_1(frames[1:], True)):
                    self.send(self.dealers[identity], older)
            for identity, s in self.dealers.items():
                while (frames := self.receive(s)) is not None:
                    if (older := self.as_protocol_1(frames, False)):
                        self.send(self.router, [identity, *older])

    def close(self):
        self.is_closed = True
        self.thread.join()
        for s in (self.router, *self.dealers.values()):
            self.zmq.zmq_close(s)
        self.zmq.zmq_ctx_term(self.context)
