"""From run folders to what a grid found, in tables, words and pictures."""
