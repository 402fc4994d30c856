#!/usr/bin/env python3
"""Lists and restores the snapshots of a bygone repository, without bygone.

    read_repository.py REPOSITORY --passphrase-file FILE list
    read_repository.py REPOSITORY --passphrase-file FILE restore SNAPSHOT TARGET

REPOSITORY is a directory, SNAPSHOT `latest` or the beginning of an id, TARGET a new or empty directory.

Written from docs/FORMAT.md alone, to show that the page is enough, and for the day when no bygone runs any more. It is
slow and simple: every volume is hashed and its index read before the first file is restored. Whatever is read is
checked; what fails is named, the rest is restored, and the exit code is then 1. Inode flags are not restored; owners
and devices only if this runs as root.

Needs the package `cryptography` and, where that is older than 44, `argon2-cffi`; for zstd repositories `zstandard`.
On Debian: python3-cryptography python3-argon2 python3-zstandard.
"""

import argparse
import functools
import hashlib
import hmac
import itertools
import json
import os
import re
import resource
import stat
import sys
import time
from collections import namedtuple
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

try:
    from argon2.low_level import Type, hash_secret_raw
except ImportError:
    hash_secret_raw = None
    try:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError:
        sys.exit("Argon2 is missing: install argon2-cffi (Debian: python3-argon2)")
try:
    import zstandard
except ImportError:
    zstandard = None

FRAME = 131_072
HEADER, LOCATOR = 48, 128
TRAILER = HEADER + LOCATOR
BLOCK_MAX = NODE_MAX = 1 << 24
VOLUME_MAX, INDEX_MAX, COMMIT_MAX = 256 << 20, 64 << 20, 64 << 20
ITEMS_MAX = 1 << 20
DIRECTORY, UNREADABLE = 3, 9
FEATURE_LISTS = ("read", "write", "optional")

Snapshot = namedtuple("Snapshot", "id time host user paths tags parent program root counts newer")
Commit = namedtuple("Commit", "hash before added removed volumes retired heads losses volumes_lost slots checkpoint attributes")
Entry = namedtuple("Entry", "name kind mode owner mtime ctime birth device inode links flags attributes size body more")
Extent = namedtuple("Extent", "id length")  # The id of a hole is None.
Location = namedtuple("Location", "volume position length checksum")


class Damaged(Exception):
    """What was read breaks a rule of docs/FORMAT.md."""


def need(condition, what):
    if not condition:
        raise Damaged(what)


