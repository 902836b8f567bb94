"""Runs tadapt-dist on the bundled toy pair as a user would, for the system tests (Python's standard library only)."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("TADAPT_BINARY", SOURCE / "build/release/tadapt-dist"))
CONFIG = SOURCE / "configs/toy.yaml"
# So many times the cases of a CI run; more than one is a campaign, which takes longer than that should.
CAMPAIGN = int(os.environ.get("TADAPT_CAMPAIGN", "1"))
FULL = CAMPAIGN > 1
SEED = int(os.environ.get("TADAPT_CAMPAIGN_SEED", "1"))
TIMEOUT_SECONDS = 300

ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   OMPI_MCA_rmaps_base_oversubscribe="1", OMPI_MCA_btl_vader_single_copy_mechanism="none")


def tell(row, what, good, cases):
    """The line that tools/reliability collects."""
    print(f"{row}: {what}: {good}/{cases} (seed {SEED})", flush=True)


def settings(**options):
    """`--set` flags; train__steps=3 means train.steps=3."""
    return [word for key, value in options.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


def command(words, ranks=1):
    launcher = ["mpirun", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []
    return [*launcher, str(BINARY), *map(str, words)]


def execute(words, **environment):
    """A finished program with its output; a hang is a failure."""
    return subprocess.run(words, env=ENVIRONMENT | environment, timeout=TIMEOUT_SECONDS, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run(words, ranks=1):
    """A finished command of tadapt-dist with its output."""
    return execute(command(words, ranks))


def start(words, ranks=1):
    """A running command in a session of its own, so that all its processes can be signalled."""
    return subprocess.Popen(command(words, ranks), env=ENVIRONMENT, text=True, start_new_session=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def rank_pids(process):
    """Pids of the tadapt-dist processes that `process` is or has started."""
    pids = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == process.pid or entry.name == str(process.pid):
                if (entry / "exe").resolve() == BINARY.resolve():
                    pids.append(int(entry.name))
            elif entry.name.isdigit():
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(stat[1]) == process.pid and (entry / "exe").resolve() == BINARY.resolve():
                    pids.append(int(entry.name))
        except (OSError, ValueError):
            continue  # it ended while we looked
    return pids


def kill_everything(process):
    """SIGKILL to the ranks and their launcher, then waits."""
    for pid in rank_pids(process):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def tree_bytes(folder):
    """{relative path: content} of all files below a folder."""
    folder = pathlib.Path(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class SystemTest(unittest.TestCase):
    """A scratch folder, and a small cache of the toy pair shared by all tests of a class."""

    ROWS = 16000

    @classmethod
    def setUpClass(cls):
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="tadapt-system-"))
        cls.cache = cls.scratch / "cache"
        result = run(["capture", "--config", CONFIG, "--out", cls.cache, "--max-tokens", cls.ROWS,
                      *settings(cache__sequences_per_shard=64)])
        if result.returncode != 0:
            raise AssertionError(f"capture failed: {result.stdout}")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.scratch, ignore_errors=True)

    def succeed(self, *words, ranks=1):
        """What a command prints that must end well."""
        result = run(words, ranks)
        self.assertEqual(result.returncode, 0, result.stdout)
        return result.stdout

    def assert_same_files(self, folder, expected):
        """Its files are those of tree_bytes(...), byte for byte."""
        found = tree_bytes(folder)
        self.assertEqual(sorted(found), sorted(expected))
        for name, content in expected.items():
            self.assertEqual(found[name], content, f"{name} of {folder} differs")

    def train_words(self, run_dir, **options):
        common = dict(run__dir=self.scratch / run_dir, cache__dir=self.cache, cache__max_tokens=self.ROWS,
                      cache__sequences_per_shard=64, train__window_tokens=4096, train__evaluate_every_steps=20,
                      log__every_seconds=1)
        return ["train", "--config", CONFIG, *settings(**(common | options))]

    def train(self, run_dir, ranks=1, **options):
        result = run(self.train_words(run_dir, **options), ranks)
        self.assertEqual(result.returncode, 0, result.stdout)
        return result

    def checkpoint(self, run_dir, step):
        return tree_bytes(self.scratch / run_dir / "checkpoints" / f"step-{step:09d}")

    def assert_same_run(self, one, other, step):
        """Weights, moments, counters, state and metrics are equal byte for byte."""
        expected, found = self.checkpoint(one, step), self.checkpoint(other, step)
        self.assertTrue(expected, f"{one} has no checkpoint of step {step}")
        self.assertEqual(sorted(expected), sorted(found))
        for name in expected:
            self.assertEqual(expected[name], found[name], f"{name} of {other} differs from {one}")
        metrics = [(self.scratch / name / "metrics.jsonl").read_bytes() for name in (one, other)]
        self.assertEqual(metrics[0], metrics[1], f"metrics of {other} differ from {one}")


def wait_until(condition, seconds=60.0, every=0.002):
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(every)
    return False
