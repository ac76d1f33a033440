"""Tests of trimtab."""
