"""Fewer bits a weight: one method a module, each a function from a weight matrix to codes and what decodes them."""
