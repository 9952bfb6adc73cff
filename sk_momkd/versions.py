"""Installed versions and hardware, for bug reports."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from . import __version__

_PACKAGES = (
    "torch",
    "torch-geometric",
    "scikit-learn",
    "skorch",
    "numpy",
    "scipy",
    "pandas",
    "anndata",
    "h5py",
    "numba",
    "joblib",
)


def show_versions() -> None:
    """Print versions, the device, and the backend and precision that "auto" selects.

    Examples
    --------
    >>> from sk_momkd import show_versions
    >>> show_versions()  # doctest: +ELLIPSIS
    python           3...
    """
    for name, value in facts().items():
        sys.stdout.write(f"{name:<16} {value}\n")


def facts() -> dict[str, str]:
    """Versions, device, and what "auto" selects."""
    import torch  # not needed to compare versions

    from .nn.backend import choose_backend, numba_version
    from .nn.precision import native_bfloat16

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    numba = numba_version() or "not used: absent, or NUMBA_DISABLE_JIT is set"
    precision = "bfloat16" if native_bfloat16(device) else "float32"
    return {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "sk_momkd": __version__,
        **{package: version_of(package) for package in _PACKAGES},
        "device": f"{device} ({name}), {torch.get_num_threads()} threads",
        "backend auto": choose_backend("auto", torch.ones(1, device=device)),
        "compiled loops": f"numba {numba}",
        "precision auto": precision,
    }


def of_results() -> dict[str, str]:
    """Versions on which numbers can depend, with which a fit or a study goes on."""
    python = ".".join(map(str, sys.version_info[:2]))
    packages = ("torch", "numpy", "scipy", "scikit-learn", "skorch", "numba")
    return {"sk_momkd": __version__, "python": python} | {p: version_of(p) for p in packages}


def version_of(package: str) -> str:
    """Installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