class Wire:
    """Takes fields from the front of a record (section 2.1)."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, count):
        need(count <= len(self.data) - self.at, "a record ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def fixed(self, count):
        return int.from_bytes(self.raw(count), "little")

    def varint(self, max=2**64 - 1):
        value = shift = 0
        while True:
            byte = self.fixed(1)
            need((byte or not shift) and (byte == 1 or shift < 63), "an integer is not in its shortest form")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                need(value <= max, "a number is over its limit")
                return value

    def signed(self):
        coded = self.varint()
        return (coded >> 1) ^ -(coded & 1)

    def count(self, max):
        count = self.varint(max)
        need(count <= len(self.data) - self.at, "a record ends too early")
        return count

    def string(self, max):
        return self.raw(self.count(max))

    def text(self):
        try:
            return self.string(255).decode()
        except UnicodeDecodeError:
            raise Damaged("a text is not UTF-8") from None

    def time(self):
        return self.signed(), self.varint(999_999_999)

    def list(self, max, item):
        return [item() for _ in range(self.count(max))]

    def end(self):
        need(self.at == len(self.data), "a record has bytes left over")


def u(value, count):
    return value.to_bytes(count, "little")


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(salt, secret, info, length):
    key, out, last = mac(salt, secret), b"", b""
    for number in itertools.count(1):
        if len(out) >= length:
            return out[:length]
        last = mac(key, last + info + bytes([number]))
        out += last


def open_sealed(key, associated_data, sealed, what):
    need(len(sealed) > 16, f"{what} is too short")
    try:
        return AESSIV(key).decrypt(bytes(sealed), [associated_data])
    except InvalidTag:
        raise Damaged(f"the seal of {what} is broken") from None


def argon2id(passphrase, salt, memory_kib, passes, lanes):
    if hash_secret_raw:
        return hash_secret_raw(passphrase, salt, passes, memory_kib, lanes, 96, Type.ID, 0x13)
    return Argon2id(salt=salt, length=96, iterations=passes, lanes=lanes, memory_cost=memory_kib).derive(passphrase)


def master_key_of_slot(slot, repository, name, passphrase):
    """The master key, or None if this slot is not ours or not opened by this passphrase (section 6)."""
    if len(slot) != 400 or slot[:12] != b"BYGNSLOT\1\1\1\0" or slot[56:72] != repository or slot[72:88].hex() != name:
        return None
    memory_kib, passes, lanes = (int.from_bytes(slot[at : at + 4], "little") for at in (12, 16, 20))
    in_limits = 8_192 <= memory_kib <= 1_048_576 and 1 <= passes <= 16 and 1 <= lanes <= 16
    if not in_limits or slot[88:96] != u(1, 4) + u(0, 4):
        return None
    wrapping = argon2id(passphrase, slot[24:56], memory_kib, passes, lanes)
    if not hmac.compare_digest(mac(wrapping[64:], slot[:368]), slot[368:]):
        return None
    return open_sealed(wrapping[:64], slot[:96], slot[96:144], f"key slot {name}")


def lz4_block(data, length):
    """Decompresses the LZ4 block format."""
    out, wire = bytearray(), Wire(data)

    def long_form(value):
        more = 255 if value == 15 else 0
        while more == 255:
            more = wire.fixed(1)
            value += more
        return value

    while True:
        token = wire.fixed(1)
        out += wire.raw(long_form(token >> 4))
        if wire.at == len(data):
            return bytes(out)
        distance, match = wire.fixed(2), long_form(token & 15) + 4
        need(0 < distance <= len(out) and len(out) + match <= length, "an LZ4 match is out of bounds")
        piece = out[-distance:][:match]
        out += (piece * (match // len(piece) + 1))[:match]


def zstd_frame(data, length):
    if not zstandard:
        sys.exit("this repository is compressed with zstd: install zstandard (Debian: python3-zstandard)")
    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=length)
    except zstandard.ZstdError as error:
        raise Damaged(f"a zstd frame does not decompress: {error}") from None


def decompress(codec, data, length):
    need(len(data) == length if codec == 0 else len(data) < length, "a frame has an impossible length")
    plain = data if codec == 0 else lz4_block(data, length) if codec == 1 else zstd_frame(data, length)
    need(len(plain) == length, "a frame decompresses to another length")
    return plain


class Volume:
    """One volume (section 7): its index, and its frames when they are wanted."""

    def __init__(self, path, kind, derive, complain):
        self.path, self.kind, self.derive = path, u(kind, 1), derive
        self.size = path.stat().st_size
        need(HEADER + TRAILER < self.size <= VOLUME_MAX, "its length is impossible")
        self.file = path.open("rb")
        digest = hashlib.sha256()
        while piece := self.file.read(1 << 20):
            digest.update(piece)
        if digest.hexdigest() != path.name or path.parent.name != path.name[:2]:
            complain(f"volume {path}: its name is not its SHA-256; what opens of it is used")
        (self.frames_at, frames_length), indexes = self.find_locator()
        self.read_any_index(indexes)
        need(self.offsets[-1] == self.frames_at + frames_length, "its frames are not as long as its locator says")

    def read(self, offset, length):
        self.file.seek(offset)
        return self.file.read(length)

    def find_locator(self):
        """Section 7.5: either header serves; if the last locator does not open, its copy is searched for."""
        headers = [self.read(self.size - TRAILER, HEADER), self.read(0, HEADER)]
        newer = [header for header in headers if header[:8] == b"BYGNVOLU" and header[8] > 1]
        headers = [header for header in headers if header[:16] == b"BYGNVOLU\1\1\1\0" + u(0, 4)]
        need(headers or not newer, "it is of a later version")
        need(headers, "both of its headers are damaged")
        last = self.size - LOCATOR
        lowest = max(HEADER, self.size - TRAILER - INDEX_MAX - (1 << 20) - LOCATOR)
        copies = range(self.size - TRAILER - LOCATOR, lowest - 1, -1)
        for places in ((last,), copies):
            for header in dict.fromkeys(headers):
                key = self.derive(b"bygone/1 volume" + header[16:], 64)
                for offset in places:
                    associated_data = b"bygone/1 locator" + self.kind + header + u(self.size, 8) + u(offset, 8)
                    try:
                        plain = open_sealed(key, associated_data, self.read(offset, LOCATOR), "its locator")
                    except Damaged:
                        continue
                    self.header, self.key = header, key
                    return self.decode_locator(Wire(plain))
        raise Damaged("both of its locators are damaged")

    def decode_locator(self, wire):
        """Place and length of the frames, and of each copy of the index (section 7.4)."""
        sections, at, indexes = wire.list(8, lambda: (wire.varint(), wire.varint())), HEADER, []
        need(not any(wire.data[wire.at :]), "the rest of its locator is not zero")
        need([kind for kind, _ in sections].count(1) == 1, "it has no frames, or twice")
        for kind, length in sections:
            if kind == 1:
                frames = at, length
            if kind == 2:
                need(16 < length <= INDEX_MAX, "the length of its index is not valid")
                indexes.append((at, length))
            need(kind != 3 or length == LOCATOR, "the length of its locator is not valid")
            at += length
        need(at == self.size - TRAILER, "its sections do not fill it")
        need(1 <= len(indexes) <= 2, "it has no index, or too many")
        return frames, indexes

    def read_any_index(self, indexes):
        for number, (offset, length) in enumerate(reversed(indexes)):
            associated_data = b"bygone/1 index" + self.kind + self.header + u(offset, 8)
            try:
                plain = open_sealed(self.key, associated_data, self.read(offset, length), "its index")
                return self.read_index(Wire(plain))
            except Damaged:
                if number + 1 == len(indexes):
                    raise

    def read_index(self, wire):
        full = wire.varint(2**32 - 1)
        self.frames = wire.list(65_536, lambda: (wire.fixed(1), wire.varint(FRAME + 16)))
        need(all(codec <= 2 and stored > 16 for codec, stored in self.frames), "a frame in its index is not valid")
        self.offsets = list(itertools.accumulate((stored for _, stored in self.frames), initial=self.frames_at))
        self.plain_length = 0
        self.blocks = wire.list(ITEMS_MAX, lambda: self.decode_item(wire, full))
        self.nodes = wire.list(ITEMS_MAX - len(self.blocks), lambda: self.decode_item(wire, None))
        wire.end()
        need(self.kind == u(1, 1) or not self.nodes, "a data volume has nodes")
        need(len(self.frames) == -(-self.plain_length // FRAME), "its frames do not fit its blocks and nodes")

    def decode_item(self, wire, full):
        id, length = wire.raw(32), wire.varint(BLOCK_MAX)
        need(length > 0, "a block or node in its index is empty")
        position, self.plain_length = self.plain_length, self.plain_length + length
        return id, Location(self, position, length, wire.fixed(8) if length == full else None)

    @functools.lru_cache(maxsize=64)  # Of all volumes together, 8 MiB.
    def frame(self, ordinal):
        codec, stored = self.frames[ordinal]
        length = min(FRAME, self.plain_length - ordinal * FRAME)
        associated_data = b"bygone/1 frame" + self.kind + u(ordinal, 4) + u(length, 4)
        sealed = self.read(self.offsets[ordinal], stored)
        what = f"frame {ordinal} of {self.path}"
        return decompress(codec, open_sealed(self.key, associated_data, sealed, what), length)

    def plain(self, position, length):
        first, last = position // FRAME, (position + length - 1) // FRAME
        joined = b"".join(self.frame(ordinal) for ordinal in range(first, last + 1))
        return joined[position - first * FRAME :][:length]


def decode_extents(wire, max):
    def extent():
        coded = wire.varint()
        length, is_hole = coded >> 1, coded & 1
        need(0 < length and (is_hole or length <= BLOCK_MAX), "the length of an extent is not valid")
        return Extent(None if is_hole else wire.raw(32), length)

    return wire.list(max, extent)


def decode_name(wire):
    name = wire.string(255)
    need(name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name, f"{name!r} is not a name")
    return name


def ascending(items, what):
    need(all(a < b for a, b in zip(items, items[1:])), f"{what} are not in order")


def decode_leaf(wire):
    """The entries of a leaf (section 9.1), of which the first byte was taken."""
    number = 2**32 - 1
    owners = wire.list(1_024, lambda: (wire.varint(number), wire.varint(number), wire.string(255), wire.string(255)))
    devices = wire.list(1_024, wire.varint)
    entries = []
    for _ in range(wire.count(1_024)):
        record = Wire(wire.string(NODE_MAX))
        entries.append(decode_entry(record, owners, devices, entries[-1].inode if entries else 0))
        record.end()
    wire.end()
    ascending(owners, "owners")
    ascending(devices, "devices")
    ascending([entry.name for entry in entries], "entries")
    used = {entry.owner for entry in entries} == set(owners) and {entry.device for entry in entries} == set(devices)
    need(used, "a leaf has owners or devices that no entry has")
    return entries


def decode_distance(wire, other):
    """A time, given by its distance from another one."""
    seconds, nanoseconds = (wire.signed() + other[0] + 2**63) % 2**64 - 2**63, wire.signed() + other[1]
    need(0 <= nanoseconds <= 999_999_999, "a time has no valid nanoseconds")
    return seconds, nanoseconds


def decode_entry(wire, owners, devices, inode_before):
    name, bits = decode_name(wire), wire.fixed(1)
    kind = bits & 15
    mode = wire.varint(0o7777)
    owner = owners[wire.varint(len(owners) - 1)]
    mtime = wire.time()
    ctime = decode_distance(wire, mtime)
    birth = decode_distance(wire, ctime) if bits & 0x80 else None
    device = devices[wire.varint(len(devices) - 1)]
    inode = (inode_before + wire.signed()) % 2**64
    links = wire.varint(2**32 - 1) if bits & 0x10 else 1
    flags = wire.varint(2**32 - 1) if bits & 0x20 else 0
    attributes = wire.list(32_768, lambda: (wire.string(255), wire.string(65_536))) if bits & 0x40 else []
    given = (bool(bits & 0x10), bool(bits & 0x20), bool(bits & 0x40))
    need(given == (links != 1, flags != 0, attributes != []), "an entry has a field that it should not have")
    ascending([attribute for attribute, _ in attributes], "attributes")
    need(all(attribute and b"\0" not in attribute for attribute, _ in attributes), "an attribute has no valid name")
    body, size = decode_body(wire, kind)
    need(size < 2**63, "a file is too long")
    more = decode_attributes(wire) if wire.at < len(wire.data) else None
    need(more != [], "an entry has an empty list of attributes")
    attributes, more = tuple(attributes), more or []
    return Entry(name, kind, mode, owner, mtime, ctime, birth, device, inode, links, flags, attributes, size, body, more)


def why_withheld(entry):
    """Why an entry cannot be restored (section 9.2), or None."""
    critical = next((tag for tag, critical, _ in entry.more if critical and tag != 1), None)
    if entry.kind > UNREADABLE or critical is not None:
        what = f"its kind {entry.kind}" if critical is None else f"its attribute {critical}"
        return f"it was made by a newer bygone: {what} is unknown"
    if entry.kind == UNREADABLE:
        return f"it could not be read when it was backed up: {os.strerror(entry.body[0])}"
    return None


def decode_body(wire, kind):
    """What an entry's kind adds to it, and its size (section 9.2)."""
    if kind == 0:
        content = wire.string(64)
        return content, len(content)
    if kind == 1:
        extents = decode_extents(wire, 4)
        need(extents, "a file has no extents")
        return tuple(extents), sum(extent.length for extent in extents)
    if kind == 2:
        size = wire.varint()
        return (wire.varint(size), wire.raw(32)), size
    if kind == DIRECTORY:
        return wire.raw(32), 0
    if kind == 4:
        target = wire.string(4_095)
        need(target and b"\0" not in target, "the target of a link is not valid")
        return target, len(target)
    if kind == UNREADABLE:
        errno, was = wire.varint(2**32 - 1), wire.fixed(1)
        need(was in (0, 3, 4, 5, 6, 7, 8, 15), "the type of an unreadable entry is not valid")
        return (errno, was), wire.varint()
    if kind > UNREADABLE:
        return wire.raw(len(wire.data) - wire.at), 0
    return (wire.varint() if kind >= 7 else None), 0


