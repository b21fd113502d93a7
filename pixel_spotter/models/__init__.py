"""One model a file, all on the base in `pixel_spotter.models.base`."""
