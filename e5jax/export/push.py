"""An exported folder on the Hugging Face hub. Token and endpoint are those of huggingface_hub: HF_TOKEN or a login, HF_ENDPOINT."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from e5jax.config.validate import is_hub_id
from e5jax.errors import ConfigError, RunError
from e5jax.workdir.outputs import LIST


def check_name(name: str) -> None:
    """Raises ConfigError for what is no `owner/name`."""
    if not is_hub_id(name):
        raise ConfigError(f"--push-to-hub={name}: must be owner/name, and no path of this machine")


def push(folder: Path, name: str, *, private: bool) -> str:
    """Makes the repository when it is not there, and puts the folder into it as one commit. Returns its address."""
    api = HfApi()
    try:
        made = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=name,
            commit_message="Export of e5jax",
            ignore_patterns=[LIST],
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise RunError(
            f"{folder} is written, and could not be put on the hub as {name}: {str(error).splitlines()[0]}; "
            f"set HF_TOKEN to a token that may write, then `hf upload {name} {folder}`"
        ) from error
    return str(made)
