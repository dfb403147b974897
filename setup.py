"""Packaging of scipion-em-deepetpicker, the Scipion plugin; docs/dependencies.rst says why each requirement is there.

The engine is a distribution of its own, in engine/. Scipion takes the first top-level package of a distribution for the
plugin, so this one holds deepetpicker_plugin alone. Installed from a checkout it brings the engine that lies there.
"""

import os
import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent
ENGINE = ROOT / "engine"


def read_version():
    """Return the version, which stands in the engine; a source distribution, which lacks it, has it in PKG-INFO."""
    source = ENGINE / "deepetpicker" / "__init__.py"
    if source.exists():
        return re.search(r'^__version__ = "([^"]+)"', source.read_text("utf-8"), re.M)[1]
    return re.search(r"^Version: (.+)$", (ROOT / "PKG-INFO").read_text("utf-8"), re.M)[1]


def engine_requirement():
    """Return the requirement of the engine: the one in this checkout, unless DEEPETPICKER_ENGINE=index."""
    if ENGINE.exists() and os.environ.get("DEEPETPICKER_ENGINE") != "index":
        return f"deepetpicker @ {ENGINE.as_uri()}"
    return f"deepetpicker=={VERSION}"


VERSION = read_version()

# What makes it a plugin. Scipion's packages do not resolve on Python 3.13, where the engine alone is installed.
PLUGIN = ["scipion-em-tomo>=3.12"]

# What follows picking: the tests and the demonstration hand picks over to it.
DOWNSTREAM = [f'scipion-em-{name}; python_version < "3.13"' for name in ("reliontomo", "emantomo", "dynamo")]

EXTRAS = {
    "scipion": ["scipion-app>=3.8"],
    "test": ["pytest>=8.0", "pytest-cov>=5.0", "pytest-xdist>=3.6", "hypothesis>=6.100", *DOWNSTREAM],
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
    packages=find_packages(include=["deepetpicker_plugin", "deepetpicker_plugin.*"]),
    package_data={"deepetpicker_plugin": ["protocols.conf", "*.png", "templates/*"]},
    install_requires=[
        engine_requirement(),
        *(f'{requirement}; python_version < "3.13"' for requirement in PLUGIN),
    ],
    extras_require=EXTRAS,
    entry_points={
        # Scipion imports the module that the entry point's NAME says.
        "pyworkflow.plugin": ["deepetpicker_plugin = deepetpicker_plugin"],
    },
    zip_safe=False,
)
