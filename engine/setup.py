"""Packaging of deepetpicker, the engine; the reason for each requirement stands in docs/dependencies.rst."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (HERE / "deepetpicker" / "__init__.py").read_text("utf-8"), re.M)[1]
PYTHONS = ["3.8", "3.9", "3.10", "3.11", "3.12"]

# What the ground floor needs, which Scipion's own Python 3.8 imports too.
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
    "jinja2>=3.0",
    "tensorboard>=2.12",
]
# What some data need, and picking on many workers.
EXTRAS = {
    "zarr": ["zarr>=2.16,<3.1.6"],
    "cluster": ["distributed>=2024.8", "dask-jobqueue>=0.8.5", "cryptography>=41", "bokeh>=3.1"],
}

setup(
    name="deepetpicker",
    version=VERSION,
    description="Pick particles in cryo-electron tomograms with a 3D-ResUNet trained on a few labelled centres",
    long_description=(HERE / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    license="GPL-3.0-or-later",
    author="The maintainers of scipion-em-deepetpicker",
    url="https://github.com/scipion-em/scipion-em-deepetpicker",
    keywords="cryoem cryo-electron-tomography particle-picking deep-learning",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: {version}" for version in ["3", *PYTHONS]),
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    python_requires=f">={PYTHONS[0]}",
    packages=find_packages(),
    package_data={"deepetpicker.report.pages": ["*.css", "*.jinja"], "deepetpicker.network": ["generic.safetensors"]},
    install_requires=[*BASE, *(f'{requirement}; python_version >= "3.9"' for requirement in ENGINE)],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["deepetpicker = deepetpicker.__main__:command"]},
    zip_safe=False,
)
