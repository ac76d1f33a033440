"""Tests of training.saes."""
