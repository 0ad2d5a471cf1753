"""Asking a model in batches: it hears of the next batch before it works on this one."""

from makers import artifact, mute
from parityalign.core.records import Answer
from parityalign.engines.asking import Asked, answer_all


class Looker:
    """Repeats prompts, and notes what it was told and asked in which order."""

    name, special_tokens = "looker", frozenset()

    def __init__(self):
        self.heard = []

    def expect(self, requests):
        self.heard.append(("expect", [request.prompt for request in requests]))

    def generate(self, requests, decoding):
        self.heard.append(("generate", [request.prompt for request in requests]))
        return [request.prompt for request in requests]


def ask(folder, model, count):
    questions = [Asked(str(number), "image.png", f"prompt {number}", "") for number in range(count)]
    stream = artifact(folder).stream("answers.jsonl", Answer)
    progress = lambda done, total: mute("ask", done, total)  # noqa: E731
    return answer_all(stream, questions, lambda: model, max_new_tokens=4, batch_size=2, on_progress=progress)


def test_a_model_that_looks_ahead_hears_of_the_next_batch_first(tmp_path):
    model = Looker()
    assert len(ask(tmp_path, model, 5)) == 5
    prompts = [f"prompt {number}" for number in range(5)]
    assert model.heard == [
        ("expect", prompts[2:4]),
        ("generate", prompts[:2]),
        ("expect", prompts[4:]),
        ("generate", prompts[2:4]),
        ("expect", []),
        ("generate", prompts[4:]),
    ]


def test_a_model_that_does_not_is_only_asked(tmp_path):
    class Plain:
        name, special_tokens = "plain", frozenset()

        def generate(self, requests, decoding):
            return [request.prompt.upper() for request in requests]

    answers = ask(tmp_path, Plain(), 3)
    assert [answer.text for answer in answers.values()] == ["PROMPT 0", "PROMPT 1", "PROMPT 2"]
