"""What the tests of several targets are given."""

from collections.abc import Iterator

import pytest

from tests.faults.material import in_another_process
from tests.launch.runs import Place, forget


@pytest.fixture(scope="module")
def place(request, tmp_path_factory) -> Iterator[Place]:
    """Folders of runs, for test_TARGET: those that are called `test-TARGET-…` are forgotten afterwards."""
    target = request.module.__name__.rpartition("test_")[2]
    folder = tmp_path_factory.mktemp(target)
    in_another_process("make", folder / "base")
    yield Place(folder, folder / "base")
    forget(f"test-{target}-")
