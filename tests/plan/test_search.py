"""The search with a compiler that is a formula: what is tried, in which order, and what wins."""

import math
from itertools import pairwise
from typing import NamedTuple

import pytest

from e5jax.config.load import load
from e5jax.errors import ConfigError
from e5jax.plan import search as searching
from e5jax.plan.estimate import Problem, chunk_bytes, filled, guess, least_memory, used_chunks
from e5jax.plan.fill import Means, full
from e5jax.plan.report import Report, Work
from e5jax.plan.roofline import Roofline
from e5jax.plan.search import Search, Trial, candidates, ruled_out, search, with_kept
from e5jax.plan.setting import Setting, settings
from e5jax.plan.shape import MISTRAL_7B
from tests.config.test_load import PAPER
from tests.plan.chips import machine

SHORT = Means(40, 150)
FEW = ("--config.batch.queries=256",)
SHARDS = (1, 2, 4)


def problem(on, overrides=(), means=None, headroom=0.0):
    run = load(PAPER, overrides)
    return Problem(run, MISTRAL_7B, on, on.chip.limit * (1 - headroom), filled(run, means, SHARDS))


class Formula(NamedTuple):
    """A step needs `more` than the least, and `kept` of what a kept chunk should need; it takes as long as guessed."""

    more: float = 1.3
    kept: float = 1.0

    def peak(self, one, of):
        return self.more * least_memory(
            one._replace(kept=0), of
        ) + self.kept * one.kept * chunk_bytes(one, of)

    def seconds(self, one, of):
        return max(guess(one, of)) if self.peak(one, of) <= of.on.chip.limit else math.inf

    def report(self, one, of, run):
        seconds = self.seconds(one, of)
        work = (
            Work(2.0, 0, {}, Roofline(seconds, 0, 0, seconds, 0, seconds), ())
            if seconds < math.inf
            else None
        )
        sizes = {"data": one.data, "fsdp": one.fsdp, "tensor": one.tensor}
        return Report(
            run,
            of.on,
            sizes,
            {"peak": self.peak(one, of)},
            "",
            1.0,
            full(run.batch, run.tokens.limit),
            work,
            0.0,
        )


def every(of, kind="none"):
    return list(candidates(list(settings(of.run, MISTRAL_7B, of.on.topology, kind)), of))


def run(monkeypatch, on, limit=1_000, *, overrides=(), means=None, headroom=0.0, formula=Formula()):  # noqa: B008
    """What `search` returns, and the settings it tried."""
    tried = []

    def plan(run, spec, on, means):
        mesh, batch, model = run.mesh, run.batch, run.model
        one = Setting(
            mesh.data,
            mesh.fsdp,
            mesh.tensor,
            batch.chunks,
            model.remat,
            model.quantisation,
            batch.kept_chunks,
        )
        tried.append(one)
        return formula.report(
            one, Problem(run, spec, on, math.inf, filled(run, means, [one.shards])), run
        )

    monkeypatch.setattr(searching, "plan", plan)
    best, changes = search(Search(PAPER, overrides, means, limit, headroom), MISTRAL_7B, on)
    return best, changes, tried


def step(report):
    return report.work.seconds.step


@pytest.mark.parametrize("links", [1.0, 0.03])
@pytest.mark.parametrize("room", [0.6, 1.0, 4.0])
def test_the_best_of_all_settings_is_found_without_trying_all(room, links, monkeypatch, capsys):
    on = machine(room, links)
    best, changes, tried = run(monkeypatch, on)
    of = problem(on)
    everything = every(of)
    fastest = min(Formula().seconds(one, of) for one in everything)
    assert step(best) <= fastest
    if not best.run.batch.kept_chunks:
        assert step(best) == fastest
    assert load(PAPER, changes) == best.run
    assert len(tried) < len(everything) / 3
    assert len(capsys.readouterr().err.splitlines()) == len(tried)


def test_no_more_trials_than_allowed(monkeypatch):
    assert len(run(monkeypatch, machine(), limit=2)[2]) == 2


def test_nothing_fits_is_no_report(monkeypatch):
    on = machine(0.25)  # enough for the least, not for what it really takes
    assert run(monkeypatch, on, overrides=["--config.model.quantisation=none"])[:2] == (None, ())


def test_no_hope_is_said_before_anything_is_compiled(monkeypatch):
    with pytest.raises(ConfigError, match="4 chips"):
        run(monkeypatch, machine(1e-6))


def test_trials_start_with_the_configs_own_setting_and_then_the_cheapest_guess(monkeypatch):
    own, *tried = run(monkeypatch, machine(), overrides=["--config.batch.chunks=512"])[2]
    assert own == Setting(1, 4, 1, 512, "projections")
    orders = [guess(one, problem(machine())).order for one in tried]
    assert len(orders) > 1
    assert orders == sorted(orders)


def test_a_slow_program_rules_out_only_what_keeps_the_same(monkeypatch):
    class Slow(Formula):
        def seconds(self, one, of):
            return super().seconds(one, of) * (4 if one.remat == "everything" else 1)

    on = machine(links=100.0)
    best, _, tried = run(monkeypatch, on, formula=Slow())
    assert {"everything", "projections"} <= {one.remat for one in tried}
    assert step(best) == min(Slow().seconds(one, problem(on)) for one in every(problem(on)))


def test_what_a_search_leaves_free_is_free(monkeypatch):
    on = machine()
    tight, loose = (run(monkeypatch, on, headroom=share)[0] for share in (0.0, 0.3))
    assert loose.memory["peak"] <= 0.7 * on.chip.limit < tight.memory["peak"] <= on.chip.limit
    assert step(tight) <= step(loose)


