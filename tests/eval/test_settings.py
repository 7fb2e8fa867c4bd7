import shutil

from e5jax.eval.settings import fingerprint


def test_a_byte_anywhere_and_a_name_make_another_model(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "1_Pooling").mkdir(parents=True)
    (one / "1_Pooling" / "config.json").write_text("{}")
    (one / "model.safetensors").write_bytes(bytes(5_000_000))
    shutil.copytree(one, other)
    assert fingerprint(one) == fingerprint(other)
    with (other / "model.safetensors").open("r+b") as file:
        file.seek(2_500_000)
        file.write(b"\1")
    assert fingerprint(one) != fingerprint(other)
    (one / "model.safetensors").rename(one / "model-1.safetensors")
    assert fingerprint(one) not in (fingerprint(other), "")
