"""What scripts/bench measures of bygone's mount alone: readers of the tree, of one big file, of a million files.

Native figures are taken in the same run. Each "cold" run has a new mount; "warm" runs read again in the same mount.
Peaks of the serving process count from the moment of mounting. Before that, it derives the key from the passphrase, which
always takes the memory that the repository demands (64 MiB).
"""

import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import measuring
from measuring import MEMORY_MB, Mount, peak_at_most, remove, run, shell, times_base, verdict, wall_at_most

BIG_BYTES = 4 << 30
MILLION = 1_000_000


def rate_at_least(size_bytes, limit_gb_s):
    def target(wall, _):
        rate = size_bytes / 1e9 / wall
        return f"{rate:.2f} GB/s of {limit_gb_s:.2f} wanted {'ok' if rate >= limit_gb_s else 'OVER'}"
    return target


def milliseconds(took, p50_limit, p99_limit):
    """Verdicts on sorted times."""
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    return f"{p50:.2f} / {p99:.2f}", [verdict("p50", p50, p50_limit, "ms"), verdict("p99", p99, p99_limit, "ms")]


class MountFigures:
    """`tool` is bygone, with an empty repository."""

    def __init__(self, table, tool, source, runs):
        self.table, self.tool, self.source, self.runs = table, tool, source, runs
        self.point = measuring.WORK / "mnt"

    def mount(self):
        mounted = Mount([*self.tool.mount(self.point)], self.tool.env, self.point)
        mounted.forget_peak()
        return mounted

    def backup(self, source):
        run([self.tool.program, *self.tool.backup(source)], self.tool.env)

    def cold(self, row, action, *targets):
        costs = []
        for _ in range(self.runs):
            with self.mount() as mount:
                costs.append(mount.costs(action))
        return self.table.add("bygone", row, costs, targets)

    def warm(self, row, action, *targets):
        with self.mount() as mount:
            action()
            costs = [mount.costs(action) for _ in range(self.runs)]
        self.table.add("bygone", row, costs, targets)

    def native(self, key, action):
        self.table.base[key] = self.table.add("", key, [action() for _ in range(self.runs)])

    def native_cold(self, key, reading):
        """The cost of reading the tree from a disk with cold caches; needs root."""
        with tempfile.TemporaryDirectory(prefix="bygone-bench-", dir="/var/tmp") as disk:
            top = Path(disk) / "tree"
            subprocess.run(["cp", "-a", self.source, top], check=True)

            def read():
                subprocess.run(["sync", "-f", top], check=True)
                Path("/proc/sys/vm/drop_caches").write_text("3")
                return reading(top)()

            self.native(key, read)

    def tree(self):
        """Readers of the tree. Afterwards the repository holds two snapshots of it."""
        for _ in range(2):
            self.backup(self.source)
        with self.mount():
            inside = self.tool.inside(self.point, self.source)
            both = sorted(entry.name for entry in os.scandir(self.point / "snapshots") if entry.is_dir(follow_symlinks=False))[-2:]
        first, second = [self.point / "snapshots" / name / self.source.relative_to("/") for name in both]
        find = lambda top: lambda: run(["find", top])
        grep = lambda top: lambda: run(["env", "LC_ALL=C", "grep", "-rlF", "no file of it holds these words", top], ok=(0, 1))
        self.native("grep -r", grep(self.source))
        self.native_cold("grep -r from a disk, nothing cached", grep)
        found = self.cold("find, cold", find(inside), wall_at_most(1.2), peak_at_most(60))
        self.warm("find, warm", find(inside), times_base(self.table, "find", 1.5))
        self.cold("ls -lR, cold", lambda: run(["ls", "-lR", inside]), wall_at_most(2.0), peak_at_most(60))
        self.cold("grep -r, cold", grep(inside), times_base(self.table, "grep -r from a disk, nothing cached", 2.0))
        self.warm("grep -r, warm", grep(inside), times_base(self.table, "grep -r", 1.5))
        self.cold("diff -r of two snapshots", lambda: run(["diff", "-r", "--no-dereference", first, second]),
                  wall_at_most(0.5 + found))
        copy = measuring.WORK / "copy"

        def copied():
            remove(copy)
            return run(["cp", "-r", inside, copy])

        self.cold("cp -r, cold", copied, times_base(self.table, "cp -r", 1.3), peak_at_most(MEMORY_MB))
        remove(copy)

    def big(self):
        """One file of 4 GiB, of content that compresses and of content that does not."""
        free = shutil.disk_usage(measuring.WORK).free
        if free < 3 * BIG_BYTES:
            print(f"bygone   one big file: left out, {free / 1e9:.0f} GB are free of {3 * BIG_BYTES / 1e9:.0f}", flush=True)
            return
        texts = f"for i in 1 2 3 4 5 6 7 8; do echo $i; tar cf - -C '{self.source}' . 2>/dev/null || true; done"
        self.one_big("text", f"({texts}) | head -c {BIG_BYTES} >", 0.9)
        self.one_big("noise", f"head -c {BIG_BYTES} /dev/urandom >", 0.7)

    def one_big(self, kind, make, wanted_gb_s):
        path = measuring.WORK / f"big-{kind}"
        subprocess.run(["bash", "-c", f"{make} '{path}'"], check=True, stderr=subprocess.DEVNULL)
        if path.stat().st_size != BIG_BYTES:
            raise OSError(f"{path} is not as long as it should be")
        whole = lambda file: lambda: run(["dd", f"if={file}", "of=/dev/null", "bs=1M", "status=none"])
        self.native(f"dd, 4 GiB of {kind}", whole(path))
        self.backup(path)
        remove(path)
        inside = self.tool.inside(self.point, path)
        rate = rate_at_least(BIG_BYTES, wanted_gb_s)
        alone = self.cold(f"dd, 4 GiB of {kind}, cold", whole(inside), rate, peak_at_most(MEMORY_MB))
        self.warm(f"dd, 4 GiB of {kind}, warm", whole(inside), times_base(self.table, f"dd, 4 GiB of {kind}", 1.5))
        quarter = BIG_BYTES >> 22
        parts = " ".join(f"dd 'if={inside}' of=/dev/null bs=1M status=none count={quarter} skip={i * quarter} &" for i in range(4))
        self.cold(f"4 readers of {kind}, cold", lambda: shell(f"{parts} wait"), rate_at_least(BIG_BYTES, BIG_BYTES / 1e9 / alone),
                  peak_at_most(MEMORY_MB))
        with self.mount() as mount:
            shown, verdicts = milliseconds(random_places(inside), 0.5, 3.0)
            self.table.put("bygone", f"4 KiB of {kind}, ms: p50 / p99", shown, "", f"{mount.peak_mb():.0f}", verdicts)

    def million(self):
        """A walk over a million entries."""
        top = measuring.WORK / "million"
        remove(top)
        for i in range(MILLION // 1000):
            directory = top / f"{i:04}"
            directory.mkdir(parents=True)
            for j in range(1000):
                os.close(os.open(directory / f"file {j}", os.O_CREAT | os.O_WRONLY))
        self.backup(top)
        self.native("find, a million files", lambda: run(["find", top, "-printf", "%s %T@\\n"]))
        remove(top)
        inside = self.tool.inside(self.point, top)
        self.cold("find, a million files, cold", lambda: run(["find", inside, "-printf", "%s %T@\\n"]), peak_at_most(100))


def random_places(path, count=2000, seed=1):
    """Reads of 4 KiB at random places of one file: the times in milliseconds, sorted."""
    chosen, took = random.Random(seed), []
    handle = os.open(path, os.O_RDONLY)
    for _ in range(count):
        offset = chosen.randrange(BIG_BYTES - 4096)
        begin = time.perf_counter()
        os.pread(handle, 4096, offset)
        took.append((time.perf_counter() - begin) * 1000)
    os.close(handle)
    return sorted(took)