def decode_snapshot(wire):
    id, when, host, user = wire.raw(16), wire.time(), wire.text(), wire.text()
    paths = wire.list(4_096, lambda: wire.string(65_536))
    tags, parent, program = wire.list(4_096, wire.text), wire.string(16), wire.text()
    root = Wire(wire.string(NODE_MAX))
    need(root.fixed(1) == 1 and len(parent) in (0, 16), "a snapshot record is not valid")
    root = decode_leaf(root)
    need([(entry.name, entry.kind) for entry in root] == [(b"root", DIRECTORY)], "a snapshot has no root")
    counts = [wire.varint() for _ in range(6)]
    newer = first_critical(decode_attributes(wire))
    if newer is None:
        newer = next((tag for tag, critical, _ in root[0].more if critical and tag != 1), None)
    wire.end()
    return Snapshot(id, when, host, user, paths, tags, parent, program, root[0], counts, newer)


def decode_attributes(wire):
    """The attributes at the end of a record (section 10.2): tag, critical or not, value."""
    attributes = wire.list(256, lambda: (wire.varint(), wire.fixed(1), wire.string(1_048_576)))
    ascending([tag for tag, _, _ in attributes], "attributes of a record")
    need(all(critical <= 1 for _, critical, _ in attributes), "an attribute is neither critical nor not")
    need(sum(len(value) for _, _, value in attributes) <= 1_048_576, "the attributes of a record are too long")
    return attributes


