from e5jax.eval.summary import by_system

RETRIEVAL = {"main_score": 0.5, "ndcg_at_10": 0.5, "recall_at_10": 0.75}


def test_one_task_has_a_row_a_system():
    assert by_system({"base": {"held": RETRIEVAL}}) == {"base": {"ndcg_at_10": 0.5, "recall_at_10": 0.75}}


def test_several_tasks_have_rows_of_their_own_and_those_without_ndcg_their_main_score():
    found = by_system({name: {"held": RETRIEVAL, "STS": {"main_score": 0.25}} for name in ("base", "trained")})
    assert list(found) == ["held: base", "STS: base", "held: trained", "STS: trained"]
    assert found["STS: trained"] == {"main_score": 0.25}
