"""Tests of training.studies."""
