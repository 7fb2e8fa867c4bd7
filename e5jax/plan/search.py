"""Looks for the fastest setting that fits: the config's own, then the cheapest estimate first, one program after the other.

A setting that needs too much memory is refused by the compiler within seconds, one that fits takes minutes. So the
search starts where most is refused, and skips what it can already tell:

- what certainly lives at once must be below the room, the chip's limit less the headroom;
- what a refused setting needed beyond that shrinks no faster than its chunks, and not at all when layers keep more;
- a setting whose estimate takes longer than a fitting program does is slower, and where layers keep the same, so is one with no
  fewer FLOPs and no less traffic, or with the longer of the two above both together. Estimates know nothing of main memory,
  which is why they do not compare layers that keep more with layers that keep less.

Integers in place of the base change what a run computes. A lower precision is tried only when every setting of the higher one
was refused or ruled out, and never when config or command line name one.

Kept chunks come last: a kept chunk saves one forward pass and costs what its layers keep, which takes memory from what larger
chunks would need. Settings that fit, and more chunks on their meshes, are filled up with as many kept chunks as the memory
reports leave room for; the best of them by estimate is tried, if it promises to be worth it, and corrects the next.
"""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax

from e5jax.config import Remat
from e5jax.config.load import load
from e5jax.errors import ConfigError
from e5jax.model.spec import Spec
from e5jax.plan.estimate import (
    PASSES,
    Guess,
    Problem,
    chunk_bytes,
    filled,
    guess,
    least_memory,
    used_chunks,
)
from e5jax.plan.fill import Means
from e5jax.plan.machine import Machine
from e5jax.plan.report import Report, plan
from e5jax.plan.setting import Setting, own, precisions, settings
from e5jax.plan.table import setting as shown
from e5jax.plan.table import verdict

KEEPING = 4  # trials of kept chunks at most
WORTH = 0.98  # of the estimated time: for less than 2 % nobody waits minutes


class Search(NamedTuple):
    """What is asked."""

    config: str
    overrides: Sequence[str]
    means: Means | None
    limit: int  # trials
    headroom: float  # share of a chip's memory that stays free


class Trial(NamedTuple):
    """A setting that was compiled."""

    setting: Setting
    report: Report
    fits: bool  # and leaves the headroom


def search(asked: Search, spec: Spec, on: Machine) -> tuple[Report | None, tuple[str, ...]]:
    """The fastest report that fits, with its overrides. Prints a line for each trial."""
    run = load(asked.config, asked.overrides)
    room = on.chip.limit * (1 - asked.headroom)
    trials: list[Trial] = []
    hopeless = True
    for kind in precisions(run, asked.overrides):
        whole = list(settings(run, spec, on.topology, kind))
        of = Problem(run, spec, on, room, filled(run, asked.means, (one.shards for one in whole)))
        found = candidates(whole, of)
        hopeless &= not found
        done = _fastest(found, own(run, on.topology.chips, kind), trials, asked, of)
        if any(trial.fits for trial in trials):
            _keep(found, trials, asked, of)
            best = min((trial for trial in trials if trial.fits), key=_seconds)
            return best.report, best.setting.overrides
        if not done:
            break
        _say(f"nothing fits with model.quantisation={kind} and {asked.headroom:.0%} of memory free")
    if hopeless:
        raise ConfigError(
            f"--search: no mesh and number of chunks divide this batch over {on.topology.chips} chips and could fit their memory "
            f"with {asked.headroom:.0%} of it free"
        )
    return None, ()


def candidates(among: Sequence[Setting], of: Problem) -> dict[Setting, Guess]:
    """Those that are not hopeless, with their guesses."""
    return {one: guess(one, of) for one in among if least_memory(one, of) <= of.room}


def excess(trial: Trial, of: Problem, remat: Remat) -> float:
    """Bytes that a trial needed beyond the least of layers that keep this. A refusal may come without a figure, or a part of it."""
    peak = trial.report.memory["peak"]
    if not trial.fits:
        peak = max(peak if math.isfinite(peak) else 0, of.room + 1)
    return max(peak - least_memory(trial.setting._replace(remat=remat), of), 0)


def ruled_out(one: Setting, trial: Trial, of: Problem) -> bool:
    """Whether a refusal says that this one has no chance either, though all beyond the least shrink with the chunk."""
    tried = trial.setting
    alike = (
        one[:3] == tried[:3]
        and one.quantisation == tried.quantisation
        and PASSES[one.remat] <= PASSES[tried.remat]
    )
    if trial.fits or not alike:
        return False
    beyond = excess(trial, of, tried.remat) * tried.chunks / one.chunks
    return least_memory(one._replace(remat=tried.remat), of) + beyond > of.room


