"""Operators of PyTorch by simpler ones, for engines that have only those: each a function on tensors, traced in place.

Every module has ``DEFINITIONS``: for each operator a function with the operator's own arguments and results. They run
on real tensors as well, which is how they are tested. Shapes are static; everything is float32 unless said otherwise.
"""
