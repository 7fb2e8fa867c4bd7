"""A report as the object that `e5jax plan --json` prints."""

from e5jax.hardware import Chip
from e5jax.plan.report import Report, Work


def to_json(of: Report, name: str) -> dict[str, object]:
    """One object for `--json`; bytes and seconds, never rounded."""
    run, work, chip, topology = of.run, of.work, of.machine.chip, of.machine.topology
    found: dict[str, object] = {
        "config": name,
        "topology": topology.name,
        "slices": topology.slices,
        "device_kind": of.machine.devices[0].device_kind,
        "chips": topology.chips,
        "mesh": of.mesh,
        "chunks": run.batch.chunks,
        "remat": run.model.remat,
        "dtype": run.model.dtype,
        "quantisation": run.model.quantisation,
        "texts": of.texts,
        "tokens_per_text": run.tokens.limit,
        "real_tokens": of.fill.tokens,
        "chunks_kept": of.fill.kept._asdict(),
        "chunks_encoded_again": of.fill.again._asdict(),
        "fits": of.fits,
        "memory_bytes_per_chip": of.memory["peak"],
        "memory_limit_bytes": chip.limit,
        "memory_free_share": 1 - of.memory["peak"] / chip.limit,
        "memory_by_kind": of.memory,
        "host_memory_bytes_per_chip": of.memory.get("host"),  # null when the compiler refused
        "compiler_says": of.refusal,
        "model_flops_per_step": of.model_flops,
        "rates": {**chip._asdict(), "source": of.machine.rates},
        "compile_seconds": of.compile_seconds,
    }
    return found | (_work_json(work, topology.chips, of, chip) if work else {})


def _work_json(work: Work, chips: int, of: Report, chip: Chip) -> dict[str, object]:
    step = work.seconds.step
    return {
        "flops_per_step": work.flops,
        "flops_per_step_per_chip": work.flops / chips,
        "flops_ratio": of.flops_ratio,
        "model_flops_utilisation": of.model_flops / chips / step / chip.flops,
        "memory_traffic_bytes_per_step": work.hbm_bytes,
        "to_host_bytes_per_step": work.to_host,
        "from_host_bytes_per_step": work.from_host,
        "collective_bytes_per_step": sum(sum(axes.values()) for axes in work.collectives.values()),
        "collective_bytes_by_kind_and_axis": work.collectives,
        "seconds": work.seconds._asdict(),
        "bound": work.seconds.bound,
        "steps_per_hour": 3_600 / step,
        "steps": of.run.optim.steps,
        "hours": step * of.run.optim.steps / 3_600,
        "notes": work.notes,
    }
