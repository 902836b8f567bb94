"""Labelling features with the whole program and a judge on this computer that is slow, wrong, rude or silent."""
import collections
import itertools
import json
import os
import random
import signal
import time
import unittest

os.environ["no_proxy"] = "127.0.0.1"  # before the harness takes the environment

from harness import (CAMPAIGN, SEED, SOURCE, SystemTest, command, execute, kill_everything, rank_pids, run, start, tell,
                     wait_until)
from judge_server import Judge, Request, rote, task_of

KEY = "sk-nobody-may-read-this"


class LabelTest(SystemTest):
    ROWS = 8000
    FEATURES = 12

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls()
        # Features that are rare enough for texts in which they are silent.
        test.train("run", train__steps=200, adapter__features=128, loss__sparsity=1)
        lines = (SOURCE / "data/toy/train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (cls.scratch / "corpus.jsonl").write_text("".join(lines[:1000]), encoding="utf-8")
        cls.collect(test, "features")
        test.succeed("select", cls.scratch / "features", "active(to=0.02)", "--out", cls.scratch / "rare.json")
        with Judge() as judge:
            test.label("expected", judge)
            cls.asked = len(judge.requests)
        cls.expected = {line["id"]: line["label"] for line in test.lines("expected")}

    def collect(self, out, *more):
        self.succeed("features", "--run", self.scratch / "run", "--corpus", self.scratch / "corpus.jsonl", "--out",
                     self.scratch / out, *more)

    def words(self, out, judge=None, *more, features="features", chosen="rare.json"):
        endpoint = ["--endpoint", judge.url] if judge else []
        return ["label", self.scratch / features, "--out", self.scratch / out, "--model", "rote", "--features",
                self.FEATURES, "--set", self.scratch / chosen, "--retry-seconds", 0.02, *endpoint, *more]

    def label(self, out, judge, *more):
        return self.succeed(*self.words(out, judge, *more))

    def lines(self, out):
        """Whole lines of labels.jsonl."""
        text = (self.scratch / out / "labels.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def assert_whole(self, out):
        """Each question was answered once, as the judge answers it."""
        lines = self.lines(out)
        self.assertEqual({line["id"]: line["label"] for line in lines}, self.expected)
        self.assertEqual(len(lines), len(self.expected))

    def refused(self, code, *needles, words, ranks=1, **environment):
        result = execute(command(words, ranks), **environment)
        self.assertEqual(result.returncode, code, result.stdout)
        errors = [line for line in result.stdout.splitlines() if line.startswith("tadapt: ") and "exit=" not in line]
        self.assertEqual(len(errors), 1, result.stdout)
        for needle in needles:
            self.assertIn(needle, errors[0])
        return result.stdout

    def test_labels_summary_and_readers_agree(self):
        lines = self.lines("expected")
        tasks = collections.Counter(line["task"] for line in lines)
        self.assertGreaterEqual(tasks["classify"], 6)
        self.assertEqual(tasks["classify"], tasks["describe"])
        self.assertGreaterEqual(tasks["detect"], 6)
        self.assertEqual(self.asked, len(lines))
        summary = json.loads((self.scratch / "expected/labels.summary.json").read_text())
        classes = collections.Counter(line["label"].split("/")[0] for line in lines if line["task"] == "classify")
        for name, share in summary["classes"].items():
            self.assertEqual(share["features"], classes[name])
            self.assertAlmostEqual(share["value"], classes[name] / tasks["classify"])
            self.assertLessEqual(share["low"], share["value"])
            self.assertGreaterEqual(share["high"], share["value"])
        for kind in ("top", "uniform"):
            scores = [0.5 * sum(right / shown for right, shown in (line["label"][kind], line["label"]["silent"]))
                      for line in lines if line["task"] == "detect" and line["label"][kind][1] > 0]
            self.assertEqual(summary["detection"][kind]["features"], len(scores))
            self.assertAlmostEqual(summary["detection"][kind]["value"], sum(scores) / len(scores))
        self.assertEqual(summary["features"]["chosen"], self.FEATURES)
        self.assertTrue(summary["features"]["sampled"])
        self.assertEqual(sum(task["prompt_tokens"] for task in summary["tokens"].values()), 100 * len(lines))
        labels = self.scratch / "expected/labels.jsonl"
        found = self.succeed("select", self.scratch / "features", f"class(reasoning, labels={labels})")
        self.assertIn(f" {classes['reasoning']} of 512", found)
        self.assertIn("labels, 0 graphs", self.succeed("features", "report", "--features", self.scratch / "features", "--out",
                                                       self.scratch / "site", "--labels", labels))

    def test_the_key_is_sent_and_written_nowhere(self):
        def echoes(request):
            request.answer(json.dumps({"label": "language", "you": request.key}))

        with Judge(echoes) as judge:
            words = self.words("secret", judge, "--tasks", "classify", "--key-variable", "JUDGE_KEY")
            result = execute(command(words), JUDGE_KEY=KEY)
            self.assertEqual(result.returncode, 0, result.stdout)
            self.assertEqual({request.key for request in judge.requests}, {f"Bearer {KEY}"})
        self.assertNotIn(KEY, result.stdout)
        for path in (self.scratch / "secret").iterdir():
            self.assertNotIn(KEY, path.read_text(encoding="utf-8"), path)
        self.refused(78, "--key-variable: $JUDGE_KEY is not set", words=words)

    def test_a_judge_that_misbehaves_now_and_then_changes_nothing(self):
        ways = [Request.well,
                lambda request: request.sleep(1.5),
                lambda request: request.refuse(429, "slower", Retry_After="1"),
                lambda request: request.refuse(503, "later"),
                lambda request: request.reply(500, b"<html>oh</html>"),
                lambda request: request.reply(200, b'{"choices": [{"mess'),
                lambda request: request.answer('{"label": "grammar", "description": "", "active": [99]}'),
                lambda request: request.answer("I would rather not say."),
                lambda request: request.cut(),
                lambda request: request.cut(after=20)]
        good = 0
        for case in range(CAMPAIGN):
            draw = random.Random(SEED + case)
            order = itertools.cycle(draw.sample(ways, len(ways)))

            def behave(request):
                (next(order) if request.attempt < 3 else Request.well)(request)

            with Judge(behave) as judge:
                self.label(f"rude-{case}", judge, "--timeout-seconds", 1, "--retries", 4, "--concurrency",
                           draw.choice((1, 4, 20)))
            self.assert_whole(f"rude-{case}")
            good += 1
        tell("label", "judges that are slow, limited, broken, wrong and cut off, then the same labels", good, CAMPAIGN)

    def test_limits_are_obeyed(self):
        def once(request):
            if request is judge.requests[0]:
                request.refuse(429, "slower", Retry_After="2")
            else:
                request.sleep(0.2)
                request.well()

        with Judge(once) as judge:
            self.label("limited", judge, "--tasks", "classify", "--concurrency", 3)
            self.assertGreaterEqual(judge.requests[3].time - judge.requests[0].time, 1.9, "all wait as the endpoint asks")
            self.assertEqual(judge.most, 3)
        with Judge() as judge:
            self.label("paced", judge, "--tasks", "classify", "--requests-per-minute", 600)
            times = [request.time for request in judge.requests]
            self.assertGreaterEqual(times[-1] - times[0], 0.095 * (len(times) - 1))

    def test_answers_that_are_never_right_are_kept_without_a_label(self):
        def stubborn(request):
            if task_of(request.body) == "classify":
                request.answer('{"label": "grammar"}')
            else:
                request.well()

        with Judge(stubborn) as judge:
            said = self.label("stubborn", judge, "--retries", 2)
            wrong = [line for line in self.lines("stubborn") if line["label"] is None]
            self.assertTrue(wrong)
            for line in wrong:
                self.assertEqual((line["task"], line["answer"], line["answer_tokens"]),
                                 ("classify", '{"label": "grammar"}', 30))
                self.assertIn("expected one of language", line["problem"])
            self.assertIn(f"classify: {len(wrong)} questions, 0 labelled, {len(wrong)} answered without a label, 0", said)
            came = len(judge.requests)
            self.label("stubborn", judge, "--retries", 2)
            self.assertEqual(len(judge.requests), came, "what was answered is not asked again")
        with Judge() as judge:
            self.label("stubborn", judge, "--again")
            self.assertEqual(len(judge.requests), len(wrong))
        self.assertEqual({line["id"]: line["label"] for line in self.lines("stubborn")}, self.expected)

    def test_what_has_no_hope_ends_at_once_in_one_line(self):
        def after_three(behave):
            def one(request):
                if request not in judge.requests[:3]:
                    return behave(request)
                return request.well()
            return one

        url = "/v1/chat/completions: "
        cases = [(401, lambda request: request.refuse(401, f"who is {request.key}?"), 78, (url + "HTTP 401: \"who is ",)),
                 (403, lambda request: request.refuse(403, "not you"), 78, (url + "HTTP 403: \"not you\"",)),
                 (404, lambda request: request.refuse(404, "no such model"), 78, (url + "HTTP 404: \"no such model\"",)),
                 (302, lambda request: request.reply(302, Location="http://127.0.0.1:1/"), 78, (url + "HTTP 302",)),
                 ("silent", lambda request: request.sleep(60), 5, (url + "no answer within 0.3 s (asked 3 times)",)),
                 ("busy", lambda request: request.refuse(503, "busy"), 4, (url + "HTTP 503: \"busy\" (asked 3 times)",)),
                 ("later", lambda request: request.refuse(429, "no", Retry_After="86400"), 4, (url, "86400 s")),
                 ("cut", lambda request: request.cut(), 4, (url, "(asked 3 times)"))]
        for name, behave, code, needles in cases:
            with self.subTest(name), Judge(after_three(behave)) as judge:
                words = self.words(f"ends-{name}", judge, "--retries", 2, "--concurrency", 2, "--timeout-seconds", 0.3)
                said = self.refused(code, *needles, words=words, OPENAI_API_KEY=KEY)
                self.assertNotIn(KEY, said)
                self.assertIn(len(self.lines(f"ends-{name}")), (2, 3), "what was answered is kept")
                if isinstance(name, int):
                    self.assertLessEqual(len(judge.requests), 5, "nothing is asked again")
            with Judge() as judge:
                self.label(f"ends-{name}", judge)
            self.assert_whole(f"ends-{name}")
        with Judge(lambda request: request.refuse(401, "who?")) as judge:
            self.refused(78, "(no key was sent: $OPENAI_API_KEY is not set)", words=self.words("keyless", judge),
                         OPENAI_API_KEY="")
        with Judge() as judge:
            gone = judge.url
        self.refused(4, gone, "(asked 2 times)", words=[*self.words("gone"), "--endpoint", gone, "--retries", 1])

    def test_a_question_that_is_refused_for_itself(self):
        def too_long(request):
            if task_of(request.body) == "describe":
                request.refuse(400, "too long")
            else:
                request.well()

        with Judge(too_long) as judge:
            said = self.label("long", judge, "--concurrency", 2)
        problems = {line["problem"] for line in self.lines("long") if line["task"] == "describe"}
        self.assertEqual(problems, {'HTTP 400: "too long"'})
        self.assertIn("0 labelled", said)
        with Judge(lambda request: request.refuse(400, "temperature is not for you")) as judge:
            self.refused(78, "HTTP 400: \"temperature is not for you\"", words=self.words("form", judge))
            self.assertLessEqual(len(judge.requests), 8)
        self.assertEqual(self.lines("form"), [])

    def test_kills_and_stops_lose_and_repeat_nothing(self):
        def slow(request):
            request.sleep(0.05)
            request.well()

        good = 0
        for case in range(CAMPAIGN):
            draw = random.Random(SEED + case)
            out = f"killed-{case}"
            with Judge(slow) as judge:
                words = self.words(out, judge, "--concurrency", 2)
                for attempt in range(3):
                    enough = len(judge.requests) + draw.randint(2, 6)
                    process = start(words)
                    wait_until(lambda: len(judge.requests) >= enough or process.poll() is not None)
                    if attempt % 2 == 0:
                        kill_everything(process)
                        with open(self.scratch / out / "labels.jsonl", "a", encoding="utf-8") as labels:
                            labels.write('{"adapters": "tor')  # as a kill in the middle of a write would leave it
                        continue
                    for pid in rank_pids(process):
                        os.kill(pid, signal.SIGUSR1)
                    said, _ = process.communicate(timeout=60)
                    self.assertEqual(process.returncode, 75, said)
                    self.assertIn("reason=signal", said)
                before = {line["id"] for line in self.lines(out)}
                came = len(judge.requests)
                self.label(out, judge)
                self.assertEqual(len(judge.requests) - came, len(self.expected) - len(before))
            self.assert_whole(out)
            good += 1
        tell("label", "jobs killed and stopped, then every question answered once", good, CAMPAIGN)

    def test_without_an_endpoint(self):
        for stage in ("first", "second"):
            said = self.succeed(*self.words("by-hand", None, "--export-prompts", self.scratch / "prompts.jsonl"))
            self.assertEqual("left to do" in said, stage == "first")
            prompts = [json.loads(line) for line in (self.scratch / "prompts.jsonl").read_text().splitlines()]
            answers = [{"id": prompt["custom_id"], "answer": rote(prompt["body"])} for prompt in prompts]
            (self.scratch / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
            self.assertIn(f"{len(prompts)} answers taken",
                          self.succeed(*self.words("by-hand", None, "--import-labels", self.scratch / "answers.jsonl")))
        self.assert_whole("by-hand")

    def test_a_dry_run_writes_nothing(self):
        said = self.succeed(*self.words("dry", None, "--dry-run", "--price-in", 100000, "--requests-per-minute", 1))
        asked = collections.Counter(one.split("/")[0] for one in self.expected)
        self.assertIn(f"{self.asked} requests (classify {asked['classify']}, describe {asked['describe']}, detect "
                      f"{asked['detect']}) about {self.FEATURES} features", said)
        self.assertIn("cost ", said)
        self.assertIn(f"{self.asked / 60:.2f} hours", said)
        self.assertFalse((self.scratch / "dry").exists())

    def test_what_cannot_be_is_refused_in_one_line(self):
        with Judge() as judge:
            for code, words, *needles in [
                    (78, self.words("new", judge, "--concurency", 3), "did you mean --concurrency?"),
                    (78, self.words("new"), "expected one of --endpoint, --export-prompts"),
                    (78, [*self.words("new"), "--endpoint", "ftp://host"], "--endpoint: expected http[s]://", "ftp://host"),
                    (78, self.words("new", judge, "--tasks", "classify,praise"), "--tasks: ", "\"praise\""),
                    (78, self.words("new", judge, "--request", '{"stream": true}'), "--request: \"stream\""),
                    (78, self.words("new", judge, "--retries", "many"), "--retries: expected a number"),
                    (78, self.words("expected")[:4] + ["--model", "other", "--endpoint", judge.url],
                     "labels.jsonl:1: an answer of the judge 'rote', not of 'other'"),
                    (66, self.words("new", judge, features="nowhere"), "nowhere", "features.json"),
                    (66, self.words("new", judge, chosen="none.json"), "none.json")]:
                with self.subTest(needles):
                    self.refused(code, *needles, words=words)
            self.refused(78, "expected one rank, found 2", words=self.words("new", judge), ranks=2)
            self.collect("old", "--contrast", 0)
            self.refused(65, "old: has no contrast windows", "anew", words=self.words("new", judge, features="old"))
            self.assertEqual(judge.requests, [])
        self.train("again", train__steps=20, adapter__features=128)
        self.succeed("features", "--run", self.scratch / "again", "--corpus", self.scratch / "corpus.jsonl", "--out",
                     self.scratch / "features-again")
        self.succeed("select", self.scratch / "features-again", "active()", "--out", self.scratch / "again.json")
        with Judge() as judge:
            self.refused(78, "again.json", "but", words=self.words("new", judge, chosen="again.json"))
            self.refused(78, "a label of features of 'transcoder ",
                         words=self.words("expected", judge, features="features-again", chosen="again.json"))
            self.assertEqual(judge.requests, [])
        with Judge(lambda request: request.sleep(60)) as judge:
            first = start(self.words("shared", judge))
            wait_until(lambda: judge.requests)
            self.refused(73, "label.lock", words=self.words("shared", judge))
            kill_everything(first)


if __name__ == "__main__":
    unittest.main()
