"""Pixel Spotter: find a point in an image, exactly."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixel_spotter.api import bound, load, locate

__version__ = "0.2.0"
__all__ = ["bound", "load", "locate"]


def __getattr__(name: str) -> Any:
    """Return what `pixel_spotter.api` has, which takes seconds to import."""
    if name in __all__:
        from pixel_spotter import api

        return getattr(api, name)
    raise AttributeError(f"module 'pixel_spotter' has no attribute {name!r}")
