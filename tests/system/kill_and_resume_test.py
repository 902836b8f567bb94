"""Runs that are killed, signalled or find a damaged checkpoint end exactly as the undisturbed run."""
import os
import pathlib
import random
import re
import shutil
import signal
import time
import unittest

from harness import CAMPAIGN, FULL, SEED, SystemTest, kill_everything, rank_pids, run, start, tell, wait_until

STEPS = 300
KILLS = 6 * CAMPAIGN
SIGNALS = 3 * CAMPAIGN


class KillAndResumeTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls()
        test.train("undisturbed", train__steps=STEPS, checkpoint__every_steps=5)

    def words(self, name):
        return self.train_words(name, train__steps=STEPS, checkpoint__every_steps=5)

    def kill_somewhere(self, name, draw, while_writing):
        """Starts the run on some ranks and kills it; whether it was killed, and while a checkpoint was written."""
        ranks = draw.choice([1, 2, 3, 4, 8] if FULL else [1, 2, 3, 4])
        process = start(self.words(name), ranks)
        self.assertTrue(wait_until(lambda: rank_pids(process)), "no rank started")
        writing = False
        if while_writing:
            checkpoints = self.scratch / name / "checkpoints"
            time.sleep(draw.uniform(0.3, 1.0))
            writing = wait_until(lambda: any(checkpoints.glob("*.tmp")) or process.poll() is not None, every=0.0005)
        else:
            time.sleep(draw.uniform(0.2, 2.0))
        if process.poll() is not None:
            process.communicate()
            return False, False
        if draw.random() < 0.5 and ranks > 1:
            os.kill(draw.choice(rank_pids(process)), signal.SIGKILL)
            started = time.monotonic()
            process.communicate(timeout=60)
            self.assertLess(time.monotonic() - started, 10.0, "the other ranks outlived a killed one")
            self.assertNotEqual(process.returncode, 0)
        kill_everything(process)
        return True, writing

    def test_random_kills_and_changing_rank_counts(self):
        draw = random.Random(SEED)
        kills = inside_writes = runs = 0
        while kills < KILLS:
            runs += 1
            name = f"killed-{runs}"
            of_run, going = 0, True
            while going and kills < KILLS:
                # Half of the kills fall into the writing of a checkpoint: while its .tmp folder is there.
                going, writing = self.kill_somewhere(name, draw, while_writing=kills % 2 == 1)
                kills, of_run, inside_writes = kills + going, of_run + going, inside_writes + writing
            self.assertGreater(of_run, 0, "the run ended before it could be killed")
            result = run(self.words(name), 2)
            self.assertEqual(result.returncode, 0, result.stdout)
            self.assert_same_run("undisturbed", name, STEPS)
        tell("R1", f"kills of {runs} runs, {inside_writes} while a checkpoint was written, each run byte for byte the "
                   "undisturbed one", kills, KILLS)

    def test_the_same_seed_gives_the_same_run(self):
        self.train("again", train__steps=STEPS, checkpoint__every_steps=5)
        self.assert_same_run("undisturbed", "again", STEPS)
        tell("R18", "the same seed twice, byte for byte", 1, 1)

    def test_signals_save_and_end_with_75(self):
        """At a random moment from the ranks' start to their end; every other run captures its cache first."""
        draw = random.Random(SEED)
        heard = runs = 0
        while heard < SIGNALS:
            # mpirun forwards SIGUSR1 and SIGUSR2 to its ranks; SIGTERM is for a process alone.
            number, ranks = ((signal.SIGTERM, 1), (signal.SIGUSR1, 3), (signal.SIGUSR2, 1))[heard % 3]
            own_cache = dict(cache__dir=self.scratch / "own-cache") if runs % 2 else {}
            with self.subTest(f"{number.name} {runs}"):
                name = f"signalled-{runs}"
                words = self.train_words(name, train__steps=STEPS, checkpoint__every_steps=5, **own_cache)
                process = start(words, ranks)
                self.wait_until_signals_are_caught(process, ranks, number)
                time.sleep(draw.uniform(0, 1.5))
                os.kill(process.pid, number)
                output, _ = process.communicate(timeout=60)
                self.assertIn(process.returncode, (0, 75), output)
                if process.returncode == 75:
                    heard += 1
                    self.assertRegex(output, r"tadapt: exit=75 reason=signal step=\d+ checkpoint=\S+")
                    self.assertEqual(run(words, draw.choice([1, 2, 4])).returncode, 0)
                self.assert_same_run("undisturbed", name, STEPS)
                shutil.rmtree(self.scratch / name)
                shutil.rmtree(self.scratch / "own-cache", ignore_errors=True)
            runs += 1
        tell("R9", f"signals at random moments of {runs} runs: saved, 75, gone on with byte for byte", heard, SIGNALS)

    def wait_until_signals_are_caught(self, process, ranks, number):
        def catches(pid):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            return int(re.search(r"SigCgt:\s*(\w+)", status).group(1), 16) >> (number - 1) & 1

        def all_catch():
            pids = rank_pids(process)
            return len(pids) == ranks and all(map(catches, pids))

        self.assertTrue(wait_until(all_catch), "no rank catches signals")

    def test_a_signal_while_mpi_starts_is_not_lost(self):
        process = start(self.words("early"), 2)
        self.wait_until_signals_are_caught(process, 2, signal.SIGTERM)
        for pid in rank_pids(process):
            os.kill(pid, signal.SIGTERM)
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
