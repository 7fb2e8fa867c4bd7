import json

from e5jax.eval.queries import Ranking, write_rankings
from e5jax.eval.report import Neighbour
from e5jax.eval.summary import by_system, output_of, searches
from e5jax.workdir.directory import Workdir

RETRIEVAL = {"main_score": 0.5, "ndcg_at_10": 0.5, "recall_at_10": 0.75}


def test_one_task_has_a_row_a_system():
    assert by_system({"base": {"held": RETRIEVAL}}) == {
        "base": {"ndcg_at_10": 0.5, "recall_at_10": 0.75}
    }


def test_several_tasks_have_rows_of_their_own_and_those_without_ndcg_their_main_score():
    found = by_system(
        {name: {"held": RETRIEVAL, "STS": {"main_score": 0.25}} for name in ("base", "trained")}
    )
    assert list(found) == ["held: base", "STS: base", "held: trained", "STS: trained"]
    assert found["STS: trained"] == {"main_score": 0.25}


def test_examples_are_those_of_the_evaluation_from_the_easiest_query_to_the_hardest(tmp_path):
    workdir, heldout = Workdir(tmp_path), tmp_path / "data/heldout"
    (heldout / "qrels").mkdir(parents=True)
    names = [f"f{number}" for number in range(8)]
    for name, kind in (("corpus", "code"), ("queries", "words")):
        lines = [json.dumps({"_id": each, "text": f"{kind} of {each}"}) + "\n" for each in names]
        (heldout / f"{name}.jsonl").write_text("".join(lines))
    (heldout / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{each}\t{each}\t1\n" for each in names)
    )
    # f0 is the hardest, which has no rank; the others have ranks from 7 down to 1.
    rankings = {
        each: Ranking(8 - number if number else None, [("f1", 0.5)])
        for number, each in enumerate(names)
    }
    write_rankings(output_of(workdir, "stage2"), "heldout", rankings)
    shown = searches(workdir, "stage2")
    assert [(search.query, search.rank) for search in shown] == [
        (f"words of f{8 - rank}", rank) for rank in (1, 2, 3, 4, 5, 6)
    ]
    assert shown[0].neighbours == [Neighbour("f1", "code of f1", 0.5, right=False)]
    assert searches(workdir, "another") == []
