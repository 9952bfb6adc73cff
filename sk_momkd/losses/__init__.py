"""Objectives as pure functions of tensors, each naming its equation."""
