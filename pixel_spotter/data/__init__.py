"""What models are trained and tested on."""