def first_critical(attributes):
    """The first critical attribute that this program does not know. Those of section 10.2 are all informative."""
    return next((tag for tag, critical, _ in attributes if critical and not 1 <= tag <= 11), None)


def check_features(lists):
    """Checks the names of features (section 5.1). Those that this program may ignore, as it only reads, are ignored."""
    need(all(isinstance(names, list) for names in lists), "a list of features is none")
    all_names = [name for names in lists for name in names]
    is_valid = all(isinstance(name, str) and re.fullmatch("[a-z0-9-]{1,64}", name) for name in all_names)
    need(is_valid and len(set(all_names)) == len(all_names) <= 64, "features are not valid")
    need(all(names == sorted(names) for names in lists), "features are not in order")


def check_commit_attributes(attributes):
    """Refuses what this program must know and does not (section 10.2)."""
    for tag, critical, value in attributes:
        if 1 <= tag <= 3:
            wire = Wire(value)
            names = wire.list(64, lambda: wire.string(64).decode("ascii", "replace"))
            wire.end()
            check_features([names])
            need(names, "a commit has an empty list of features")
            newer(names if tag == 1 else [])
        else:
            newer([f"attribute {tag}"] if critical else [])


def newer(names):
    if names:
        sys.exit(f"the repository was made by a newer bygone: this program does not know {', '.join(names)}")


