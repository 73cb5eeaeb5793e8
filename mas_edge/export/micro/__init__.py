"""Microboards: an int8 model as C source, with what it needs of flash and RAM, refused if it does not fit."""

from mas_edge.export.micro.export import MicroModel, MicroReport, TensorSpec, export_micro

__all__ = ["MicroModel", "MicroReport", "TensorSpec", "export_micro"]
