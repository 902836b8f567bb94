"""Runs that are killed, signalled or find a damaged checkpoint end exactly as the undisturbed run."""
import os
import pathlib
import random
import re
import signal
import time
import unittest

from harness import FULL, SEED, SystemTest, kill_everything, rank_pids, run, start, wait_until

STEPS = 300
KILLS = 20 if FULL else 6


class KillAndResumeTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls()
        test.train("undisturbed", train__steps=STEPS, checkpoint__every_steps=5)

    def words(self, name):
        return self.train_words(name, train__steps=STEPS, checkpoint__every_steps=5)

    def test_random_kills_and_changing_rank_counts(self):
        print(f"seed {SEED}")
        draw = random.Random(SEED)
        killed = inside_writes = 0
        checkpoints = self.scratch / "killed/checkpoints"
        while killed < KILLS:
            ranks = draw.choice([1, 2, 3, 4])
            process = start(self.words("killed"), ranks)
            self.assertTrue(wait_until(lambda: rank_pids(process)), "no rank started")
            if killed % 2 == 1:
                # Half of the kills fall into the writing of a checkpoint: while its .tmp folder is there.
                time.sleep(draw.uniform(0.3, 1.0))
                writing = wait_until(lambda: any(checkpoints.glob("*.tmp")) or process.poll() is not None, every=0.0005)
                inside_writes += writing and process.poll() is None
            else:
                time.sleep(draw.uniform(0.2, 2.0))
            if process.poll() is not None:
                process.communicate()
                break
            if draw.random() < 0.5 and ranks > 1:
                os.kill(draw.choice(rank_pids(process)), signal.SIGKILL)
                started = time.monotonic()
                process.communicate(timeout=60)
                self.assertLess(time.monotonic() - started, 10.0, "the other ranks outlived a killed one")
                self.assertNotEqual(process.returncode, 0)
            kill_everything(process)
            killed += 1
        self.assertGreater(killed, 2, "the run ended before it could be killed")
        print(f"{killed} kills, {inside_writes} of them while a checkpoint was written")
        result = run(self.words("killed"), 2)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assert_same_run("undisturbed", "killed", STEPS)

    def test_signals_save_and_end_with_75(self):
        for number, ranks in ((signal.SIGTERM, 1), (signal.SIGUSR1, 3), (signal.SIGUSR2, 1)):
            with self.subTest(number.name):
                name = f"signalled-{number.name}"
                process = start(self.words(name), ranks)
                self.assertTrue(wait_until(lambda: any((self.scratch / name / "checkpoints").glob("step-*[0-9]"))))
                # mpirun forwards SIGUSR1 and SIGUSR2 to its ranks; SIGTERM is for a process alone.
                os.kill(process.pid, number)
                output, _ = process.communicate(timeout=60)
                self.assertIn(process.returncode, (75,), output)
                self.assertRegex(output, r"tadapt: exit=75 reason=signal step=\d+ checkpoint=\S+")
                self.assertEqual(run(self.words(name), 4).returncode, 0)
                self.assert_same_run("undisturbed", name, STEPS)

    def test_a_signal_while_mpi_starts_is_not_lost(self):
        def catches_sigterm(pid):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            return int(re.search(r"SigCgt:\s*(\w+)", status).group(1), 16) >> (signal.SIGTERM - 1) & 1

        process = start(self.words("early"), 2)
        signalled = set()
        while len(signalled) < 2:
            self.assertIsNone(process.poll(), "ended before it was signalled")
            for pid in set(rank_pids(process)) - signalled:
                if catches_sigterm(pid):
                    os.kill(pid, signal.SIGTERM)
                    signalled.add(pid)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertEqual(run(self.words("early"), 2).returncode, 0)
        self.assert_same_run("undisturbed", "early", STEPS)

    def test_a_flipped_bit_is_named_and_the_previous_checkpoint_used(self):
        process = start(self.words("flipped"))
        self.assertTrue(
            wait_until(lambda: len(list((self.scratch / "flipped/checkpoints").glob("step-*[0-9]"))) >= 2))
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
        newest = sorted((self.scratch / "flipped/checkpoints").glob("step-*[0-9]"))[-1]
        part = newest / "layer-002.safetensors"
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 0x10
        part.write_bytes(content)
        result = run(self.words("flipped"), 2)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertRegex(result.stdout, rf"WARNING.*{newest.name}.*layer-002\.safetensors")
        self.assertRegex(result.stdout, r"resumed from step \d+")
        resumed = int(re.search(r"resumed from step (\d+)", result.stdout).group(1))
        self.assertLess(resumed, int(newest.name.split("-")[1].split(".")[0]))
        self.assert_same_run("undisturbed", "flipped", STEPS)


if __name__ == "__main__":
    unittest.main()
