#!/usr/bin/env python3
"""Makes tests/golden/foreign, a repository by a writer that is not bygone: tests/make_foreign.py FOLDER

Written from docs/FORMAT.md alone. It does what the page allows and bygone never does: blocks of odd lengths, a full
block size that no block has, branches and lists of eight levels with one child each, holes over 4 GiB, three codecs in
one volume, volumes without padding, gap or second index, an empty volume, a section of an unknown kind, unknown
attributes, two chains. `contents.json` says what a restore must give. The output depends on nothing but this file.

Needs the package `cryptography` and, where that is older than 44, `argon2-cffi`.
"""

import hashlib
import hmac
import itertools
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

PASSPHRASE = b"foreign"
FRAME = 131_072
FULL = 65_536
INLINE, EXTENTS, LIST, DIRECTORY, LINK = range(5)


def u(value, count):
    return value.to_bytes(count, "little")


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def signed(value):
    return varint((value << 1) ^ (value >> 63))


def string(data):
    return varint(len(data)) + data


def items(encoded):
    return varint(len(encoded)) + b"".join(encoded)


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def seed(name, count):
    """Bytes that look random and follow from a name."""
    pieces = (hashlib.sha256(f"foreign {name} {number}".encode()).digest() for number in itertools.count())
    return b"".join(itertools.islice(pieces, -(-count // 32)))[:count]


MASTER, REPOSITORY, SLOT = seed("master", 32), seed("repository", 16), seed("slot", 16)
CLIENTS = [seed("client 0", 16), seed("client 1", 16)]


def derive(info, length):
    key, out, last = mac(REPOSITORY, MASTER), b"", b""
    for number in range(1, -(-length // 32) + 1):
        last = mac(key, last + info + bytes([number]))
        out += last
    return out[:length]


def seal(key, associated_data, plain):
    return AESSIV(key).encrypt(plain, [associated_data])


def argon2id(salt, memory_kib, passes, lanes, length):
    try:
        from argon2.low_level import Type, hash_secret_raw
        return hash_secret_raw(PASSPHRASE, salt, passes, memory_kib, lanes, length, Type.ID, 0x13)
    except ImportError:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
        return Argon2id(salt=salt, length=length, iterations=passes, lanes=lanes, memory_cost=memory_kib).derive(PASSPHRASE)


def lz4_of_repeated(plain, period):
    """LZ4 block format of bytes that repeat after `period`: one literal run, one match, five literals."""
    def long_form(value):
        return bytes([255] * (value // 255)) + bytes([value % 255])

    match = len(plain) - period - 5
    literals = plain[:period]
    return (bytes([(15 if period >= 15 else period) << 4 | 15]) + (long_form(period - 15) if period >= 15 else b"")
            + literals + u(period, 2) + long_form(match - 4 - 15) + bytes([5 << 4]) + plain[-5:])


def zstd_of_one_byte(plain):
    """A Zstandard frame of one block that repeats a byte (RFC 8878): single segment, content size in four bytes."""
    return u(0xFD2FB528, 4) + bytes([0xA0]) + u(len(plain), 4) + u(len(plain) << 3 | 1 << 1 | 1, 3) + plain[:1]


def compress(plain):
    """Codec and bytes. Any choice is allowed for each frame."""
    if plain == plain[:1] * len(plain) and len(plain) > 64:
        return 2, zstd_of_one_byte(plain)
    if plain == (plain[:8] * (len(plain) // 8 + 1))[: len(plain)] and len(plain) > 64:
        return 1, lz4_of_repeated(plain, 8)
    return 0, plain


class Store:
    def __init__(self, folder):
        self.folder, self.volumes = Path(folder), []

    def put(self, name, data):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def volume(self, kind, blocks, nodes=(), unknown=b""):
        """Sections: frames, perhaps one that nobody knows, one index. No gap, no padding, no copies."""
        header = b"BYGNVOLU" + bytes([1, 1, 1, 0]) + u(0, 4) + seed(f"salt {len(self.volumes)}", 32)
        key = derive(b"bygone/1 volume" + header[16:], 64)
        kind_byte = u(("data", "meta").index(kind), 1)
        plain = b"".join([*blocks, *nodes])
        frames, listed = b"", []
        for ordinal, at in enumerate(range(0, len(plain), FRAME)):
            piece = plain[at : at + FRAME]
            codec, data = compress(piece)
            sealed = seal(key, b"bygone/1 frame" + kind_byte + u(ordinal, 4) + u(len(piece), 4), data)
            frames += sealed
            listed.append(u(codec, 1) + varint(len(sealed)))
        block_rows = [block_id(block) + varint(len(block)) + (rolling(block) if len(block) == FULL else b"")
                      for block in blocks]
        node_rows = [node_id(node) + varint(len(node)) for node in nodes]
        index = varint(FULL) + items(listed) + items(block_rows) + items(node_rows)
        at = 48 + len(frames) + len(unknown)
        sealed_index = seal(key, b"bygone/1 index" + kind_byte + header + u(at, 8), index)
        sections = [(1, len(frames))] + ([(77, len(unknown))] if unknown else []) + [(2, len(sealed_index))]
        locator = items([varint(code) + varint(length) for code, length in sections])
        size = at + len(sealed_index) + len(header) + 128
        associated_data = b"bygone/1 locator" + kind_byte + header + u(size, 8) + u(size - 128, 8)
        data = header + frames + unknown + sealed_index + header + seal(key, associated_data, locator.ljust(112, b"\0"))
        name = hashlib.sha256(data).hexdigest()
        self.put(f"{kind}/{name[:2]}/{name}", data)
        self.volumes.append(bytes.fromhex(name) + kind_byte + varint(len(data)) + varint(0) + string(b""))


def block_id(block):
    return mac(derive(b"bygone/1 block id", 32), block)


def node_id(node):
    return mac(derive(b"bygone/1 node id", 32), node)


def rolling(block):
    s1 = s2 = 0
    for byte in block:
        s1 += byte
        s2 += s1
    return u(s1 % 2**32, 4) + u(s2 % 2**32, 4)


class Nodes:
    """Nodes that wait for their volume."""

    def __init__(self):
        self.bodies = {}

    def add(self, body):
        return self.bodies.setdefault(node_id(body), body) and node_id(body)


def extent(block):
    """A block, or a hole of a given length."""
    return varint(block << 1 | 1) if isinstance(block, int) else varint(len(block) << 1) + block_id(block)


def length_of(blocks):
    return sum(block if isinstance(block, int) else len(block) for block in blocks)


def entry(name, kind, body, inode_step, mode=0o644, attributes=b""):
    """The record of an entry of owner 0 on device 0; its times are one second apart."""
    record = string(name) + u(kind, 1) + varint(mode) + varint(0) + signed(1_000_000_000) + varint(5)
    record += signed(1) + varint(0) + varint(0) + signed(inode_step) + body + attributes
    return string(record)


def leaf(entries):
    owner = varint(1000) + varint(100) + string(b"me") + string(b"users")
    return u(1, 1) + (items([owner]) + items([varint(2049)]) if entries else items([]) + items([])) + items(entries)


def attribute(tag, value):
    return varint(tag) + u(0, 1) + string(value)


def commit(store, client, number, before, time, snapshots=(), volumes=(), heads=()):
    header = b"BYGNCOMM" + bytes([1, 1, 1]) + bytes(5)
    key = derive(b"bygone/1 commit" + client + u(number, 8), 64)
    plain = string(before) + signed(time) + varint(0) + items([string(snapshot) for snapshot in snapshots]) + items([])
    plain += items(list(volumes)) + items([]) + items(list(heads)) + items([]) + items([]) + items([]) + varint(0)
    plain += items([attribute(1_000, b"a later program wrote this")])
    data = header + seal(key, b"bygone/1 commit" + header + client + u(number, 8), plain)
    store.put(f"commits/{client.hex()}/{number:016}", data)
    return hashlib.sha256(data).digest()


def snapshot(name, time, root, files, parent=b""):
    record = seed(f"snapshot {name}", 16) + signed(time) + varint(0) + string(b"elsewhere") + string(b"somebody")
    record += items([string(b"/foreign")]) + items([string(name.encode())]) + string(parent) + string(b"a foreign writer")
    record += string(leaf([entry(b"root", DIRECTORY, root, 2, 0o755)]))
    record += b"".join(map(varint, [files, 9, 0, 0, 0, 0]))
    return record + items([attribute(7, b"made by another writer"), attribute(2_000, b"unknown")])


def small_objects(store):
    settings = {"format": 1, "repository": REPOSITORY.hex(), "block_bytes": FULL, "frame_bytes": FRAME,
                "volume_bytes": 1_048_576, "compression": "none", "read": [], "write": [], "optional": []}
    text = ";".join(f"{name}={','.join(value) if isinstance(value, list) else value}" for name, value in settings.items())
    settings["mac"] = mac(derive(b"bygone/1 config mac", 32), text.encode()).hex()
    # Members in another order than bygone's, and no white space.
    store.put("bygone.json", json.dumps(dict(sorted(settings.items())), separators=(",", ":")).encode())
    head = b"BYGNSLOT" + bytes([1, 1, 1, 0]) + u(8_192, 4) + u(1, 4) + u(1, 4) + seed("slot salt", 32)
    head += REPOSITORY + SLOT + u(1, 4) + u(0, 4)
    wrapping = argon2id(head[24:56], 8_192, 1, 1, 96)
    label = b"made elsewhere"
    info = (u(1_000_000_000, 8) + u(len(label), 1) + label).ljust(208, b"\0")
    slot = head + seal(wrapping[:64], head, MASTER) + seal(derive(b"bygone/1 slot info", 64), head, info)
    store.put(f"keys/{SLOT.hex()}", slot + mac(wrapping[64:], slot))


def make(folder):
    store, nodes = Store(Path(folder) / "repository"), Nodes()
    small_objects(store)
    one_byte, pattern = b"z" * FRAME, b"abcdefgh" * (FRAME // 8)
    odd = [one_byte, pattern, b"!", seed("odd", 70_001), b"five.", seed("full", FULL), seed("long", 300_000)]
    late = seed("late", 12_345)

    # A list under eight levels of branches, each with one child.
    list_id = nodes.add(u(3, 1) + items([extent(block) for block in odd]))
    for level in range(1, 9):
        list_id = nodes.add(u(4, 1) + u(level, 1) + items([varint(length_of(odd)) + list_id]))
    holes = [2**32 + 3, b"five.", 1, odd[3], 2**33]
    holes_id = nodes.add(u(3, 1) + items([extent(block) for block in holes]))
    held = length_of([block for block in holes if not isinstance(block, int)])

    files = {
        b"deep-list": [LIST, odd, varint(length_of(odd)) + varint(length_of(odd)) + list_id],
        b"holes": [LIST, holes, varint(length_of(holes)) + varint(held) + holes_id],
        b"inline-as-extents": [EXTENTS, [b"!"], items([extent(b"!")])],
        b"names \xff\n": [INLINE, [b"raw"], string(b"raw")],
        b"only-a-hole": [EXTENTS, [2**32], items([extent(2**32)])],
    }
    entries = [entry(name, kind, body, 1) for name, (kind, _, body) in sorted(files.items())]

    # A directory of three leaves under eight levels of branches, the leaves of one entry each, beside a second branch.
    names = [b"a", b"b", b"c"]
    children = [(name, nodes.add(leaf([entry(name, INLINE, string(name * 3), 1)])), 1) for name in names]
    for level in range(1, 9):
        rows = [string(last) + id + varint(count) for last, id, count in children]
        if level == 1:
            split = [rows[:2], rows[2:]]
            children = [(names[1], nodes.add(u(2, 1) + u(1, 1) + items(split[0])), 2),
                        (names[2], nodes.add(u(2, 1) + u(1, 1) + items(split[1])), 1)]
        else:
            count = sum(count for _, _, count in children)
            children = [(children[-1][0], nodes.add(u(2, 1) + u(level, 1) + items(rows)), count)]
    deep = entry(b"deep", DIRECTORY, children[0][1], 1, 0o755)
    empty = entry(b"empty", DIRECTORY, nodes.add(leaf([])), 1, 0o700)
    unknown = entry(b"later", INLINE, string(b"kept"), 1, attributes=items([attribute(500, b"of an entry")]))
    link = entry(b"link", LINK, string(b"../nowhere"), 1, 0o777)

    def root_of(more):
        everything = dict(zip(sorted(files), entries)) | {b"deep": deep, b"empty": empty, b"later": unknown, b"link": link} | more
        top = nodes.add(leaf([everything[name] for name in sorted(everything)]))
        return nodes.add(leaf([entry(b"foreign", DIRECTORY, top, 1, 0o755)]))

    first = root_of({})
    second = root_of({b"new": entry(b"new", EXTENTS, items([extent(late)]), 1)})
    store.volume("data", odd)
    store.volume("data", [])
    half = len(nodes.bodies) // 2
    bodies = list(nodes.bodies.values())
    store.volume("meta", [], bodies[:half], unknown=b"unknown")
    store.volume("meta", [late], bodies[half:])

    count = len(files) + 4
    one, two = (snapshot("one", 1_000_000_000, first, count), snapshot("two", 1_000_086_400, second, count + 1,
                                                                       seed("snapshot one", 16)))
    hash_one = commit(store, CLIENTS[0], 1, b"", 1_000_000_100, [one], store.volumes)
    head = CLIENTS[0] + varint(1) + hash_one
    other = commit(store, CLIENTS[1], 1, b"", 1_000_000_200, heads=[head])
    commit(store, CLIENTS[0], 2, hash_one, 1_000_086_500, [two], heads=[CLIENTS[1] + varint(1) + other])

    def described(blocks):
        at, pieces = 0, []
        for block in blocks:
            if not isinstance(block, int):
                pieces.append({"at": at, "bytes": len(block), "sha256": hashlib.sha256(block).hexdigest()})
            at += length_of([block])
        return {"size": at, "pieces": pieces}

    contents = {name.decode("latin-1"): described(blocks) for name, (_, blocks, _) in files.items()}
    contents |= {f"deep/{name.decode()}": described([name * 3]) for name in names}
    contents |= {"later": described([b"kept"]), "new": described([late])}
    text = json.dumps({"passphrase": PASSPHRASE.decode(), "latest": contents, "only_in_latest": ["new"]}, indent=1)
    (Path(folder) / "contents.json").write_text(text + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(sys.argv[1])