# --- precision of the base ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "kind"), [(1.0, "none"), (0.34, "none"), (0.24, "int8"), (0.15, "int4")]
)
def test_the_base_has_the_highest_precision_that_fits(room, kind, monkeypatch):
    on = machine(room)
    best, changes, tried = run(monkeypatch, on)
    assert best.run.model.quantisation == kind
    assert f"--config.model.quantisation={kind}" in changes
    kinds = ["none", "int8", "int4"]
    order = [kinds.index(one.quantisation) for one in tried]
    assert order == sorted(order)
    assert order[-1] == kinds.index(kind)
    # By brute force: nothing of higher precision fits.
    for higher in kinds[: kinds.index(kind)]:
        assert not any(
            Formula().seconds(one, problem(on)) < math.inf for one in every(problem(on), higher)
        )


@pytest.mark.parametrize("kind", ["none", "int8", "int4"])
def test_a_precision_that_was_asked_for_stays(kind, monkeypatch):
    best, _, tried = run(monkeypatch, machine(), overrides=[f"--config.model.quantisation={kind}"])
    assert best.run.model.quantisation == kind
    assert {one.quantisation for one in tried} == {kind}


def test_full_fine_tuning_has_no_integers(monkeypatch):
    assert {
        one.quantisation
        for one in run(monkeypatch, machine(4), overrides=["--config.lora=none"])[2]
    } == {"none"}


def test_a_limit_that_is_reached_is_no_reason_for_a_lower_precision(monkeypatch, capsys):
    on = machine(0.3)
    refused = sum(one.quantisation == "none" for one in run(monkeypatch, on)[2])
    assert refused > 1
    capsys.readouterr()
    best, _, fewer = run(monkeypatch, on, limit=refused - 1)
    assert best is None
    assert {one.quantisation for one in fewer} == {"none"}
    assert "nothing fits with" not in capsys.readouterr().err


# --- what a refusal tells ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [1.2, 1.3, 2.0])
@pytest.mark.parametrize("said", ["all", "nothing"])
def test_only_what_would_be_refused_is_ruled_out(more, said):
    of = problem(machine(0.6), headroom=0.05)
    peaks = {one: Formula(more).peak(one, of) for one in every(of)}
    fits = {one: peak <= of.room for one, peak in peaks.items()}
    ruled = 0
    for refused in [one for one in peaks if not fits[one]]:
        report = Formula(more).report(refused, of, of.run)
        if said == "nothing":
            report = report._replace(memory={"peak": math.inf})
        out = [one for one in peaks if ruled_out(one, Trial(refused, report, fits=False), of)]
        assert refused in out
        assert not any(fits[one] for one in out)
        assert not any(ruled_out(one, Trial(refused, report, fits=True), of) for one in out)
        ruled += len(out) - 1
    assert ruled > 0


# --- kept chunks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.9, 1.0, 1.5])
def test_memory_to_spare_keeps_chunks_and_a_refusal_keeps_fewer(kept, monkeypatch):
    on = machine(2)
    best, _, tried = run(monkeypatch, on, overrides=FEW, means=SHORT, formula=Formula(kept=kept))
    of = problem(on, FEW, SHORT)
    seconds = {one: Formula(kept=kept).seconds(one, of) for one in tried}
    with_chunks = [one for one in tried if one.kept]
    assert 0 < len(with_chunks) <= searching.KEEPING
    assert tried[-len(with_chunks) :] == with_chunks
    assert best.run.batch.kept_chunks > 0
    assert (
        step(best)
        == min(seconds.values())
        < searching.WORTH * min(seconds[one] for one in tried if not one.kept)
    )
    assert all(one.kept <= used_chunks(one, of) for one in with_chunks)
    for one, following in pairwise(with_chunks):
        if math.isinf(seconds[one]) and one._replace(kept=0) == following._replace(kept=0):
            assert following.kept < one.kept


def test_kept_chunks_fill_the_room_and_no_more():
    on = machine(2)
    of = problem(on, FEW, SHORT)
    one = Setting(1, 4, 1, 64, "projections")
    trials = [Trial(one, Formula(1.0).report(one, of, of.run), fits=True)]
    (found,) = with_kept([one], trials, of)
    used = used_chunks(one, of)
    fitting = [n for n in range(1, used + 1) if least_memory(one._replace(kept=n), of) <= of.room]
    assert 0 < found.kept < used
    assert found == one._replace(kept=max(fitting))
    # Other meshes have not been measured, and fewer chunks than were are not estimated.
    assert (
        with_kept(
            [
                one._replace(fsdp=2, data=2),
                one._replace(chunks=32),
                one._replace(remat="everything"),
            ],
            trials,
            of,
        )
        == []
    )


def test_no_more_chunks_are_kept_than_hold_text():
    on = machine(40)
    of = problem(on, FEW, SHORT)
    one = Setting(1, 4, 1, 64, "projections")
    trials = [Trial(one, Formula().report(one, of, of.run), fits=True)]
    assert with_kept([one], trials, of) == [one._replace(kept=used_chunks(one, of))]
    assert used_chunks(one, of) < 64


def test_chunks_are_not_kept_where_it_saves_next_to_nothing(monkeypatch):
    assert not any(one.kept for one in run(monkeypatch, machine())[2])


def test_trials_of_kept_chunks_count(monkeypatch):
    tried = run(monkeypatch, machine(2), overrides=FEW, means=SHORT)[2]
    plain = sum(not one.kept for one in tried)
    assert plain < len(tried)
    assert run(monkeypatch, machine(2), limit=plain, overrides=FEW, means=SHORT)[2] == tried[:plain]
