"""The instruments of scripts/bench: the cost of a program, the cost of a mount, and the table of figures."""

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

MB = 1_000_000
# The default of a mount's `--memory`.
MEMORY_MB = (128 << 20) / MB
TICKS = os.sysconf("SC_CLK_TCK")
# The working directory; the measuring script sets it.
WORK = None


class Cost:
    """The cost of one run."""

    def __init__(self, wall_s, cpu_s, peak_mb):
        self.wall_s, self.cpu_s, self.peak_mb = wall_s, cpu_s, peak_mb


class Table:
    """Rows, printed as they are measured."""

    def __init__(self):
        self.rows = []
        self.base = {}

    def add(self, program, row, costs, targets=()):
        """`targets` are triples of name, figure and limit."""
        median = lambda of: statistics.median(of(cost) for cost in costs)
        wall, cpu, peak = median(lambda c: c.wall_s), median(lambda c: c.cpu_s), max(c.peak_mb for c in costs)
        self.put(program, row, f"{wall:.2f}", f"{cpu:.2f}", f"{peak:.0f}", [target(wall, peak) for target in targets])
        return wall

    def put(self, program, row, wall, cpu, peak, verdicts):
        line = f"{program:<8} {row:<36} {wall:>8} {cpu:>8} {peak:>8}  {'; '.join(verdicts)}"
        self.rows.append(line)
        print(line, flush=True)

    def size(self, program, row, size_bytes, limit_mb=None):
        verdicts = [verdict("size", size_bytes / MB, limit_mb, "MB")] if limit_mb else []
        self.put(program, row, f"{size_bytes / MB:.1f}", "MB", "", verdicts)

    def fact(self, program, row, value, wanted=None):
        verdicts = [] if wanted is None else ["ok" if value == wanted else f"OVER (wanted {wanted})"]
        self.put(program, row, str(value), "", "", verdicts)


HEADER = f"{'program':<8} {'what':<36} {'wall s':>8} {'CPU s':>8} {'peak MB':>8}  targets"


def verdict(what, found, limit, unit):
    return f"{what} {found:.2f} of {limit:.2f} {unit} {'ok' if found <= limit else 'OVER'}"


def wall_at_most(limit_s):
    return lambda wall, peak: verdict("wall", wall, limit_s, "s")


def times_base(table, name, limit):
    base = table.base[name]
    return lambda wall, peak: verdict(f"{name} x", wall / base, limit, f"({base:.2f} s)")


def peak_at_most(limit_mb):
    return lambda wall, peak: verdict("peak", peak, limit_mb, "MB")


def run(command, env=None, quiet=True, ok=(0,)):
    """Runs `command` under /usr/bin/time, which starts it from a small process: a child of this one would begin its
    peak with this one's size."""
    figures = WORK / "figures"
    out = subprocess.DEVNULL if quiet else None
    begin = time.perf_counter()
    ended = subprocess.run(["/usr/bin/time", "-q", "-o", figures, "-f", "%U %S %M", *command], env=env, stdout=out,
                           stderr=subprocess.PIPE)
    wall_s = time.perf_counter() - begin
    if ended.returncode not in ok:
        sys.exit(f"{' '.join(map(str, command))} ended with {ended.returncode}:\n{ended.stderr.decode(errors='replace')}")
    user, system, peak_kib = figures.read_text().split()
    return Cost(wall_s, float(user) + float(system), int(peak_kib) * 1024 / MB)


def shell(text):
    return run(["bash", "-euo", "pipefail", "-c", text])


def remove(path):
    """Removes `path` if it exists; not timed."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=True)


def size_of(path):
    return sum(file.lstat().st_size for file in Path(path).rglob("*") if file.is_file() and not file.is_symlink())


def counted(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.count(b"\n")


def differences(source, other):
    """The number of differences that rsync finds; the first few go to the terminal."""
    command = ["rsync", "-aHAXn", "--checksum", "-i", "--delete", f"{source}/", f"{other}/"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()
    for line in lines[:5]:
        print("   ", line.decode(errors="replace"), file=sys.stderr)
    return len(lines)


class Mount:
    """A mount served by a child process, and the cost of that process."""

    def __init__(self, command, env, point):
        self.point = point
        point.mkdir(parents=True, exist_ok=True)
        with open(WORK / "mount.log", "wb") as log:
            self.process = subprocess.Popen([str(part) for part in command], env=env, stdout=log, stderr=log)
        for _ in range(6000):
            if self.process.poll() is not None or os.path.ismount(point):
                break
            time.sleep(0.01)
        if not os.path.ismount(point):
            self.process.kill()
            raise OSError(f"{command[0]} did not mount: {(WORK / 'mount.log').read_text(errors='replace').strip()[-300:]}")

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def forget_peak(self):
        """Resets the peak of memory, so that it covers only what follows."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        return int(kib) * 1024 / MB

    def costs(self, action):
        """The cost of `action()`, a run on the mount, with the serving process's share."""
        cpu_before = self.cpu_s()
        cost = action()
        return Cost(cost.wall_s, cost.cpu_s + self.cpu_s() - cpu_before, max(cost.peak_mb, self.peak_mb()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if subprocess.run(["umount", str(self.point)], stderr=subprocess.DEVNULL).returncode != 0:
            subprocess.run(["umount", "-l", str(self.point)])
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
