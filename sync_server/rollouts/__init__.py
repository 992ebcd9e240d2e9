"""Rollouts: which share of a channel's devices gets which release."""
