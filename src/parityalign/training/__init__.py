"""Levelling: training rows, the training loop, and the student's weights."""
