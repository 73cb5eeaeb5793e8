"""LiteRT: inference models, and experimental training programs, as .tflite files."""