class Repository:
    def __init__(self, path, passphrase):
        self.path = Path(path)
        try:
            with (self.path / "bygone.json").open("rb") as file:
                text = file.read(65_537)
        except FileNotFoundError:
            sys.exit(f"{path} is not a repository: it has no bygone.json")
        need(len(text) <= 65_536, "bygone.json is too long")
        try:
            pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)
            config = dict(pairs)
        except (ValueError, TypeError, RecursionError):
            raise Damaged("bygone.json is not a JSON object") from None
        need(config.get("format") == 1, f"bygone.json has format {config.get('format')}, this program reads 1")
        names = config.get("read")
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        need(is_list, "bygone.json lists no features, so it is not whole, or was made before the first release")
        newer(names)
        names = ["format", "repository", "block_bytes", "frame_bytes", "volume_bytes", "compression"]
        need(
            sorted(key for key, _ in pairs) == sorted(names + list(FEATURE_LISTS) + ["mac"]),
            "bygone.json has other members than it should",
        )
        check_features([config[name] for name in FEATURE_LISTS])
        need(re.fullmatch("[0-9a-f]{32}", str(config["repository"])), "bygone.json names no repository")
        need(config["frame_bytes"] == FRAME, "bygone.json has another size of frames")
        self.id = bytes.fromhex(config["repository"])
        self.master = self.find_master_key(passphrase)
        config["compression"] = {"zstd": "zstd:3"}.get(config["compression"], config["compression"])
        parts = [f"{name}={config[name]}" for name in names]
        parts += [f"{name}={','.join(config[name])}" for name in FEATURE_LISTS]
        message = ";".join(parts).encode()
        expected = mac(self.derive(b"bygone/1 config mac", 32), message).hex()
        is_ours = hmac.compare_digest(expected.encode(), str(config["mac"]).encode())
        need(is_ours, "bygone.json was changed: its MAC does not fit")
        self.commits, self.snapshots = {}, {}
        self.read_commits()

    def derive(self, info, length):
        return hkdf(self.id, self.master, info, length)

    def objects(self, pattern, parts):
        """The files of which the last `parts` segments of the path, joined by slashes, match `pattern`."""
        found = sorted((self.path / pattern.split("/")[0]).glob("/".join(["*"] * (parts - 1))))
        return [path for path in found if re.fullmatch(pattern, "/".join(path.parts[-parts:]))]

    def find_master_key(self, passphrase):
        for path in self.objects("keys/[0-9a-f]{32}", 2)[:64]:
            if path.stat().st_size == 400:
                master = master_key_of_slot(path.read_bytes(), self.id, path.name, passphrase)
                if master:
                    return master
        sys.exit("the passphrase opens no key slot of this repository")

    def read_commits(self):
        """Opens all chains (section 10) and finds which snapshots exist."""
        damaged, chains = {}, {}
        for path in self.objects("commits/[0-9a-f]{32}/[0-9]{16}", 3):
            chains.setdefault(bytes.fromhex(path.parent.name), {})[int(path.name)] = path
        for client, chain in chains.items():
            self.read_chain(client, chain, damaged)
        accepted = [loss for commit in self.commits.values() for loss in commit.losses]
        is_accepted = lambda client, number: any(c == client and a <= number <= b for c, a, b in accepted)
        for place, error in damaged.items():
            need(is_accepted(*place), error)
        for (client, number), commit in self.commits.items():
            need((number == 1) == (commit.before == b""), f"commit {number} of {client.hex()} begins where it cannot")
            if number > 1 and not is_accepted(client, number):
                before = self.commits.get((client, number - 1))
                is_known = before is not None or is_accepted(client, number - 1)
                need(is_known, f"commit {number - 1} of {client.hex()} is missing")
                need(before is None or commit.before == before.hash, f"commit {number} of {client.hex()} follows another")
        for client, number, digest in (head for commit in self.commits.values() for head in commit.heads):
            is_there = (client, number) in self.commits and self.commits[client, number].hash == digest
            is_there = is_there or is_accepted(client, number)
            need(is_there, f"commit {number} of {client.hex()} was seen and is missing or was replaced")
        removed = {id for commit in self.commits.values() for id in commit.removed}
        added = (snapshot for commit in self.commits.values() for snapshot in commit.added)
        self.snapshots = {snapshot.id: snapshot for snapshot in added if snapshot.id not in removed}

    def read_chain(self, client, chain, damaged):
        """Reads a chain from its newest commit down, without what its checkpoints give up (section 10.3)."""
        until = 0  # Everything from here on is read before the next jump.
        for number in sorted(chain, reverse=True):
            if number not in chain:
                continue
            try:
                commit = self.commits[client, number] = self.read_commit(chain[number], client, number)
            except Damaged as error:
                damaged[client, number] = str(error)
                continue
            until = until or commit.checkpoint
            if number == until:
                first = next(a for loser, a, _ in commit.losses if loser == client)
                for given_up in [given_up for given_up in chain if first <= given_up < number]:
                    del chain[given_up]
                until = 0

    def read_commit(self, path, client, number):
        need(path.stat().st_size <= COMMIT_MAX, f"commit {path} is too long")
        data = path.read_bytes()
        need(data[:8] == b"BYGNCOMM" and len(data) > 16, f"{path} is not a commit")
        need(data[8] <= 1, f"commit {path} is of a later version")
        need(data[8:16] == b"\1\1\1" + bytes(5), f"the header of commit {path} is not valid")
        key = self.derive(b"bygone/1 commit" + client + u(number, 8), 64)
        associated_data = b"bygone/1 commit" + data[:16] + client + u(number, 8)
        wire = Wire(open_sealed(key, associated_data, data[16:], f"commit {path}"))
        before = wire.string(32)
        wire.time()
        commit = Commit(
            hashlib.sha256(data).digest(),
            before,
            wire.list(ITEMS_MAX, lambda: decode_snapshot(Wire(wire.string(COMMIT_MAX)))),
            wire.list(ITEMS_MAX, lambda: wire.raw(16)),
            wire.list(ITEMS_MAX, lambda: (wire.raw(32), wire.fixed(1), wire.varint(), wire.varint(), wire.text())),
            wire.list(ITEMS_MAX, lambda: wire.raw(32)),
            wire.list(ITEMS_MAX, lambda: (wire.raw(16), wire.varint(), wire.raw(32))),
            wire.list(ITEMS_MAX, lambda: (wire.raw(16), wire.varint(), wire.varint())),
            set(wire.list(ITEMS_MAX, lambda: wire.raw(32))),
            wire.list(ITEMS_MAX, lambda: wire.raw(16)),
            wire.varint(),
            decode_attributes(wire),
        )
        need(not any(wire.data[wire.at :]), f"the padding of commit {path} is not zero")
        need(all(1 <= a <= b for _, a, b in commit.losses), f"commit {path} gives up nothing")
        own = [(a, b) for loser, a, b in commit.losses if loser == client]
        is_checkpoint = commit.checkpoint == number
        is_right = len(own) == 1 and own[0][1] == number - 1 if is_checkpoint else not own
        need(is_right and commit.checkpoint <= number, f"commit {path} is a checkpoint that cannot be")
        check_commit_attributes(commit.attributes)
        need(all(kind <= 1 for _, kind, *_ in commit.volumes), f"commit {path} has a volume of no kind")
        return commit

    def snapshot(self, wanted):
        found = sorted(self.snapshots.values(), key=lambda snapshot: (snapshot.time, snapshot.id))
        found = found[-1:] if wanted == "latest" else [s for s in found if s.id.hex().startswith(wanted)]
        if len(found) != 1:
            sys.exit(f"{len(found)} snapshots are called {wanted}")
        if found[0].newer is not None:
            sys.exit(f"snapshot {found[0].id.hex()} was made by a newer bygone: attribute {found[0].newer} is unknown")
        return found[0]

    def open_volumes(self, complain):
        """Reads the indexes of all volumes (step 4 of section 12)."""
        self.nodes, self.blocks = {}, {}
        for kind, folder in enumerate(("data", "meta")):
            for path in self.objects(folder + "/[0-9a-f]{2}/[0-9a-f]{64}", 3):
                try:
                    volume = Volume(path, kind, self.derive, complain)
                except (Damaged, OSError) as error:
                    complain(f"volume {path}: {error}")
                    continue
                self.blocks.update(volume.blocks)
                self.nodes.update(volume.nodes)
        self.id_keys = {"block": self.derive(b"bygone/1 block id", 32), "node": self.derive(b"bygone/1 node id", 32)}
        retired = {name for commit in self.commits.values() for name in commit.retired}
        accepted = {name for commit in self.commits.values() for name in commit.volumes_lost}
        for name, kind, length, *_ in (volume for commit in self.commits.values() for volume in commit.volumes):
            path = self.path / ("data", "meta")[kind] / name.hex()[:2] / name.hex()
            if name not in retired | accepted and not (path.exists() and path.stat().st_size == length):
                complain(f"volume {path}: it is missing, or not {length} bytes long as it should be")

    def fetch(self, what, places, id):
        need(id in places, f"no volume holds {what} {id.hex()}")
        place = places[id]
        data = place.volume.plain(place.position, place.length)
        need(mac(self.id_keys[what], data) == id, f"{what} {id.hex()} is not what its id says")
        if place.checksum is not None:
            s1, s2 = sum(data) % 2**32, sum(itertools.accumulate(data)) % 2**32
            need(place.checksum == s1 | s2 << 32, f"the rolling checksum of {what} {id.hex()} is wrong")
        return data

    def walk_node(self, id, types, level=None):
        """Walks the leaves (types 1, 2) or lists (types 3, 4) below a node: their entries or extents, in order."""
        wire = Wire(self.fetch("node", self.nodes, id))
        leaf_type, branch_type = types
        type = wire.fixed(1)
        need(type in types and (level is None or (type == leaf_type) == (level == 0)), "a node is of the wrong type")
        if type == leaf_type:
            items = decode_leaf(wire) if type == 1 else decode_extents(wire, 1_024)
            wire.end()
            need(items or type == 1 and level is None, "a node of several is empty")
            yield from items
            return
        own_level = wire.fixed(1)
        need(1 <= own_level <= 8 and level in (None, own_level), "the level of a branch is not valid")
        if branch_type == 2:
            children = wire.list(1_024, lambda: (decode_name(wire), wire.raw(32), wire.varint()))
            ascending([name for name, _, _ in children], "children")
        else:
            children = [(None, id, n) for n, id in wire.list(1_024, lambda: (wire.varint(), wire.raw(32)))]
        wire.end()
        need(children, "a branch has no children")
        before = b""
        for last, child, amount in children:
            sum_below, item = 0, None
            for item in self.walk_node(child, types, own_level - 1):
                need(branch_type == 4 or before < item.name, "entries are not in order")
                sum_below, before = sum_below + (1 if branch_type == 2 else item.length), item[0]
                yield item
            need(0 < sum_below == amount and (last is None or item.name == last), "a branch counts wrongly")

    def extents(self, entry):
        if entry.kind == 1:
            return entry.body
        allocated, root = entry.body
        extents = list(self.walk_node(root, (3, 4)))
        need(sum(extent.length for extent in extents) == entry.size, "a block list has another length than its file")
        need(sum(e.length for e in extents if e.id) == allocated, "the holes of a file are not as long as it says")
        return extents


