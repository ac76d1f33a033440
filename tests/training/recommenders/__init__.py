"""Tests of training.recommenders."""
