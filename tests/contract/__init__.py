"""Tests of what the packages promise one another."""
