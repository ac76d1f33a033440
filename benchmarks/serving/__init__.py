"""Measures what serving costs: throughput, latency, stages and memory."""
