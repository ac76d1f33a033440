"""Tests of training.datasets."""
