"""One file a figure: from groups of runs to sections with a picture."""
