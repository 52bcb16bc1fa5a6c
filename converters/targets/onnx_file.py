"""Moved to `converters.onnx_file`, which sources use too: sources and targets must not import each other."""

from converters.onnx_file import DOMAINS, graphs_of, inlined, nodes_of, opset_of, refuse_foreign_domains, upgraded

__all__ = ["DOMAINS", "graphs_of", "inlined", "nodes_of", "opset_of", "refuse_foreign_domains", "upgraded"]
