"""A disk that runs full while training or sweeping (a small tmpfs): named, nothing lost, gone on with once there is room."""
import os
import random
import shutil
import subprocess
import unittest

from harness import CAMPAIGN, CONFIG, SEED, SystemTest, run, settings, tell

STEPS = 60
DISK_BYTES = 32 << 20


@unittest.skipUnless(os.geteuid() == 0, "only root may mount a tmpfs")
class FullDiskTest(SystemTest):
    OPTIONS = dict(train__steps=STEPS, checkpoint__every_steps=5)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.disk = cls.scratch / "disk"
        cls.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", cls.disk], check=True)
        test = cls()
        test.train("undisturbed", **cls.OPTIONS)
        test.sweep("study")

    @classmethod
    def tearDownClass(cls):
        subprocess.run(["umount", cls.disk], check=True)
        super().tearDownClass()

    def sweep_words(self, out):
        options = self.OPTIONS | dict(cache__dir=self.cache, cache__max_tokens=self.ROWS, cache__sequences_per_shard=64,
                                      train__window_tokens=4096, log__every_seconds=1)
        return ["sweep", "--config", CONFIG, "--out", self.scratch / out, "--dict", "64,128", "--l1", "0.03",
                "--evaluate", "no", *settings(**options)]

    def sweep(self, out):
        result = run(self.sweep_words(out))
        self.assertEqual(result.returncode, 0, result.stdout)

    def run_on_full_disk(self, words, name, room):
        """Whether `words` ended for want of room with only `room` bytes left. Afterwards there is room again."""
        filler = self.disk / "filler"
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free() - room)
        result = run(words)
        filler.unlink()
        if result.returncode == 0:
            return False
        self.assertEqual(result.returncode, 73, result.stdout)
        self.assertRegex(result.stdout, rf"tadapt: .*{self.disk}/{name}/.*No space left on device")
        return True

    def free(self):
        state = os.statvfs(self.disk)
        return state.f_bavail * state.f_frsize

    def test_train(self):
        draw = random.Random(SEED)
        full = 0
        for case in range(3 * CAMPAIGN):
            name = f"train-{case}"
            words = self.train_words(f"disk/{name}", **self.OPTIONS)
            full += self.run_on_full_disk(words, name, draw.randrange(1 << 14, 4 << 20))
            result = run(words, 2)
            self.assertEqual(result.returncode, 0, result.stdout)
            self.assert_same_run("undisturbed", f"disk/{name}", STEPS)
            shutil.rmtree(self.disk / name)
        self.assertGreater(full, 0)
        tell("R8", "trainings on a tmpfs that runs full, gone on with: byte for byte the undisturbed one", full, full)

    def test_sweep(self):
        draw = random.Random(SEED)
        words = self.sweep_words("disk/study")
        self.assertTrue(self.run_on_full_disk(words, "study", draw.randrange(1 << 18, 1 << 20)))
        result = run(words, 2)
        self.assertEqual(result.returncode, 0, result.stdout)
        for name in ("d64-l0.03-s0", "d128-l0.03-s0"):
            self.assert_same_run(f"study/runs/{name}", f"disk/study/runs/{name}", STEPS)


if __name__ == "__main__":
    unittest.main()
