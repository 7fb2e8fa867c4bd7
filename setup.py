"""Package metadata. Run-time requirements live in requirements.txt, their one home."""

import subprocess
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
REQUIREMENTS = [
    line
    for line in (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
EVAL = [
    "bm25s>=0.2.14,<0.4",
    "mteb>=2.20,<2.27",
    "peft>=0.18,<0.22",  # for adapter folders
    "sentence-transformers>=5.1,<7",
    "torch>=2.10,<2.14",
    "transformers>=5.5,<5.24",
]
TEXT = ["py3langid>=0.4,<0.5", "rensa>=0.5,<0.6"]  # rensa 0.5 changed what its signatures are
DATA = [  # formats of others, cleaning
    *TEXT,
    "datasets>=4,<6",
    "importlib_resources>=6.4,<8",  # tensorflow_datasets imports it and does not say so
    "pyarrow>=21,<27",
    "tensorflow_datasets>=4.9.10,<4.10",
]
GCS = ["gcsfs>=2026.9,<2027"]
S3 = ["s3fs>=2026.9,<2027"]
SYNTH = [*TEXT, "aiohttp>=3.14.4,<4", "httpx2>=2.12,<3", "openai>=3.50,<4"]
DEMO = ["django>=5.2,<6", "pycountry>=24.6,<27"]  # for their translations
DEV = [
    *DATA,
    *SYNTH,
    *DEMO,
    "beartype>=0.22,<0.24",
    "datasketch>=2.0,<3",  # beside rensa in a benchmark
    *GCS,
    *S3,
    "faiss-cpu>=1.15,<1.16",  # in benchmarks
    "flask>=3.1,<4",  # moto serves with it and does not say so
    "flask-cors>=6,<7",
    "gcp-storage-emulator>=2026.7,<2027",
    "hypothesis>=6.140,<7",
    "import-linter>=2.5,<2.17",
    "libtpu>=0.0.42,<0.0.43; platform_machine == 'x86_64' and sys_platform == 'linux'",
    "mistral-common>=1.8,<2",  # carries the real Mistral tokenizer
    "moto[s3]>=5.2,<6",
    "pre-commit>=4.3,<5",
    "pyright[nodejs]>=1.1.400,<1.1.420",  # node from the package index
    "pytest>=9.0,<9.3",
    "pytest-xdist>=3.8,<4",
    "ruff>=0.14,<0.18",
    "sentencepiece>=0.2.1,<0.3",
]


class Stamped(build_py):
    """Writes the commit into what is built from a checkout; `git archive` has done so already where there is none."""

    def run(self) -> None:
        super().run()
        stamp = Path(self.build_lib, "e5jax", "commit.txt")
        if (
            stamp.is_file()
            and stamp.read_text(encoding="utf-8").startswith("$")
            and (HERE / ".git").exists()
        ):
            command = [
                "git",
                "-C",
                str(HERE),
                "describe",
                "--always",
                "--dirty=+",
                "--abbrev=40",
                "--exclude=*",
            ]
            # No shell, and only our own words.
            said = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
            stamp.write_text(said.stdout, encoding="utf-8")


setup(
    name="e5jax",
    version="0.1.0",
    description="Turns an open decoder language model into a text embedder, in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["e5jax", "e5jax.*"]),
    package_data={
        "e5jax": ["commit.txt"],
        "e5jax.eval": ["*.tsv"],
        "e5jax.report": ["page.css"],
        "e5jax.synth": ["*.tsv", "avoid.txt", "prompts/*.txt"],
    },
    install_requires=REQUIREMENTS,
    extras_require={
        "tpu": ["jax[tpu]>=0.10.2,<0.11"],
        "cuda": ["jax[cuda13]>=0.10.2,<0.11"],
        "data": DATA,
        "eval": EVAL,
        "gcs": GCS,
        "s3": S3,
        "synth": SYNTH,
        "demo": [*SYNTH, *DEMO],
        "dev": [*DEV, *DATA],  # tests clean data
    },
    cmdclass={"build_py": Stamped},
    entry_points={"console_scripts": ["e5jax=e5jax.cli:command"]},
)
