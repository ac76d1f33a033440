"""Tests of training.concepts."""
