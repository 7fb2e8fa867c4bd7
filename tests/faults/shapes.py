"""Runs that go on with other processes and devices than those that they began with."""

import json
import signal

from tests.faults.bench import LONG, Bench, Shape, send
from tests.faults.material import in_another_process

# Each run: how many processes and devices go on, up to which step, on which mesh.
PATHS: tuple[tuple[tuple[Shape, int, tuple[str, ...]], ...], ...] = (
    ((Shape(1, 8), 30, ()), (Shape(2, 4), 60, ()), (Shape(1, 4), 100, ())),
    ((Shape(1, 8), 50, ("--config.mesh.fsdp=2",)), (Shape(1, 8), 100, ("--config.mesh.fsdp=4",))),
)


def shapes(bench: Bench, seed: int) -> dict:
    """One of `PATHS`, against the same steps on its first shape alone."""
    path = PATHS[seed]
    whole = bench.whole(path[0][0], *path[0][2])
    run = bench.folder / f"shapes-{seed}"
    for shape, stop, mesh in path:
        children = bench.start(run, shape, *mesh)
        if stop < bench.steps:
            children[0].reaches("step", stop, LONG)
            send(children[0], signal.SIGTERM)
        codes = [child.wait(LONG) for child in children]
        assert codes == [0 if stop == bench.steps else 75] * shape.processes, children[0].said
    (line,) = in_another_process("difference", bench.root, whole, run)
    said = [f"{shape} {' '.join(mesh)}".strip() for shape, _, mesh in path]
    return {"trial": "shapes", "seed": seed, "path": said, **json.loads(line)}
