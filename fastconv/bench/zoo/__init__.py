"""Nets of different makes as ONNX graphs: published sizes, drawn weights, operators as common exporters write them."""
