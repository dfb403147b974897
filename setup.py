"""Packaging of scipion-em-deepetpicker; the reason for each requirement stands in docs/dependencies.rst."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (ROOT / "deepetpicker" / "__init__.py").read_text("utf-8"), re.M)[1]

# What the base group and the plugin need: Python 3.8, as in Scipion's own environment.
BASE = [
    "numpy>=1.24",
    "mrcfile>=1.4.0",
    "tqdm>=4.57",
]
# What training, picking, evaluating and simulating need.
ENGINE = [
    "torch>=2.2",
    "lightning>=2.2",
    "safetensors>=0.4",
    "scipy>=1.9",
    "starfile>=0.5",
    "matplotlib>=3.7",
    "tensorboard>=2.12",
]
# What makes it a plugin. Scipion's packages do not resolve on Python 3.13, where the engine alone is installed.
PLUGIN = ["scipion-em-tomo>=3.12"]

# What follows picking: the tests and the demonstration hand picks over to it.
DOWNSTREAM = [f'scipion-em-{name}; python_version < "3.13"' for name in ("reliontomo", "emantomo", "dynamo")]

EXTRAS = {
    "scipion": ["scipion-app>=3.8"],
    "test": ["pytest>=8.0", "pytest-cov>=5.0", "hypothesis>=6.100", *DOWNSTREAM],
    "dev": ["ruff>=0.9", "mypy>=1.14", "build>=1.0", "docutils>=0.20", "wheel"],
}

setup(
    name="scipion-em-deepetpicker",
    version=VERSION,
    description="Pick particles in cryo-electron tomograms with a 3D-ResUNet trained on a few labelled centres",
    long_description=(ROOT / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    license="GPL-3.0-or-later",
    keywords="scipion cryo-electron-tomography particle-picking deep-learning",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.8",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    python_requires=">=3.8",
    packages=find_packages(include=["deepetpicker", "deepetpicker.*", "deepetpicker_plugin", "deepetpicker_plugin.*"]),
    package_data={"deepetpicker_plugin": ["protocols.conf", "*.png", "templates/*"]},
    install_requires=[
        *BASE,
        *(f'{requirement}; python_version >= "3.9"' for requirement in ENGINE),
        *(f'{requirement}; python_version < "3.13"' for requirement in PLUGIN),
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["deepetpicker = deepetpicker.__main__:main"],
        # Scipion imports the module that the entry point's NAME says.
        "pyworkflow.plugin": ["deepetpicker_plugin = deepetpicker_plugin"],
    },
    zip_safe=False,
)
