from pathlib import Path

import pytest

from tests.eval.stand_in import write_five


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """The folder of the task `five`."""
    return write_five(tmp_path / "five")