def with_kept(found: Sequence[Setting], trials: Sequence[Trial], of: Problem) -> list[Setting]:
    """Settings with as many kept chunks as there seems to be room for, on meshes of trials that fit.

    What a trial with as many chunks, or the next fewer, needed beyond the least is taken to stay. A fit of layers that keep more
    serves as well. "everything" has every gathered matrix in it, and is not kept for several chunks.
    """
    filled_up = []
    for one in (
        one._replace(kept=0) for one in found if one.chunks > 1 and one.remat != "everything"
    ):
        like = [trial for trial in trials if _tells(trial, one)]
        if any(trial.fits for trial in like):
            nearest = max(
                (
                    trial.setting.chunks,
                    trial.setting.remat == one.remat,
                    excess(trial, of, one.remat),
                )
                for trial in like
            )
            free = of.room - least_memory(one, of) - nearest[-1]
            kept = min(math.floor(free / chunk_bytes(one, of)), used_chunks(one, of))
            filled_up += [one._replace(kept=kept)] if kept > 0 else []
    return filled_up


def _tells(trial: Trial, one: Setting) -> bool:
    """Whether a trial bears on the memory of this setting, whose chunks are as large or smaller."""
    tried = trial.setting
    near = (
        one[:3] == tried[:3]
        and one.quantisation == tried.quantisation
        and tried.chunks <= one.chunks
    )
    return near and (
        tried.remat == one.remat or (trial.fits and PASSES[tried.remat] < PASSES[one.remat])
    )


def _fastest(
    found: dict[Setting, Guess],
    first: Setting | None,
    trials: list[Trial],
    asked: Search,
    of: Problem,
) -> bool:
    """Trials of the config's own setting, then from the fastest guess upwards. Returns false when the limit ends them."""
    for one in sorted(found, key=lambda one: (one != first, found[one].order, one.chunks)):
        if _slower(one, found, trials) or any(ruled_out(one, trial, of) for trial in trials):
            continue
        if len(trials) == asked.limit:
            return False
        _try(one, trials, asked, of)
    return True


def _slower(one: Setting, found: dict[Setting, Guess], trials: Sequence[Trial]) -> bool:
    """Than a program that was timed, or by the guesses than one with layers that keep the same."""
    fitting = [trial for trial in trials if trial.fits]
    alike = [found[trial.setting] for trial in fitting if trial.setting.remat == one.remat]
    return max(found[one]) >= min(map(_seconds, fitting), default=math.inf) or any(
        map(found[one].no_faster_than, alike)
    )


def _keep(found: dict[Setting, Guess], trials: list[Trial], asked: Search, of: Problem) -> None:
    """Trials with kept chunks, each the most promising by all that is known then."""
    for _ in range(min(KEEPING, asked.limit - len(trials))):
        best = min((trial for trial in trials if trial.fits), key=_seconds)
        guesses = {one: guess(one, of) for one in with_kept(list(found), trials, of)}
        wanted = WORTH * max(guess(best.setting, of))
        worth = [
            one
            for one, each in guesses.items()
            if max(each) < wanted and not any(ruled_out(one, t, of) for t in trials)
        ]
        if not worth:
            return
        _try(min(worth, key=lambda one: guesses[one].order), trials, asked, of)


def _try(one: Setting, trials: list[Trial], asked: Search, of: Problem) -> None:
    report = plan(
        load(asked.config, [*asked.overrides, *one.overrides]), of.spec, of.on, asked.means
    )
    trial = Trial(one, report, report.fits and report.memory["peak"] <= of.room)
    trials.append(trial)
    work = report.work
    rest = (
        f"FLOPs × {report.flops_ratio:.2f}, {work.seconds.step:,.2f} s a step"
        if work
        else "refused"
    )
    rest += ", too little headroom" if report.fits and not trial.fits else ""
    _say(
        f"{len(trials)}/{asked.limit}  {shown(report):<58}  {verdict(report):<42}{rest}  ({report.compile_seconds:.0f} s)"
    )
    jax.clear_caches()  # a 7B program holds gigabytes


def _seconds(trial: Trial) -> float:
    return trial.report.work.seconds.step if trial.report.work else math.inf


def _say(words: str) -> None:
    """Where a person sees it and a pipe does not."""
    print(words, file=sys.stderr, flush=True)
