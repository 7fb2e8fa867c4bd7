"""Writes examples as a TFDS data set in array_record files, without TensorFlow: the only home of tensorflow_datasets.

One builder serves every set: what differs is in `sets`. The folder can be opened with `tfds.builder_from_directory` as well.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.registered import skip_registration

from e5jax.data.records import SCHEMA, Example
from e5jax.datasets.public_sets import Set
from e5jax.errors import RunError

VERSION = f"{SCHEMA}.0.0"
SPLIT = "train"


def _features() -> tfds.features.FeaturesDict:
    """The fields of an example; scores are float32."""
    text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
    scores = tfds.features.Sequence(np.float32)
    kinds = {
        "positives": texts,
        "negatives": texts,
        "positive_scores": scores,
        "negative_scores": scores,
    }
    return tfds.features.FeaturesDict({name: kinds.get(name, text) for name in Example._fields})


def make_builder(
    chosen: Set, examples: Iterable[Example], root: Path
) -> tfds.core.GeneratorBasedBuilder:
    """The builder of a set below a folder; it writes the examples in their order."""

    class Builder(tfds.core.GeneratorBasedBuilder):
        """Its name is the set's."""

        name = chosen.name
        VERSION = tfds.core.Version(VERSION)

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                description=chosen.title,
                features=_features(),
                homepage=" ".join(chosen.files[:1]),
                license=chosen.licence,
                disable_shuffling=True,
            )

        def _split_generators(
            self, _: tfds.download.DownloadManager
        ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
            return {SPLIT: self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for key, example in enumerate(examples):
                yield (
                    key,
                    {
                        name: list(value) if isinstance(value, tuple) else value
                        for name, value in example._asdict().items()
                    },
                )

    return Builder(data_dir=str(root), file_format="array_record")


def write(chosen: Set, examples: Iterable[Example], folder: Path) -> int:
    """Makes the folder, which must not be there, and says how many examples it holds; there must be one at least."""
    root = folder.with_name(f"{folder.name}.build")
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # names of temporary folders
        with skip_registration():  # one class a set, and the same one again in another process
            builder = make_builder(chosen, examples, root)
        try:
            builder.download_and_prepare()
        except RuntimeError as error:  # array_record's, for an OSError
            _, failed, reason = str(error).partition("write() failed: ")
            if not failed:
                raise
            fix = "free some space and run the same command again"
            raise RunError(
                f"{root}: could not be written: {reason.partition(';')[0]}; {fix}"
            ) from error
    Path(builder.data_dir).rename(folder)
    return builder.info.splits[SPLIT].num_examples
