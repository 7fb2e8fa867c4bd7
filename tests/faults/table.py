"""The table of the long set."""

from collections import Counter
from collections.abc import Callable, Sequence

from tests.faults.signals import ENDS


def table(found: Sequence[dict]) -> str:
    """Markdown: a row a kind of trial, with what was counted."""
    lines = ["| trial | runs | what happened | result |", "|---|---:|---|---|"]
    for trial, row in ROWS.items():
        of = [one for one in found if one["trial"] == trial]
        if of:
            happened, result = row(of)
            lines.append(f"| {trial} | {len(of)} | {happened} | {result} |")
    return "\n".join(lines)


def _kills(of: Sequence[dict]) -> tuple[str, str]:
    phases = Counter(phase for one in of for phase in one["phases"])
    again = [steps for one in of for steps in one["again"]]
    mean, most, few = (
        sum(again) / max(1, len(again)),
        max(again, default=0),
        sum(steps <= 5 for steps in again),
    )
    return (
        f"{phases.total()} SIGKILLs at uniform moments: {_counts(phases)}",
        f"{_equal(of)}; steps done again after a kill: {mean:.1f} on average, {most} at most, 5 or fewer in {few} of {len(again)}",
    )


def _pairs(of: Sequence[dict]) -> tuple[str, str]:
    codes, slowest = Counter(str(one["code"]) for one in of), max(one["seconds"] for one in of)
    within = sum(one["seconds"] <= one["silence"] + 5 and one["code"] != 0 for one in of)
    phases = Counter(one["phase"] for one in of)
    return (
        f"one of two processes killed, process 0 in {sum(one['victim'] == 0 for one in of)} of them: {_counts(phases)}",
        f"the other left with a code that is not 0 within {of[0]['silence']} + 5 s in {within} of {len(of)} "
        f"(slowest {slowest:.1f} s; codes {_counts(codes)}); {_equal(of)}",
    )


def _notices(of: Sequence[dict]) -> tuple[str, str]:
    phases = Counter(one["phase"] for one in of)
    all75 = sum(set(one["codes"]) == {75} for one in of)
    same = sum(one["saved"] == one["resumed"] for one in of)
    return (
        f"SIGTERM or SIGINT to one process: {_counts(phases)}",
        f"every process left with 75 in {all75} of {len(of)}, slowest {max(one['seconds'] for one in of):.1f} s; "
        f"went on from the step that was saved last in {same}; {_equal(of)}",
    )


def _signals(of: Sequence[dict]) -> tuple[str, str]:
    kinds = Counter(f"{one['signal']} to the {one['who']}" for one in of)
    phases = Counter(one["phase"] for one in of)
    codes = Counter(f"{one['signal']} {one['code']}" for one in of)
    right = sum(one["code"] in (0, ENDS[one["who"]]) for one in of)
    lines = sum(len(one["lines"]) == (one["code"] != 0) for one in of)
    return (
        f"two worker processes; {_counts(kinds)}; phases: {_counts(phases)}",
        f"ended within 30 s in {len(of)} of {len(of)}, slowest {max(one['seconds'] for one in of):.1f} s; codes: {_counts(codes)}; "
        f"the documented one in {right}, with one line that says why in {lines}; {_equal(of)}",
    )


def _stuck(of: Sequence[dict]) -> tuple[str, str]:
    how = Counter(f"{one['how']} in {one['phase']}" for one in of)
    # Whoever is stopped cannot leave before somebody lets it go on, and by then the others are gone.
    codes = sum(set(one["codes"][: 1 if one["how"] == "stopped" else 2]) == {99} for one in of)
    named, limits = sum(one["named"] for one in of), sorted({one["limit"] for one in of})
    slowest = [max(one["seconds"] for one in of if one["limit"] == limit) for limit in limits]
    times = ", ".join(
        f"{seconds:.1f} s at a limit of {limit} s"
        for seconds, limit in zip(slowest, limits, strict=True)
    )
    return (
        f"one of two processes: {_counts(how)}",
        f"every process that was not stopped left with 99 in {codes} of {len(of)}, slowest {times}; "
        f"the right process and phase named in {named}",
    )


def _disks(of: Sequence[dict]) -> tuple[str, str]:
    how = Counter(one["how"] for one in of)
    told = sum(one["code"] == 1 and one["failed"] > 0 for one in of)
    sound = sum((max(one["sound"], default=0)) == one["resumed"] for one in of)
    return (
        f"the checkpoints' disk broke while the run was under way: {_counts(how)}",
        f"left with 1 and the checkpoint's number in {told} of {len(of)}; "
        f"went on from the newest sound step in {sound}; {_equal(of)}",
    )


def _shapes(of: Sequence[dict]) -> tuple[str, str]:
    paths = "; ".join(" → ".join(one["path"]) for one in of)
    apart, moments = (", ".join(f"{one[name]:.1e}" for one in of) for name in ("apart", "moments"))
    same = sum(one["batches"] and one["hashes"] for one in of)
    return (
        paths,
        f"relative difference after 100 steps: parameters {apart}, moments {moments}; same batch hashes in {same} of {len(of)}",
    )


def _rivals(of: Sequence[dict]) -> tuple[str, str]:
    codes = Counter(str(one["codes"]) for one in of)
    return (
        f"two processes of one run started at the same instant: codes {_counts(codes)}",
        f"exactly one trained, each step once, in {sum(one['once'] for one in of)} of {len(of)}; "
        f"the other named it in {sum(one['named'] for one in of)}; {_equal(of)}",
    )


def _equal(of: Sequence[dict]) -> str:
    return f"bit-identical at the end: {sum(one['equal'] for one in of)} of {len(of)}"


def _counts(of: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in of.most_common())


ROWS: dict[str, Callable[[Sequence[dict]], tuple[str, str]]] = {
    "kills": _kills,
    "background": _kills,
    "pairs": _pairs,
    "stuck": _stuck,
    "notices": _notices,
    "signals": _signals,
    "rivals": _rivals,
    "disks": _disks,
    "shapes": _shapes,
}
