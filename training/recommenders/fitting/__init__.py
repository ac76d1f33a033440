"""The training of each recommender: options, task, fit."""
