"""What scripts/bench measures of a mount whose store is far away: a real S3 server behind a link with a round trip of 50 ms and
100 Mbit/s.

A link that is dead is the same link with its process stopped. Bytes and requests are those that went over the link.
"""

import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import garage
import measuring
from measuring import MB, MEMORY_MB, Mount, peak_at_most, remove, run, verdict

LATENCY_MS, MBIT = 25, 100
ROUND_TRIP_MS = 2 * LATENCY_MS
SMALL_FILES, LONG_FILES, LONG_BYTES = 4_000, 4, 15 * MB
READERS, STALLED = 16, 40


def settle(link):
    """Waits until the link has been idle for a while."""
    before = None
    while before != (before := link.counts()):
        time.sleep(0.3)


class FarMount:
    """`link_to` makes a link to a server, `programs` is the directory of the programs."""

    def __init__(self, table, cluster, link_to, programs):
        self.table, self.cluster, self.link_to, self.programs = table, cluster, link_to, programs
        self.home, self.source = measuring.WORK / "far-mount", measuring.WORK / "far-mount-source"
        self.point = measuring.WORK / "mnt"
        self.server = cluster.endpoint.removeprefix("http://")
        self.env = {**os.environ, **cluster.environment(), "BYGONE_PASSPHRASE": "bench",
                    **{f"XDG_{name}_HOME": str(self.home / name.lower()) for name in ["STATE", "CACHE", "CONFIG"]}}

    def address(self, server):
        return f"s3://{garage.BUCKET}/far-mount?region={garage.REGION}&endpoint=http://{server}"

    def make(self):
        remove(self.home)
        remove(self.source)
        noise = random.Random(1)
        for number in range(SMALL_FILES):
            folder = self.source / "small" / f"{number % 40:02}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / str(number)).write_bytes(noise.randbytes(10_000))
        for number in range(LONG_FILES):
            (self.source / f"long{number}").write_bytes(noise.randbytes(LONG_BYTES))
        (self.source / "tiny").mkdir()
        for number in range(20):
            # Far apart, so that no read brings another file along.
            (self.source / "tiny" / f"{2 * number:02}").write_bytes(noise.randbytes(4_096))
            (self.source / "tiny" / f"{2 * number + 1:02}-between").write_bytes(noise.randbytes(4 * MB))
        for command in [["init"], ["backup", self.source]]:
            run([self.programs / "bygone", "-r", self.address(self.server), *command], self.env)

    def mount(self, link, keeps_cache=False):
        """A mount with an empty cache, or with the cache of the previous mount."""
        if not keeps_cache:
            remove(self.home / "cache")
        command = [self.programs / "bygone-mount", "-r", self.address(link.address), "-f", self.point]
        return Mount(command, self.env, self.point)

    def inside(self, name=""):
        return self.point / "latest" / self.source.relative_to("/") / name

    def all(self):
        self.make()
        with self.link_to(self.server, LATENCY_MS, MBIT) as link:
            self.looking(link)
            self.first_bytes(link)
            self.readers(link)
            self.copy(link)
            self.stall(link)
        remove(self.home)
        remove(self.source)

    def looking(self, link):
        with self.mount(link):
            self.inside().stat()
            before = link.counts()["requests"]
            for command in [["find"], ["ls", "-lR"], ["du", "-s"], ["stat", "-f"]]:
                subprocess.run([*command, self.inside()], check=True, stdout=subprocess.DEVNULL)
            self.table.fact("far", "find, ls -lR, du, stat: requests", link.counts()["requests"] - before, 0)

    def first_bytes(self, link):
        """Small files far from one another, read backwards, so that read-ahead never brings the next one."""
        took = []
        with self.mount(link):
            names = sorted((path for path in self.inside("tiny").iterdir() if "between" not in path.name), reverse=True)
            before = link.counts()["requests"]
            for path in names:
                begin = time.perf_counter()
                path.read_bytes()
                took.append((time.perf_counter() - begin) * 1000 / ROUND_TRIP_MS)
                settle(link)
            requests = link.counts()["requests"] - before
        later = sorted(took[1:])
        said = [verdict("median", later[len(later) // 2], 2, "round trips"), f"worst {later[-1]:.2f}",
                f"the first {took[0]:.2f}", f"{requests} requests for {len(took)} files and what was read ahead"]
        self.table.put("far", "one file of 4 KiB", "", "", "", said)

    def readers(self, link):
        with self.mount(link):
            path = self.inside("long0")
            path.stat()
            before = link.counts()["bytes_down"]
            with ThreadPoolExecutor(READERS) as pool:
                assert set(pool.map(lambda _: len(path.read_bytes()), range(READERS))) == {LONG_BYTES}
            fetched = link.counts()["bytes_down"] - before
        # Read-ahead at the end of the file also fetches what follows it in its volume.
        self.table.put("far", f"{READERS} readers of one file", "", "", "", [f"{fetched / LONG_BYTES:.3f} x its bytes fetched"])

    def copy(self, link):
        target = measuring.WORK / "far-mount-copy"
        remove(target)
        with self.mount(link) as mount:
            self.inside().stat()
            before = link.counts()
            cost = mount.costs(lambda: run(["cp", "-r", self.inside(), target]))
            after = link.counts()
        subprocess.run(["diff", "-r", self.source, target], check=True)
        remove(target)
        self.table.add("far", "cp -r", [cost], (peak_at_most(MEMORY_MB),))
        used = 100 * (after["bytes_down"] - before["bytes_down"]) * 8 / (MBIT * 1_000_000 * cost.wall_s)
        said = [f"{used:.1f} % of the link used {'ok' if used >= 85 else 'OVER (85 wanted)'}",
                f"{after['requests'] - before['requests']} requests"]
        self.table.put("far", "cp -r, the link", "", "", "", said)

    def stall(self, link):
        """Reads that need nothing from a dead link, and reads that are interrupted while they wait for it."""
        with self.mount(link):
            cached = self.inside("tiny/00")
            cached.read_bytes()
        # In a fresh mount it is only in the disk cache, and never in the page cache of the kernel.
        with self.mount(link, keeps_cache=True):
            held, paths = os.path.realpath(cached), [os.path.realpath(self.inside(f"long{n}")) for n in range(LONG_FILES)]
            os.stat(held)
            os.kill(link.process.pid, signal.SIGSTOP)
            stalled = []
            for number in range(STALLED):
                offset = 1 + number // LONG_FILES * 1_400_000
                tail = ["tail", f"-c+{offset}", paths[number % LONG_FILES]]
                stalled.append(subprocess.Popen(tail, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(1)
            waiting = sum(process.poll() is None for process in stalled)
            begin = time.perf_counter()
            with open(held, "rb") as file:
                file.read()
            read_ms = (time.perf_counter() - begin) * 1000
            begin = time.perf_counter()
            for process in stalled:
                process.send_signal(signal.SIGINT)
            for process in stalled:
                process.wait()
            ended_s = time.perf_counter() - begin
            os.kill(link.process.pid, signal.SIGCONT)
        self.table.put("far", f"cached read, {waiting} others wait", "", "", "", [verdict("took", read_ms, 50, "ms")])
        self.table.put("far", f"Ctrl-C to the {waiting}", "", "", "", [verdict("the last ended after", ended_s, 1.5, "s")])
