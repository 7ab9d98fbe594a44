"""Compiles the products where there is a compiler; without one the package installs as well."""

from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).parent

PRODUCTS = Extension(
    "llamakit_x86.products",
    sources=sorted(str(path.relative_to(HERE)) for path in HERE.glob("csrc/*.c")),
    depends=sorted(str(path.relative_to(HERE)) for path in HERE.glob("csrc/*.h")),
    # Neither a fused multiply-add that is not written nor -march=native: every instruction set
    # gives the same bits, and one build runs on any processor.
    extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fno-trapping-math"],
    libraries=["m"],
    optional=True,
)

setup(ext_modules=[PRODUCTS])
