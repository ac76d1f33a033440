"""Computes steering: edits, boosts, lifts and the solver, in numpy alone."""
