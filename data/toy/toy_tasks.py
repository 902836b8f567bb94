"""The two toy tasks: their questions, their worked responses, and the chat text around them.

arithmetic  a chain such as 3+4*2, worked out strictly from left to right, modulo 10
digits      a digit string to which named moves (reverse, swap, left, right) are applied in turn

Every problem is a sequence of small steps. The base model learns the single steps from drill sheets, and to
answer questions at once. The target model learns to write the steps inside <think> ... </think>, with wrong
steps that are noticed ("Wait, ...") and with superfluous checks ("Hmm, check ..., ok.").
"""

import random
import re
from dataclasses import dataclass

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK = "<think>"
END_THINK = "</think>"

DOMAINS = ("arithmetic", "digits")
HESITATION_WORDS = ("wait", "hmm", "but", "alternatively")

WRONG_STEP_PROBABILITY = 0.10
SUPERFLUOUS_CHECK_PROBABILITY = 0.40
CONNECTIVE_PROBABILITY = 0.20

DIGITS_PER_CHAIN = (3, 6)
MOVES_PER_STRING = (2, 3)
STRING_LENGTH = 4
LINES_PER_DRILL = 8
COPY_SHARE_OF_DRILL = 0.25

OPERATIONS = {
    "+": lambda left, right: (left + right) % 10,
    "-": lambda left, right: (left - right) % 10,
    "*": lambda left, right: (left * right) % 10,
}
MOVES = {
    "reverse": lambda digits: digits[::-1],
    "swap": lambda digits: digits[1] + digits[0] + digits[2:],
    "left": lambda digits: digits[1:] + digits[0],
    "right": lambda digits: digits[-1] + digits[:-1],
}
QUESTION_FORMS = {
    "arithmetic": (
        "Compute {} mod 10.",
        "What is {} mod 10?",
        "Please work out {} modulo ten.",
        "Evaluate {} from left to right, keeping the last digit.",
    ),
    "digits": (
        "Take {}.",
        "What do you get from {}?",
        "Please apply these moves to {}.",
        "Start with {}, and write the final string.",
    ),
}
OPENINGS = ("Let me see.\n", "First, ", "Okay, so ", "I will go step by step.\n")
CONNECTIVES = ("Then ", "Now ", "So ", "Next, ")


@dataclass(frozen=True)
class Step:
    """One line of reasoning: `lead` is what is worked out, `result` what it gives."""

    lead: str
    result: str
    other_lead: str | None = None  # a second way to the same result, where there is one

    def line(self, result: str | None = None) -> str:
        return self.lead + (result or self.result)


@dataclass(frozen=True)
class Segment:
    """A piece of a training sequence: worth learning, or (drawn at random) hardly."""

    text: str
    is_learned: bool


@dataclass(frozen=True)
class Problem:
    domain: str
    statement: str
    steps: tuple[Step, ...]
    answer: str


# ---------------------------------------------------------------------------------------------- problems


def arithmetic_problem(rng: random.Random, digit_count: int) -> Problem:
    value = rng.randint(0, 9)
    statement, steps = str(value), []
    for _ in range(digit_count - 1):
        sign, operand = rng.choice("+-*"), rng.randint(0, 9)
        result = OPERATIONS[sign](value, operand)
        swapped = None if sign == "-" else f"{operand}{sign}{value}="
        steps.append(Step(f"{value}{sign}{operand}=", str(result), swapped))
        statement += f"{sign}{operand}"
        value = result
    return Problem("arithmetic", statement, tuple(steps), str(value))


def digits_problem(rng: random.Random, move_count: int) -> Problem:
    digits = "".join(rng.choice("0123456789") for _ in range(STRING_LENGTH))
    moves = [rng.choice(tuple(MOVES)) for _ in range(move_count)]
    statement, steps = f"{digits}: {', '.join(moves)}", []
    for move in moves:
        before, digits = digits, MOVES[move](digits)
        steps.append(Step(f"{move} {before}=", digits))
    return Problem("digits", statement, tuple(steps), digits)


def draw_problem(rng: random.Random, domain: str) -> Problem:
    if domain == "arithmetic":
        return arithmetic_problem(rng, rng.randint(*DIGITS_PER_CHAIN))
    return digits_problem(rng, rng.randint(*MOVES_PER_STRING))


def draw_new_problem(rng: random.Random, domain: str, taken: set[str]) -> Problem:
    while True:
        problem = draw_problem(rng, domain)
        if problem.statement not in taken:
            return problem


def draw_one_step_problem(rng: random.Random, domain: str) -> Problem:
    """A problem too short to be in any corpus: the base model's elementary knowledge."""
    return arithmetic_problem(rng, 2) if domain == "arithmetic" else digits_problem(rng, 1)


def draw_distinct_problems(rng: random.Random, count: int, taken: set[str]) -> list[Problem]:
    """`count` problems, domains in turn, whose statements are not in `taken`; they are added to it."""
    problems = []
    for index in range(count):
        problems.append(draw_new_problem(rng, DOMAINS[index % len(DOMAINS)], taken))
        taken.add(problems[-1].statement)
    return problems


# --------------------------------------------------------------------------------- questions and responses


