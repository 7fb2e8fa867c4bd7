"""What an evaluation does not compute again, and what it must."""

import json
import shutil
from pathlib import Path

import pytest
from mteb.mocks.mock_tasks import MockAggregatedTask, MockMultilingualSTSTask

from e5jax.errors import ConfigError
from e5jax.eval.backends import JaxEncoder
from e5jax.eval.contamination import Recorder
from e5jax.eval.encoder import VectorCache
from e5jax.eval.evaluate import evaluate
from e5jax.eval.preset import PRESETS
from e5jax.eval.tasks import LocalRetrieval, describe
from tests.beir import write_judgements
from tests.eval.stand_in import StandIn, angle, ndcg_of_five, noise

PAPER = PRESETS["paper"]
SETTINGS = {"model": "one"}


@pytest.fixture
def model() -> StandIn:
    return StandIn(angle)


@pytest.fixture
def run(tmp_path, model):
    def evaluated(*tasks, settings=SETTINGS):
        return evaluate(JaxEncoder(model, PAPER), tasks, tmp_path / "out", settings)

    return evaluated


def copy(folder: Path, name: str, **task: object) -> Path:
    other = folder.with_name(name)
    shutil.copytree(folder, other)
    (other / "task.json").write_text(json.dumps({"instruction": "", **task}))
    return other


def test_only_missing_tasks_are_run_again(five, run, model, tmp_path):
    tasks = [LocalRetrieval(five), LocalRetrieval(copy(five, "six"))]
    first = run(*tasks)
    once = len(model.calls)
    (tmp_path / "out" / "six.json").unlink()
    for _ in range(2):
        assert run(*tasks) == first
        assert len(model.calls) == once + once // 2


def test_a_result_of_other_data_is_not_kept(five, run, model):
    run(LocalRetrieval(five))
    once = len(model.calls)
    write_judgements(five, ["q1 d0 1"])
    assert run(LocalRetrieval(five))["five"]["main_score"] == 1
    assert len(model.calls) > once


def test_results_of_another_model_are_refused(five, run):
    run(LocalRetrieval(five))
    message = r"model: 'one' there, 'two' here.*choose another --output"
    with pytest.raises(ConfigError, match=message):
        run(LocalRetrieval(five), settings={"model": "two"})


def test_a_longer_limit_holds_for_its_task_only(five, run, model):
    run(LocalRetrieval(copy(five, "long", limit=4_096)), LocalRetrieval(five))
    assert list(dict.fromkeys(model.limits)) == [4_096, 512]


def test_cached_vectors_are_reused_for_equal_texts_and_prompts(five, model, tmp_path):
    def computed(instruction: str = "", name: str = "one", limit: int = 512) -> int:
        before, model.tokenizer.limit = len(model.calls), limit
        encoder = JaxEncoder(model, PAPER, instruction)
        encoder.cache = VectorCache(tmp_path / "vectors", name)
        scores = evaluate(encoder, [LocalRetrieval(five)], tmp_path / "out")["five"]
        assert scores["ndcg_at_10"] == pytest.approx(ndcg_of_five(), abs=1e-5)
        return len(model.calls) - before

    assert computed() == 7
    assert computed() == 0
    assert computed(instruction="find it") == 2  # queries; documents have none in both
    assert computed(name="two") == 7
    assert computed(limit=100) == 7


def test_an_aggregate_resumes_with_the_missing_part(tmp_path):
    task = MockAggregatedTask()
    parts = [part.metadata.name for part in task.tasks]
    system = Recorder(lambda *_: None)
    first = evaluate(system, [task], tmp_path, SETTINGS)
    assert set(first) == {task.metadata.name}
    names = {path.stem for path in tmp_path.glob("*.json")}
    assert names == {task.metadata.name, *parts, "settings"}

    def times() -> dict[str, int]:
        return {name: (tmp_path / f"{name}.json").stat().st_mtime_ns for name in parts}

    before = times()
    for name in (task.metadata.name, parts[0]):
        (tmp_path / f"{name}.json").unlink()
    assert evaluate(system, [MockAggregatedTask()], tmp_path, SETTINGS).keys() == first.keys()
    assert [name for name, time in times().items() if time != before[name]] == parts[:1]


def test_a_result_with_more_subsets_is_finished_for_fewer(tmp_path):
    whole = MockMultilingualSTSTask()
    part = MockMultilingualSTSTask().filter_languages(None, hf_subsets=["eng"])
    model = StandIn(noise)

    def main_score(task, name):
        scores = evaluate(JaxEncoder(model, PAPER), [task], tmp_path / name, SETTINGS)
        return scores["MockMultilingualSTSTask"]["main_score"]

    main_score(whole, "both")
    path = tmp_path / "both/MockMultilingualSTSTask.json"
    result = json.loads(path.read_text())
    by_subset = {entry["hf_subset"]: entry for entry in result["scores"]["test"]}
    assert set(by_subset) == {"eng", "fra"}
    by_subset["eng"]["main_score"] = 0.75  # the mock's are equal
    by_subset["fra"]["main_score"] = 0.25
    path.write_text(json.dumps(result))
    before = len(model.calls)
    assert (main_score(part, "both"), main_score(whole, "both")) == (0.75, 0.5)
    assert len(model.calls) == before, "the result has all that the tasks need"
    assert describe(part).label == "test/eng"
    main_score(part, "one")
    before = len(model.calls)
    main_score(whole, "one")
    assert len(model.calls) > before, "the result lacked a subset"
