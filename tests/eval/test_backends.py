import shutil

from e5jax.eval.backends import settings_of


def test_a_changed_byte_or_name_is_another_model(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "1_Pooling").mkdir(parents=True)
    (one / "1_Pooling" / "config.json").write_text("{}")
    (one / "model.safetensors").write_bytes(bytes(5_000_000))
    shutil.copytree(one, other)

    def model(folder):
        return settings_of(folder, "jax", "paper", None)["model"]

    assert model(one) == model(other)
    with (other / "model.safetensors").open("r+b") as file:
        file.seek(2_500_000)
        file.write(b"\1")
    assert model(one) != model(other)
    (one / "model.safetensors").rename(one / "model-1.safetensors")
    assert model(one) not in (model(other), "")
