"""Microboards: an int8 model as C source, with what it needs of flash and RAM, refused if it does not fit."""

from mas_edge.export.micro.export import MicroModel, MicroReport, export_micro
from mas_edge.export.micro.tables import TensorSpec

__all__ = ["MicroModel", "MicroReport", "TensorSpec", "export_micro"]
