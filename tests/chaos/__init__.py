"""Seeded trials that kill everything at every phase, and an oracle that compares what is left with what was made."""
