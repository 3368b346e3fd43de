"""Nets of different makes as ONNX graphs: published sizes, drawn weights, operators as the common exporters write them."""
