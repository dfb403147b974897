"""Packaging of scipion-em-deepetpicker, the Scipion plugin; docs/dependencies.rst says why each requirement is there.

The engine is a distribution of its own, in engine/. Scipion takes the first top-level package of a distribution for the
plugin, so this one holds deepetpicker_plugin alone. Installed from a checkout it brings the engine that lies there;
built from its source distribution, as what is uploaded must be, it asks the package index for the same version.
"""

import os
import pathlib
import re
import sys

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
    """Return the requirement of the engine.

    It is the one in this checkout where there is one, unless a source distribution is made or
    DEEPETPICKER_ENGINE=index: no other machine has that folder.
    """
    published = "sdist" in sys.argv or os.environ.get("DEEPETPICKER_ENGINE") == "index"
    return f"deepetpicker @ {ENGINE.as_uri()}" if ENGINE.exists() and not published else f"deepetpicker=={VERSION}"


VERSION = read_version()
PYTHONS = ["3.8", "3.9", "3.10", "3.11", "3.12"]

# What follows picking: the tests and the demonstration hand picks over to it.
DOWNSTREAM = ["scipion-em-reliontomo", "scipion-em-emantomo", "scipion-em-dynamo"]

# As the engine has them. The tests need them too, but pip finds no end when it has to find these and Scipion's packages
# at once: scripts/make_env.py installs them after the rest.
ZARR = ["zarr>=2.16,<3.1.6"]
CLUSTER = ["distributed>=2024.8", "dask-jobqueue>=0.8.5", "cryptography>=41", "bokeh>=3.1"]
EXTRAS = {
    "scipion": ["scipion-app>=3.8"],
    "zarr": ZARR,
    "cluster": CLUSTER,
    "test": ["pytest>=8.0", "pytest-cov>=5.0", "pytest-xdist>=3.6", "hypothesis>=6.100", *DOWNSTREAM],
    "dev": ["ruff>=0.9", "mypy>=1.14", "build>=1.0", "docutils>=0.20", "sphinx>=7.0", "wheel"],
}

setup(
    name="scipion-em-deepetpicker",
    version=VERSION,
    description="Scipion plugin that picks particles in cryo-electron tomograms with a 3D-ResUNet",
    long_description=(ROOT / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    license="GPL-3.0-or-later",
    author="The maintainers of scipion-em-deepetpicker",
    url="https://github.com/scipion-em/scipion-em-deepetpicker",
    # The first four are those by which Scipion and its users know a plugin and the Scipion it is for.
    keywords="scipion cryoem imageprocessing scipion-3.0 cryo-electron-tomography particle-picking deep-learning",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: X11 Applications",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: {version}" for version in ["3", *PYTHONS]),
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    python_requires=f">={PYTHONS[0]}",
    packages=find_packages(include=["deepetpicker_plugin", "deepetpicker_plugin.*"]),
    package_data={"deepetpicker_plugin": ["protocols.conf", "*.png", "templates/*"]},
    install_requires=[
        engine_requirement(),
        "scipion-em-tomo>=3.12",
        "numpy>=1.24",
        "mrcfile>=1.4.0",
        "matplotlib>=3.7",
    ],
    extras_require=EXTRAS,
    entry_points={
        # Scipion imports the module that the entry point's NAME says.
        "pyworkflow.plugin": ["deepetpicker_plugin = deepetpicker_plugin"],
    },
    zip_safe=False,
)
