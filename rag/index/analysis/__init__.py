"""The parts of an analyzer: scripts, words, Korean."""
