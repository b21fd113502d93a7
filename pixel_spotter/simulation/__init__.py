"""Truth to images: what a camera would record."""
