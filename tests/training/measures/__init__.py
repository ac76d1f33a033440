"""Tests of training.measures."""