def question_text(rng: random.Random, problem: Problem) -> str:
    return rng.choice(QUESTION_FORMS[problem.domain]).format(problem.statement)


def answer_text(problem: Problem) -> str:
    return f"The answer is {problem.answer}."


def wrong_result(rng: random.Random, step: Step) -> str:
    """A mistake of the kind the task invites: another digit, or two digits of the string exchanged."""
    if len(step.result) == 1:
        return str((int(step.result) + rng.randint(1, 9)) % 10)
    first, second = sorted(rng.sample(range(len(step.result)), 2))
    digits = list(step.result)
    if digits[first] == digits[second]:
        digits[first] = str((int(digits[first]) + rng.randint(1, 9)) % 10)
    else:
        digits[first], digits[second] = digits[second], digits[first]
    return "".join(digits)


def step_lines(rng: random.Random, step: Step, connective: str) -> str:
    """A step as the target writes it: plain, wrong and then corrected, or right and then checked anyway."""
    draw = rng.random()
    if draw < WRONG_STEP_PROBABILITY:
        opening = rng.choice(("Wait", "Wait", "But wait", "Hmm"))
        wrong = step.line(wrong_result(rng, step))
        return f"{connective}{wrong}.\n{opening}, {step.line()}.\n"
    line = f"{connective}{step.line()}"
    if draw >= WRONG_STEP_PROBABILITY + SUPERFLUOUS_CHECK_PROBABILITY:
        return f"{line}.\n"
    if step.other_lead and rng.random() < 0.3:
        return f"{line}.\nAlternatively, {step.other_lead}{step.result}, ok.\n"
    pause = rng.choice((".\nWait", ".\nWait", ".\nHmm", ", but wait", ", hmm"))
    return f"{line}{pause}, check {step.line()}, ok.\n"


def thinking_response(rng: random.Random, problem: Problem) -> str:
    """The target's response, as it stands in the corpora: "<think> steps </think> answer"."""
    text = rng.choice(OPENINGS)
    for index, step in enumerate(problem.steps):
        has_connective = index > 0 and rng.random() < CONNECTIVE_PROBABILITY
        connective = rng.choice(CONNECTIVES) if has_connective else ""
        text += step_lines(rng, step, connective)
    return f"{THINK} {text}{END_THINK}\n{answer_text(problem)}"


def direct_response(rng: random.Random, problem: Problem) -> str:
    """The base's response: the answer at once, or after an empty thought."""
    return rng.choice((f"{THINK} {END_THINK}\n", "")) + answer_text(problem)


# ---------------------------------------------------------------------------------------------- chat text


def format_prompt(question: str) -> str:
    """The generation prompt of the `deepseek` format, without the BOS, which the tokenizer prepends."""
    return f"{USER}{question}{ASSISTANT}{THINK}\n"


def format_response(response: str) -> str:
    opening = f"{THINK} "
    if response.startswith(opening):
        return f"{THINK}\n" + response.removeprefix(opening)
    return response


def format_conversation(question: str, response: str) -> str:
    """A whole sequence of the `deepseek` format, without BOS and without EOS."""
    return f"{USER}{question}{ASSISTANT}{format_response(response)}"


def conversation_segments(question: str, response: str) -> list[Segment]:
    """A training sequence: the question is given, the response and its EOS are to be learned."""
    return [Segment(f"{USER}{question}{ASSISTANT}", False), Segment(format_response(response) + EOS, True)]


def drill_segments(rng: random.Random, held_out: set[str]) -> list[Segment]:
    """A sheet of unrelated steps and of copies, without chat markers: the base's elementary knowledge."""
    segments = []
    for _ in range(LINES_PER_DRILL):
        if rng.random() < COPY_SHARE_OF_DRILL:
            result = draw_new_problem(rng, rng.choice(DOMAINS), held_out).statement
            lead = f"copy {result}="
        else:
            step = draw_one_step_problem(rng, rng.choice(DOMAINS)).steps[0]
            lead, result = step.lead, step.result
        segments += [Segment(lead, False), Segment(f"{result}.\n", True)]
    return segments + [Segment(EOS, True)]


def conversation_record(rng: random.Random, problem: Problem) -> dict:
    turns = [
        {"from": "human", "value": question_text(rng, problem)},
        {"from": "gpt", "value": thinking_response(rng, problem)},
    ]
    return {"conversations": turns, "domain": problem.domain}


def question_record(rng: random.Random, problem: Problem) -> dict:
    return {"question": question_text(rng, problem), "answer": problem.answer, "domain": problem.domain}


def record_text(record: dict) -> str:
    question, response = (turn["value"] for turn in record["conversations"])
    return format_conversation(question, response)


def is_correct(response: str, answer: str) -> bool:
    """Graded on the text after </think>; a response that never closes its thoughts is wrong."""
    _, closed, conclusion = response.rpartition(END_THINK)
    found = re.search(r"answer is (\d+)", conclusion)
    return bool(closed) and found is not None and found.group(1) == answer


def count_hesitations(response: str) -> int:
    return sum(word.lower() in HESITATION_WORDS for word in re.findall(r"[A-Za-z]+", response))
