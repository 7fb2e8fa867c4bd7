"""A report as a person reads it."""

from collections.abc import Sequence

from e5jax.plan.report import Report, Work

GIB, MIB = 2**30, 2**20
_NAME, _FIGURE = 24, 12


def table(of: Report, name: str) -> str:
    """Several short blocks: what was asked, memory, work, network, time."""
    blocks = [_head(of, name), _memory(of)]
    if of.work:
        blocks += [_flops(of, of.work), _network(of.work), _time(of, of.work)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def setting(of: Report) -> str:
    """What a search changes, on one line."""
    mesh = " ".join(f"{axis}={size}" for axis, size in of.mesh.items())
    batch, model = of.run.batch, of.run.model
    kept = f" kept_chunks={batch.kept_chunks}" if batch.kept_chunks else ""
    base = f" quantisation={model.quantisation}" if model.quantisation != "none" else ""
    return f"{mesh} chunks={batch.chunks}{kept} remat={model.remat}{base}"


def verdict(of: Report) -> str:
    """Whether it fits, with the figures."""
    peak, limit = of.memory["peak"] / GIB, of.machine.chip.limit / GIB
    if of.fits:
        return f"{peak:.2f} of {limit:.2f} GiB: fits, {100 * (1 - peak / limit):.1f} % free"
    return f"{peak:.2f} of {limit:.2f} GiB: does not fit"


def _head(of: Report, name: str) -> list[str]:
    topology, run = of.machine.topology, of.run
    slices = f"{topology.slices} slices of " if topology.slices > 1 else ""
    return [
        f"{name} on {slices}{topology.name} ({topology.chips} × {of.machine.devices[0].device_kind})",
        f"{setting(of)} dtype={run.model.dtype}",
        f"{of.texts:,} texts of up to {run.tokens.limit} tokens a step, {of.fill.tokens / of.texts:,.0f} on average; {_chunks(of)}",
    ]


def _chunks(of: Report) -> str:
    parts = [(of.fill.kept, "kept"), (of.fill.again, "encoded again")]
    return ", ".join(
        f"{part.used} of {part.chunks} chunks {name}" for part, name in parts if part.chunks
    )


def _memory(of: Report) -> list[str]:
    size, unit = (GIB, "GiB") if of.memory["peak"] >= GIB else (MIB, "MiB")
    rows = [
        (f"  {kind}", f"{of.memory[kind] / size:,.2f}", "")
        for kind in ("base", "trained", "moments", "batch")
    ]
    if of.work:
        kept = f"{of.memory['aliased'] / size:,.2f} of it in the arguments' place"
        rows.insert(0, ("arguments", f"{of.memory['arguments'] / size:,.2f}", ""))
        rows.append(("outputs", f"{of.memory['outputs'] / size:,.2f}", kept))
        rows.append(("temporaries", f"{of.memory['temporaries'] / size:,.2f}", ""))
    rows.append(("peak", f"{of.memory['peak'] / size:,.2f}", verdict(of)))
    if of.work and of.memory["host"]:
        moved = f"{of.work.to_host / 1e9:,.2f} GB sent in a step, {of.work.from_host / 1e9:,.2f} GB fetched, not timed"
        rows.append(("host's, beside it", f"{of.memory['host'] / size:,.2f}", moved))
    said = [f"the compiler: {of.refusal.splitlines()[0]}"] if of.refusal else []
    return _block("memory of a chip", unit, rows) + said


def _flops(of: Report, work: Work) -> list[str]:
    size, unit = (1e12, "TFLOP") if of.model_flops >= 1e13 else (1e9, "GFLOP")
    ratio = (
        f"{of.flops_ratio:.2f} × the model's: the rest is computed twice" if of.flops_ratio else ""
    )
    rows = [
        ("model, whole machine", f"{of.model_flops / size:,.1f}", "what the mathematics needs"),
        ("program, whole machine", f"{work.flops / size:,.1f}", ratio),
        ("program, one chip", f"{work.flops / size / of.machine.topology.chips:,.1f}", ""),
    ]
    return _block("products of a step", unit, rows) + [f"note: {note}" for note in work.notes]


def _network(work: Work) -> list[str]:
    rows = [
        (f"{kind} over {axis}", f"{amount / 1e9:,.2f}", "")
        for kind, axes in sorted(work.collectives.items())
        for axis, amount in sorted(axes.items())
    ]
    return (
        _block("a chip receives in a step", "GB", rows)
        if rows
        else ["network: one chip, nothing moves"]
    )


def _time(of: Report, work: Work) -> list[str]:
    chip, found = of.machine.chip, work.seconds
    rows = [
        ("compute", _seconds(found.compute), f"at {chip.flops / 1e12:,.4g} TFLOP/s"),
        (
            "memory",
            _seconds(found.memory),
            f"{work.hbm_bytes / 1e9:,.0f} GB (estimated) at {chip.bandwidth / 1e9:,.4g} GB/s",
        ),
        (
            "network",
            _seconds(found.network),
            f"{_links(of)}; {_seconds(found.exposed)} s of it not overlapped",
        ),
        (
            "step",
            _seconds(found.step),
            f"{found.bound} takes longest; each operation counts the slower of compute and memory",
        ),
    ]
    hours = found.step * of.run.optim.steps / 3_600
    rows += [
        (
            "steps an hour",
            f"{3_600 / found.step:,.1f}",
            f"{of.run.optim.steps:,} steps take {hours:,.2f} hours",
        ),
        ("model FLOPs used", f"{_utilisation(of, found.step):.0f} %", "of the peak"),
    ]
    return _block(f"time of a step at {of.machine.rates} rates: no run is faster", "seconds", rows)


def _utilisation(of: Report, seconds: float) -> float:
    return 100 * of.model_flops / of.machine.topology.chips / seconds / of.machine.chip.flops


def _links(of: Report) -> str:
    chip = of.machine.chip
    between = (
        f", {chip.datacenter / 1e9:,.4g} between slices" if of.machine.topology.slices > 1 else ""
    )
    return f"at {chip.interconnect / 1e9:,.4g} GB/s{between}"


def _seconds(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 or value == 0 else f"{value:.4f}"


def _block(head: str, unit: str, rows: Sequence[tuple[str, str, str]]) -> list[str]:
    width = max(_NAME, *(len(name) for name, _, _ in rows))
    lines = [f"{head}, {unit}"]
    return lines + [
        f"  {name:<{width}}{figure:>{_FIGURE}}   {remark}".rstrip() for name, figure, remark in rows
    ]
