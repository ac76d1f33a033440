"""Measures the server: metrics, histograms, timings, and their exposition."""
