"""Pixel Spotter: find a point in an image, exactly."""

__version__ = "0.2.0"
