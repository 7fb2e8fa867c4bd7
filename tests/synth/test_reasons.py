"""The table of the documentation is the table of the code, and every reason of the code is in it."""

from e5jax.llm_client.faults import FAULTS, table
from e5jax.synth.reasons import REASONS, rows
from tests.config.test_load import ROOT


def test_the_documentation_has_the_one_table():
    assert f"{table()}\n{rows()}\n" in (ROOT / "docs/synth.md").read_text(encoding="utf-8")


def test_every_reason_in_the_table_is_given_somewhere():
    paths = sorted((ROOT / "e5jax/synth").glob("*.py"))
    code = "".join(path.read_text(encoding="utf-8") for path in paths if path.stem != "reasons")
    assert not [reason for reason in REASONS if f'"{reason}"' not in code]


def test_no_name_stands_for_two_things():
    assert not set(FAULTS) & set(REASONS)


def test_reasons_lead_to_another_attempt_or_to_none():
    assert {row.action for row in REASONS.values()} == {"regenerate", "drop"}
