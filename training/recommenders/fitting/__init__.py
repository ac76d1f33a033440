"""How each recommender is trained: options, task, fit."""