class Restore:
    """Writes a snapshot below a new directory; never follows a link, never writes over anything."""

    def __init__(self, repository):
        self.repository, self.failures, self.linked = repository, 0, {}

    def complain(self, text):
        print(text, file=sys.stderr)
        self.failures += 1

    def run(self, snapshot, target):
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            sys.exit(f"{target} is not empty")
        self.root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        self.repository.open_volumes(self.complain)
        self.guarded(b"", lambda: self.directory(snapshot.root, self.root, b""))

    def guarded(self, path, work):
        try:
            work()
        except (Damaged, OSError, OverflowError) as error:
            self.complain(f"{b'/' + path!r}: {error}")

    def directory(self, entry, fd, path):
        def content():
            for child in self.repository.walk_node(entry.body, (1, 2)):
                child_path = os.path.join(path, child.name)
                self.guarded(child_path, lambda: self.entry(child, fd, child_path))

        self.guarded(path, content)
        if any(tag == 1 for tag, _, _ in entry.more):
            self.complain(f"{b'/' + path!r}: it may lack entries: its listing broke off when it was backed up")
        self.metadata(entry, fd)

    def entry(self, entry, fd, path):
        need(why_withheld(entry) is None, why_withheld(entry))
        same = (entry.device, entry.inode, entry.kind, entry.body)
        if entry.links > 1 and same in self.linked and entry.kind != DIRECTORY:
            os.link(self.linked[same], entry.name, src_dir_fd=self.root, dst_dir_fd=fd, follow_symlinks=False)
            return
        if entry.kind == DIRECTORY:
            os.mkdir(entry.name, 0o700, dir_fd=fd)
            own = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            try:
                self.directory(entry, own, path)
            finally:
                os.close(own)
        elif entry.kind <= 2:
            self.file(entry, fd)
        elif entry.kind == 4:
            os.symlink(entry.body, entry.name, dir_fd=fd)
            self.metadata(entry, fd, entry.name)
        else:
            type = {5: stat.S_IFIFO, 6: stat.S_IFSOCK, 7: stat.S_IFCHR, 8: stat.S_IFBLK}[entry.kind]
            os.mknod(entry.name, type | 0o600, entry.body or 0, dir_fd=fd)
            self.metadata(entry, fd, entry.name)
        self.linked[same] = path

    def file(self, entry, fd):
        own = os.open(entry.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=fd)
        try:
            at = 0
            if entry.kind == 0:
                at = os.write(own, entry.body)
            else:
                for extent in self.repository.extents(entry):
                    if extent.id:
                        data = self.repository.fetch("block", self.repository.blocks, extent.id)
                        need(len(data) == extent.length, "a block has another length than its extent")
                        os.pwrite(own, data, at)
                    at += extent.length
            os.ftruncate(own, entry.size)
            need(at == entry.size, "a file was not written whole")
            self.metadata(entry, own)
        except (Damaged, OSError):
            os.unlink(entry.name, dir_fd=fd)
            raise
        finally:
            os.close(own)

    def metadata(self, entry, fd, name=None):
        """Of the open file `fd`, or of `name` in the directory `fd`, which is then not followed if it is a link."""
        at = {"path": fd} if name is None else {"path": name, "dir_fd": fd, "follow_symlinks": False}
        if os.geteuid() == 0:
            os.chown(uid=entry.owner[0], gid=entry.owner[1], **at)
        for attribute, value in entry.attributes if name is None else []:
            self.guarded(entry.name + b" " + attribute, lambda: os.setxattr(fd, attribute, value))
        if name is None:
            os.fchmod(fd, entry.mode)
        elif entry.kind != 4:
            os.chmod(name, entry.mode, dir_fd=fd)
        nanoseconds = entry.mtime[0] * 1_000_000_000 + entry.mtime[1]
        os.utime(ns=(nanoseconds, nanoseconds), **at)


