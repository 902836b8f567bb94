"""Ranks that are not one job, or jobs that want one directory: refused in one line, with nothing written."""
import os
import shutil
import unittest

from harness import BINARY, SystemTest, execute, kill_everything, run, start, wait_until


class OneJobTest(SystemTest):
    def together(self, *commands):
        """One rank for each command, as a job script that starts them by hand might do."""
        words = ["mpirun", "--bind-to", "none"]
        for i, command in enumerate(commands):
            words += [*([":"] if i else []), "-n", "1", *map(str, command)]
        return execute(words)

    def refused(self, result, code, *parts):
        self.assertEqual(result.returncode, code, result.stdout)
        said = [line for line in result.stdout.splitlines() if line.startswith("tadapt: ")]
        self.assertEqual(len(said), 1, result.stdout)
        for part in parts:
            self.assertIn(part, said[0])

    def test_another_program_on_a_rank(self):
        other = self.scratch / "tadapt-dist"
        shutil.copy(BINARY, other)
        with open(other, "ab") as file:
            file.write(b"\0")
        words = self.train_words("programs", train__steps=2)
        self.refused(self.together([BINARY, *words], [BINARY, *words], [other, *words]), 78, "rank 2/3", str(other), "same build")
        self.assertFalse((self.scratch / "programs").exists())

    def test_other_options_on_a_rank(self):
        one = [BINARY, *self.train_words("options", train__steps=2)]
        other = [BINARY, *self.train_words("options", train__steps=3, log__every_seconds=2)]
        self.refused(self.together(one, other), 78, "rank 1/2", "train.steps (rank 0 has 2, this rank 3)", "log.every_seconds")
        self.assertFalse((self.scratch / "options").exists())

    def test_threads_are_of_a_rank(self):
        one = [BINARY, *self.train_words("places", train__steps=2, grid__threads=1)]
        other = [BINARY, *self.train_words("places", train__steps=2, grid__threads=2)]
        result = self.together(one, other)
        self.assertEqual(result.returncode, 0, result.stdout)

    def test_a_directory_that_another_job_has(self):
        process = start(self.train_words("held", train__steps=100000), 2)
        try:
            self.assertTrue(wait_until(lambda: (self.scratch / "held/metrics.jsonl").exists()))
            self.refused(run(self.train_words("held", train__steps=100000), 2), 73, "held", "pid", os.uname().nodename)
        finally:
            kill_everything(process)


if __name__ == "__main__":
    unittest.main()
