"""Tasks: what is worth having is kept, in order; evaluation instructions never are."""

import json

import pytest

from e5jax.errors import ConfigError
from e5jax.synth.prompts import examples
from e5jax.synth.reasons import UnfitError
from e5jax.synth.tasks import Tasks, avoided, from_files, proposed
from tests.synth.injections import INJECTIONS

EVALUATION = (
    "Given a claim about climate change, retrieve documents that support or refute the claim"
)
TASK = "Given the smell of a wine, find the grape that it was made of"


def reason(tasks: Tasks, text: object) -> str:
    with pytest.raises(UnfitError) as caught:
        tasks.add("short-long", text, "x")
    return caught.value.reason


def test_new_tasks_are_kept_and_their_copies_are_not():
    with Tasks([], 0.6) as tasks:
        tasks.add("short-long", f" {TASK}\n", "a")
        assert reason(tasks, TASK.lower() + ".") == "task-duplicate"
        assert reason(tasks, TASK.replace("wine", "bottle")) == "task-duplicate"
        tasks.add("long-long", "Given an opera, find the novel behind it", "b")
        assert [task.task for task in tasks.kept] == [
            TASK,
            "Given an opera, find the novel behind it",
        ]
        assert tasks.of("short-long") == [TASK]


def test_examples_of_the_prompt_are_no_new_tasks():
    with Tasks([], 0.6) as tasks:
        assert {reason(tasks, text) for text in examples("short-long")} == {"task-duplicate"}


@pytest.mark.parametrize(
    "text",
    [
        EVALUATION,
        EVALUATION.upper(),
        f"{EVALUATION}!",
        EVALUATION.replace("climate change", "the climate"),
    ],
)
def test_instructions_of_evaluations_are_avoided(text):
    with Tasks(avoided(()), 0.6) as tasks:
        assert reason(tasks, text) == "task-avoided"


def test_every_listed_instruction_is_avoided():
    listed = avoided(())
    assert len(listed) > 60
    with Tasks(listed, 0.6) as tasks:
        for text in listed:
            assert reason(tasks, text) in ("task-avoided", "task-form")


def test_files_add_to_what_is_avoided(tmp_path):
    (tmp_path / "mine.txt").write_text("# ours\nFind the grape of a wine by its smell\n\n")
    assert avoided([str(tmp_path / "mine.txt")])[-1] == "Find the grape of a wine by its smell"
    with pytest.raises(ConfigError, match=r"config.tasks.avoid=nowhere"):
        avoided(["nowhere"])


@pytest.mark.parametrize(
    "text",
    [
        None,
        3,
        ["a"],
        "",
        "two words",
        "a\nb c d e",
        "x " * 300,
        "Find the {task} of a {language}",
        "a b c </s>",
    ],
)
def test_what_is_no_task_is_refused(text):
    with Tasks([], 0.6) as tasks:
        assert reason(tasks, text) == "task-form"


@pytest.mark.parametrize("text", INJECTIONS)
def test_an_injection_is_refused_or_kept_as_one_harmless_line(text):
    with Tasks([], 0.6) as tasks:
        try:
            tasks.add("short-long", text, "x")
        except UnfitError:
            return
        assert json.loads(tasks.kept[0].to_json())["task"] == text.strip()
        assert "\n" not in text.strip()


def test_a_brainstorming_reply_is_a_list_under_its_key():
    assert proposed({"tasks": ["a", 3]}, 20) == ["a", 3]
    assert len(proposed({"tasks": ["a"] * 10_000}, 20)) == 40
    for values in ({}, {"tasks": "a"}, {"tasks": []}, {"tasks": ["a"], "more": 1}):
        with pytest.raises(UnfitError):
            proposed(values, 20)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nonsense", "not JSON"),
        ('{"family": "sts", "task": "x"}', "family is 'sts'"),
        ('{"family": "short-long"}', "task is None"),
        ("[1]", "not a JSON object"),
    ],
)
def test_a_wrong_line_of_a_task_file_is_named(line, named, tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"family": "long-long", "task": "Find the sequel", "source": "me"}\n' + line)
    with pytest.raises(ConfigError, match=rf"tasks.jsonl:2: .*{named}"):
        list(from_files([str(path)]))