def main():
    parser = argparse.ArgumentParser(description="Lists and restores the snapshots of a bygone repository.")
    parser.add_argument("repository", help="directory of the repository")
    parser.add_argument("--passphrase-file", required=True, help="the passphrase; one line feed at its end is left out")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the snapshots")
    restore = commands.add_parser("restore", help="restore a snapshot")
    restore.add_argument("snapshot", help="`latest`, or the beginning of an id")
    restore.add_argument("target", help="a new or empty directory")
    arguments = parser.parse_args()
    passphrase = Path(arguments.passphrase_file).read_bytes().removesuffix(b"\n")
    try:
        repository = Repository(arguments.repository, passphrase)
    except Damaged as error:
        sys.exit(f"{arguments.repository}: {error}")
    if arguments.command == "list":
        for snapshot in sorted(repository.snapshots.values(), key=lambda snapshot: (snapshot.time, snapshot.id)):
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(snapshot.time[0]))
            paths = b" ".join(snapshot.paths).decode(errors="backslashreplace")
            newer = ["made by a newer bygone"] if snapshot.newer is not None else []
            print(snapshot.id.hex(), when, ascii(snapshot.host), ascii(paths), *map(ascii, snapshot.tags), *newer)
        return
    # A directory is held open for each level of the tree.
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    sys.setrecursionlimit(50_000)
    job = Restore(repository)
    job.run(repository.snapshot(arguments.snapshot), arguments.target)
    if job.failures:
        sys.exit(f"{job.failures} things could not be restored")


if __name__ == "__main__":
    main()
