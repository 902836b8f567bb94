"""Jobs of a real Slurm on four virtual nodes: whatever ends one, it has saved, goes on, and ends as if undisturbed."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from harness import BINARY, CONFIG, FULL, SOURCE, SystemTest, execute, settings, wait_until
from slurm_cluster import Cluster, missing_programs

STEPS = 80
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


class SlurmTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="tadapt-slurm-"))
        cls.addClassCleanup(shutil.rmtree, cls.scratch, ignore_errors=True)
        folder = tempfile.mkdtemp(prefix="tadapt-cluster-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.cluster = Cluster(folder, TADAPT_HOME=str(SOURCE), TADAPT_PROGRAM=str(BINARY))
        cls.addClassCleanup(cls.cluster.stop)
        (cls.scratch / "tadapt.yaml").write_text(subprocess.run(
            [BINARY, "train", "--config", CONFIG, "--print-config", *settings(
                run__dir=cls.scratch / "undisturbed", cache__dir=cls.scratch / "cache", cache__max_tokens=cls.ROWS,
                cache__sequences_per_shard=64, train__steps=STEPS, train__window_tokens=4096,
                train__evaluate_every_steps=40, checkpoint__every_steps=5, log__every_seconds=1)],
            check=True, capture_output=True, text=True).stdout)
        test = cls()
        test.assert_completed(test.submit("capture"), "capture")
        # Slurm looks every 30 s for jobs that end within 30 s and the 25 s asked for: 5 to 35 s after the start. The other
        # tests use that time; the node they lose is not one of this job's.
        cls.timed = test.start_training("timed", "--time=1", "--signal=USR1@25", "--nodes=2", "--nodelist=n1,n2")
        test.halt(test.ranks(cls.timed))
        cls.plain = test.srun(["tadapt-dist", "--layers", "all"])

    @classmethod
    def tearDownClass(cls):
        pass  # the cluster goes first: see setUpClass

    def srun(self, words, *flags):
        """A step of 8 ranks on 4 nodes, by a user who has tadapt-dist in the PATH."""
        return self.cluster.execute(["srun", "--nodes=4", "--ntasks=8", *flags, *words], self.scratch,
                                    PATH=f"{BINARY.parent}:{self.cluster.environment['PATH']}")

    def submit(self, name, *words, flags=(), **environment):
        return self.cluster.submit(["--nodes=4", "--ntasks-per-node=2", *flags, SOURCE / f"slurm/{name}.sbatch", *words],
                                   self.scratch, **environment)

    def start_training(self, run_dir, *flags, **environment):
        """A job of slurm/train.sbatch that has written two checkpoints."""
        job = self.submit("train", "--layers", "all", "--run", run_dir, flags=flags, **environment)
        checkpoints = self.scratch / run_dir / "checkpoints"
        self.assertTrue(wait_until(lambda: len(list(checkpoints.glob("step-*[0-9]"))) >= 2, every=0.05), self.log(job))
        return job

    def log(self, job, name="train"):
        path = self.scratch / f"tadapt-{name}-{job}.log"
        return path.read_text() if path.exists() else ""

    def ranks(self, job, *variables):
        """Pids of a job's ranks that have these environment variables."""
        return [pid for pid in self.cluster.processes(f"SLURM_JOB_ID={job}", *variables)
                if os.path.realpath(f"/proc/{pid}/exe") == str(BINARY.resolve())]

    def halt(self, pids):
        """Lets ranks stand still until Slurm sends SIGCONT, as it does before a signal: a run need not be long then."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

    def assert_completed(self, job, name="train"):
        """The job ended with exit code 0; how often it started again."""
        end = self.cluster.wait_for_job(job, *ENDS)
        self.assertEqual(end["JobState"], "COMPLETED", self.log(job, name))
        self.assertIn("tadapt: exit=0 reason=finished", self.log(job, name))
        return int(end["Restarts"])

    def assert_saved_and_resumed(self, log, run_dir):
        """It saved at a signal before its end and went on behind that step, and nobody can tell from what it made."""
        saved = re.search(r"tadapt: exit=75 reason=signal step=(\d+) checkpoint=/\S+", log)
        self.assertTrue(saved, log)
        self.assertLess(int(saved.group(1)), STEPS)
        self.assertIn(f"resumed from step {saved.group(1)} of {STEPS}", log)
        self.assert_same_run("undisturbed", run_dir, STEPS)

    def test_srun_starts_it_as_written(self):
        self.assertEqual(self.plain.returncode, 0, self.plain.stdout)
        self.assertRegex(self.plain.stdout, r"Slurm job \d+: 8 ranks on 4 nodes, n\[1-4\]\n")
        self.assertEqual(self.plain.stdout.count("tadapt: exit=0 reason=finished"), 1)
        lines = self.plain.stdout.splitlines()
        self.assertEqual([line for line in lines if not line.isprintable()], [])
        progress = [line for line in lines if re.match(r"train: \d+/\d+ ", line)]
        self.assertGreater(len(progress), 1, self.plain.stdout)
        steps = [re.search(r"step (\d+)", line).group(1) for line in progress]
        self.assertEqual(len(set(steps)), len(steps), "more than one rank reports")

    def test_requeue(self):
        job = self.start_training("requeued")
        self.cluster.command("scontrol", "requeue", job)
        self.assertEqual(self.assert_completed(job), 1)
        self.assertRegex(self.log(job), rf"Slurm job {job}, restart 1: 8 ranks")
        self.assert_saved_and_resumed(self.log(job), "requeued")

    def test_the_time_ends(self):
        self.assertGreaterEqual(self.assert_completed(self.timed), 1)
        self.assertIn(f"tadapt: job {self.timed}: saved; requeued\n", self.log(self.timed))
        self.assertNotIn("failed", self.log(self.timed))
        self.assert_saved_and_resumed(self.log(self.timed), "timed")

    def test_cancel(self):
        job = self.start_training("cancelled")
        rank_zero, = self.ranks(job, "SLURM_PROCID=0")
        holder = rf"run\.lock: already in use by rank 0/8 \S+, pid {rank_zero}, Slurm job {job}\n"
        other = execute([BINARY, "--config", self.scratch / "tadapt.yaml", "--run", self.scratch / "cancelled"])
        self.assertEqual(other.returncode, 73, other.stdout)
        self.assertRegex(other.stdout, r"^tadapt: rank 0/1 \S+: \S+" + holder + "$")
        self.cluster.command("scancel", job)
        self.cluster.wait_for_job(job, "CANCELLED")
        again = self.submit("train", "--layers", "all", "--run", "cancelled")
        self.assertEqual(self.assert_completed(again), 0)
        self.assert_saved_and_resumed(self.log(job) + self.log(again), "cancelled")

    def test_a_node_is_lost(self):
        job = self.start_training("lost")
        self.halt(set(self.ranks(job)) - set(self.ranks(job, "SLURMD_NODENAME=n3")))
        self.cluster.stop_node("n3")
        if not FULL:  # Slurm finds out by itself, but takes half a minute
            self.cluster.command("scontrol", "update", "NodeName=n3", "State=DOWN", "Reason=lost")
        self.cluster.wait_for_job(job, "PENDING")
        self.cluster.start_node("n3")
        self.cluster.command("scontrol", "update", "NodeName=n3", "State=RESUME")
        self.assertEqual(self.assert_completed(job), 1)
        self.assert_saved_and_resumed(self.log(job), "lost")

    @unittest.skipUnless(FULL, "takes a minute: TADAPT_CAMPAIGN=full")
    def test_a_node_dies(self):
        job = self.start_training("dead")
        # A node without power closes no connection, as killed ranks do: the others are not to see that.
        self.halt(set(self.ranks(job)) - set(self.ranks(job, "SLURMD_NODENAME=n3")))
        self.cluster.kill_node("n3")
        self.cluster.wait_for_job(job, "PENDING")
        self.cluster.start_node("n3")
        self.assertEqual(self.assert_completed(job), 1)
        self.assertRegex(self.log(job), rf"resumed from step \d+ of {STEPS}")
        self.assert_same_run("undisturbed", "dead", STEPS)

    def test_restarts_are_counted(self):
        job = self.start_training("counted", TADAPT_MAX_RESTARTS="0")
        self.cluster.command("scancel", "--signal=USR1", job)
        end = self.cluster.wait_for_job(job, *ENDS)
        self.assertEqual((end["JobState"], end["ExitCode"], end["Restarts"]), ("FAILED", "75:0", "0"), self.log(job))
        self.assertIn("saved; not requeued, it has started again 0 times", self.log(job))

    def test_wrong_starts_are_said_in_one_line(self):
        singletons = self.srun(["tadapt-dist", "--run", "never"], "--mpi=none", "--kill-on-bad-exit=1", "--quiet")
        self.assertEqual(singletons.returncode, 78, singletons.stdout)
        self.assertEqual(re.findall("^tadapt: .*", singletons.stdout, re.MULTILINE), [
            "tadapt: srun started 8 processes that MPI does not connect; start them with srun --mpi=pmix, or mpirun"])
        self.assertFalse((self.scratch / "never").exists())
        refused = self.srun(["tadapt-dist", "--layers", "99"], "--kill-on-bad-exit=1")
        self.assertEqual(refused.returncode, 78, refused.stdout)
        self.assertEqual(len(re.findall("^tadapt: rank .*run\.layers", refused.stdout, re.MULTILINE)), 1, refused.stdout)
        no_slurm = execute(["bash", SOURCE / "slurm/train.sbatch"])
        self.assertEqual(no_slurm.returncode, 78, no_slurm.stdout)
        self.assertRegex(no_slurm.stdout, r"^tadapt: not in a job of Slurm; submit this script: sbatch .*\n$")


if __name__ == "__main__":
    if missing_programs():
        print(f"SKIPPED: {', '.join(missing_programs())} not found; `tools/install-dependencies --ci` installs them")
        sys.exit(77)
    unittest.main()
