"""The search with a compiler that is a formula: what is tried, in which order, and what wins."""

import math

import pytest

from e5jax.chips import CHIPS
from e5jax.errors import ConfigError
from e5jax.loading import load
from e5jax.plan import search as searching
from e5jax.plan.fill import full
from e5jax.plan.machine import Machine
from e5jax.plan.report import Report, Work
from e5jax.plan.roofline import Roofline
from e5jax.plan.search import Setting, candidates, guess, least_memory, search
from e5jax.plan.shape import MISTRAL_7B
from e5jax.plan.topology import parse_topology
from tests.test_loading import PAPER


def machine(room=1.0, links=1.0):
    """Four chips like a v5e with so much more memory, and so much faster links."""
    chip = CHIPS["TPU v5 lite"]
    chip = chip._replace(limit=chip.limit * room, interconnect=chip.interconnect * links)
    return Machine(parse_topology("v5e:2x2"), [], chip, "published")


def compiler(tried):
    """A step needs somewhat more memory than the least, and takes as long as guessed."""

    def plan(run, spec, on, _):
        one = Setting(run.mesh.data, run.mesh.fsdp, run.mesh.tensor, run.batch.chunks, run.model.remat)
        tried.append(one)
        peak = 1.3 * least_memory(one, run, spec)
        seconds = max(guess(one, run, spec, on))
        work = Work(2.0, 0, {}, Roofline(seconds, 0, 0, seconds, 0, seconds), ()) if peak <= on.chip.limit else None
        mesh = {"data": one.data, "fsdp": one.fsdp, "tensor": one.tensor}
        return Report(run, on, mesh, {"peak": peak}, "", 1.0, full(run.batch, run.tokens.limit), work, 0.0)

    return plan


def run(monkeypatch, on, limit=1_000):
    tried = []
    monkeypatch.setattr(searching, "plan", compiler(tried))
    best, changes = search(PAPER, [], MISTRAL_7B, on, limit, None)
    return best, changes, tried


@pytest.mark.parametrize("links", [1.0, 0.03])
@pytest.mark.parametrize("room", [0.6, 1.0, 4.0])
def test_the_best_of_all_settings_is_found_without_trying_all(room, links, monkeypatch, capsys):
    on = machine(room, links)
    best, changes, tried = run(monkeypatch, on)
    config = load(PAPER)
    everything = candidates(config, MISTRAL_7B, on)
    plan = compiler([])
    reports = [plan(load(PAPER, one.overrides), MISTRAL_7B, on, None) for one in everything]
    fastest = min(report.work.seconds.step for report in reports if report.fits)
    assert best.work.seconds.step == fastest
    assert load(PAPER, changes) == best.run
    assert len(tried) < len(everything) / 3
    assert len(capsys.readouterr().err.splitlines()) == len(tried)


def test_no_more_trials_than_allowed(monkeypatch):
    assert len(run(monkeypatch, machine(), limit=3)[2]) == 3


def test_nothing_fits_is_no_report(monkeypatch):
    on = machine(0.25)  # enough for the least, not for what it really takes
    assert run(monkeypatch, on)[:2] == (None, ())


def test_no_hope_is_said_before_anything_is_compiled(monkeypatch):
    with pytest.raises(ConfigError, match="4 chips"):
        run(monkeypatch, machine(1e-6))


def test_trials_start_with_the_cheapest_guess(monkeypatch):
    tried = run(monkeypatch, machine())[2]
    config = load(PAPER)
    orders = [guess(one, config, MISTRAL_7B, machine()).order for one in tried]
    assert orders == sorted(orders)


def test_candidates_divide_batch_and_model():
    for one in candidates(load(PAPER), MISTRAL_7B, machine()):
        assert math.prod(one[:3]) == 4
        assert 6_144 % one.chunks == 0
        assert 6_144 // one.chunks % (one.data * one.fsdp) == 0
