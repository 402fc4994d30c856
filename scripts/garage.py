#!/usr/bin/env python3
"""A Garage cluster on this machine, for tests and measurements: installs Garage, starts its nodes on loopback, makes a bucket.

Run as a program, scripts/garage.py [NODES] prints the variables that bygone needs, and stops the nodes when its standard
input ends. The whole cluster lives in one directory; docs/STORES.md has the same commands for separate machines.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Without the parts that are not needed and with less optimisation: each machine builds it once, and few are fast.
INSTALL = ["cargo", "install", "garage", "--locked", "--no-default-features", "--features", "bundled-libs,lmdb"]
BUCKET, REGION = "bygone", "garage"
# The domain below which buckets are names of hosts.
DOMAIN = "s3.garage.test"
START_S = 60


def install():
    """The program. If it does not exist it is built, which takes a quarter of an hour."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bygone-tests" / "garage"
    program = cache / "bin" / "garage"
    if not program.exists():
        print(f"building Garage below {cache}, once: {' '.join(INSTALL)}", file=sys.stderr, flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "CARGO_TARGET_DIR": str(cache / "target"), "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1"}
        subprocess.run(["nice", "-n", "19", *INSTALL, "--root", str(cache)], env=env, check=True)
        shutil.rmtree(cache / "target")
    return program


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Node:
    """One node: a directory with its configuration and data, and, while it runs, a process."""

    def __init__(self, program, home, secret, ports, replication):
        self.program, self.home, self.process = program, home, None
        self.api_port, self.rpc_port = ports
        home.mkdir(parents=True)
        self.config = home / "garage.toml"
        self.config.write_text(f"""\
metadata_dir = "{home}/meta"
data_dir = "{home}/data"
db_engine = "lmdb"
replication_factor = {replication}

rpc_secret = "{secret}"
rpc_bind_addr = "127.0.0.1:{self.rpc_port}"
rpc_public_addr = "127.0.0.1:{self.rpc_port}"

[s3_api]
s3_region = "{REGION}"
root_domain = ".{DOMAIN}"
api_bind_addr = "127.0.0.1:{self.api_port}"
""", encoding="ascii")

    def start(self):
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen([self.program, "-c", self.config, "server"], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, env={**os.environ, "RUST_LOG": "garage=warn"})
        until = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.api_port)) == 0:
                    return
            time.sleep(0.05)
        self.kill()
        sys.exit(f"a node of Garage did not start:\n{(self.home / 'log').read_text(errors='replace')[-2000:]}")

    def kill(self):
        """Like a loss of power: nothing is finished, and no peer is told."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def garage(self, *arguments):
        """Sends a command to this node and returns the output."""
        done = subprocess.run([self.program, "-c", self.config, *arguments], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.PIPE, env={**os.environ, "RUST_LOG": "garage=warn"})
        if done.returncode != 0:
            sys.exit(f"garage {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout


class Cluster:
    """Nodes that know each other, a bucket, and a key that may use it."""

    def __init__(self, home, nodes=3):
        program, secret = install(), secrets.token_hex(32)
        ports = free_ports(2 * nodes)
        self.nodes = [Node(program, home / f"node{n}", secret, ports[2 * n:2 * n + 2], nodes) for n in range(nodes)]
        try:
            self.begin()
        except BaseException:
            self.end()
            raise

    def begin(self):
        for node in self.nodes:
            node.start()
        first = self.nodes[0]
        names = [node.garage("node", "id", "-q").strip() for node in self.nodes]
        for name in names[1:]:
            first.garage("node", "connect", name)
        for number, name in enumerate(names):
            first.garage("layout", "assign", "--zone", f"zone{number}", "--capacity", "10GB", name.split("@")[0])
        first.garage("layout", "apply", "--version", "1")
        said = first.garage("key", "create", "bygone")
        self.key = re.search(r"Key ID: *(\S+)", said).group(1)
        self.secret = re.search(r"Secret key: *(\S+)", said).group(1)
        first.garage("bucket", "create", BUCKET)
        first.garage("bucket", "allow", "--read", "--write", BUCKET, "--key", self.key)

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.nodes[0].api_port}"

    def environment(self):
        """The environment of a client."""
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_REGION": REGION}

    def is_healthy(self):
        """Whether every node sees every other, and each object is on all of its nodes."""
        return '"status": "healthy"' in self.nodes[0].garage("json-api", "GetClusterHealth")

    def end(self):
        for node in self.nodes:
            node.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="bygone-garage-") as home, Cluster(Path(home), count) as cluster:
        for name, value in cluster.environment().items():
            print(f"export {name}={value}")
        print(f"export BYGONE_REPO='s3://{BUCKET}/repository?endpoint={cluster.endpoint}&region={REGION}'", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
